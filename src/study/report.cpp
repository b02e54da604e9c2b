#include "study/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/error.h"
#include "base/file.h"
#include "study/report_figures.h"
#include "study/report_sections.h"
#include "study/report_style.h"
#include "study/svg_plot.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxRecordsBytes = uint64_t{1} << 30;

template <typename... Args>
void put(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

std::string file_name(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

// --- the first screen ---

struct Tile {
  std::string name, value, unit, comparison;
  double share = 0, reference_share = 0;  // lengths of the two bars, in [0, 1]; both 0: none
};

// `value` against `reference`: "bf16: 412, 34 % less"
std::string compare(double value, double reference, int digits, const char* less,
                    const char* more) {
  if (!(reference > 0)) return "";
  const std::string against = "bf16: " + format_number(reference, digits);
  const double ratio = value / reference;
  if (std::abs(ratio - 1) < 0.0005) return against + ", the same";
  if (ratio >= 1.95) return fmt::format("{}, {} that", against, format_ratio(ratio));
  return fmt::format("{}, {} % {}", against, format_number(100 * std::abs(ratio - 1), 2),
                     ratio < 1 ? less : more);
}

Tile make_tile(const char* name, const char* unit, double value, double reference, const char* less,
               const char* more, int digits = 3) {
  Tile tile{name, format_number(value, digits), unit,
            compare(value, reference, digits, less, more)};
  const double most = std::max(value, reference);
  if (reference > 0 && most > 0) {
    tile.share = value / most;
    tile.reference_share = reference / most;
  }
  return tile;
}

std::vector<Tile> make_tiles(const StudyGrid& grid, const CellKey& cell) {
  const Record* r = grid.find(cell.variant, cell.kv, cell.batch);
  const Record* base = grid.reference(cell.batch);
  const Record* quality = grid.quality(cell.variant, cell.kv);
  const Record* base_quality = grid.quality("bf16", "bf16");
  if (r == nullptr) return {};
  const auto sample_tile = [&](const char* name, const char* unit, Samples Record::*samples,
                               double scale, const char* less, const char* more) {
    const bool known = base != nullptr && is_measured(base->*samples);
    return make_tile(name, unit, (r->*samples).median() * scale,
                     known ? (base->*samples).median() * scale : 0, less, more);
  };
  std::vector<Tile> tiles;
  if (is_measured(r->decode_tokens_per_second)) {
    tiles.push_back(sample_tile("Decode speed", "tokens/s", &Record::decode_tokens_per_second, 1,
                                "slower", "faster"));
  }
  if (is_measured(r->first_token_seconds)) {
    tiles.push_back(sample_tile("First token after", "ms", &Record::first_token_seconds, 1e3,
                                "sooner", "later"));
  }
  if (r->peak_resident_bytes > 0) {
    tiles.push_back(make_tile(
        "Peak memory", "MB", static_cast<double>(r->peak_resident_bytes) * 1e-6,
        base ? static_cast<double>(base->peak_resident_bytes) * 1e-6 : 0, "less", "more"));
  }
  if (quality != nullptr) {
    tiles.push_back(make_tile("Perplexity, lower is better", "", quality->quality.perplexity,
                              base_quality ? base_quality->quality.perplexity : 0,
                              "lower: no loss", "higher", 4));
    if (quality->quality.top1_agreement) {
      Tile tile{"Same top token as bf16", format_number(100 * *quality->quality.top1_agreement),
                "%", fmt::format("of {} positions", format_count(quality->quality.scored_tokens))};
      tile.share = std::clamp(*quality->quality.top1_agreement, 0.0, 1.0);
      tile.reference_share = 1;
      tiles.push_back(std::move(tile));
    }
  }
  if (r->joules_per_token) {
    tiles.push_back(make_tile("Energy", "J/token", *r->joules_per_token,
                              base ? base->joules_per_token.value_or(0) : 0, "less", "more"));
  }
  return tiles;
}

void put_tiles(std::string& out, const StudyGrid& grid, const CellKey& cell) {
  const std::vector<Tile> tiles = make_tiles(grid, cell);
  if (tiles.empty()) return;
  out += "<ul class=\"tiles\">";
  for (const Tile& tile : tiles) {
    put(out, "<li><div class=\"k\">{}</div><div class=\"v\">{}<small>{}</small></div>", tile.name,
        tile.value, tile.unit);
    if (tile.share > 0) {
      put(out,
          "<svg viewBox=\"0 0 100 15\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect "
          "class=\"s{} b\" width=\"{:.1f}\" height=\"7\"/><rect class=\"s0 b\" y=\"9\" "
          "width=\"{:.1f}\" height=\"4\"/></svg>",
          grid.series(cell.variant), 100 * tile.share, 100 * tile.reference_share);
    }
    put(out, "<div class=\"d\">{}</div></li>", tile.comparison);
  }
  out += "</ul>";
  put(out,
      "<p class=\"facts\">Medians for {} at batch {}. Grey bars: bf16 weights with a bf16 KV cache "
      "at the "
      "same batch.</p>",
      escape_html(cell_name(cell)), cell.batch);
}

// The weights' encoding in the model file when it is narrower than 16 bits, else empty.
std::string quantized_encoding(const std::vector<Record>& records) {
  for (const Record& r : records) {
    if (!r.extra.is_object() || !r.extra.contains("shipped_encoding")) continue;
    if (!r.extra["shipped_encoding"].is_string()) continue;
    const auto name = r.extra["shipped_encoding"].get<std::string>();
    const auto digit =
        std::find_if(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
    // "q4_1", "Q8_0", "int8": the first number is the width; "f16", "bf16", "f32" start with 1
    // or 3.
    if (digit != name.end() && *digit >= '2' && *digit <= '8' &&
        name.find("32") == std::string::npos) {
      return name;
    }
  }
  return "";
}

void put_head(std::string& out, const ReportInput& input) {
  put(out,
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      "<meta name=\"color-scheme\" content=\"light dark\"><meta name=\"referrer\" "
      "content=\"no-referrer\"><title>{}</title><style>{}</style></head><body>\n",
      escape_html(input.title), kReportStyle);
  out += "<svg width=\"0\" height=\"0\" style=\"position:absolute\" aria-hidden=\"true\"><defs>";
  for (int i = 0; i < kNumSeries; ++i) {
    put(out,
        "<pattern id=\"h{}\" class=\"s{}\" width=\"5\" height=\"5\" "
        "patternUnits=\"userSpaceOnUse\" "
        "patternTransform=\"rotate(45)\"><rect class=\"hb\" width=\"5\" height=\"5\"/><line "
        "class=\"hl\" y2=\"5\"/></pattern>",
        i, i);
  }
  out += "</defs></svg>\n";
}

void put_first_screen(std::string& out, const ReportInput& input, const StudyGrid& grid) {
  put(out, "<header><p class=\"over\">tandem study{}{}</p><h1>{}</h1>",
      input.profile.empty() ? "" : " \u00b7 profile ", escape_html(input.profile),
      escape_html(input.title));
  if (!input.records.empty()) {
    const Record& r = input.records.front();
    const size_t num_cells = input.records.size() - grid.repeated;
    put(out,
        "<p class=\"facts\">{} on {}, {} threads, {}. {} configuration{}, prompts of {} tokens, {} "
        "new tokens. {}{}</p>",
        escape_html(file_name(r.model_path)), escape_html(r.cpu), r.threads, escape_html(r.isa),
        num_cells, num_cells == 1 ? "" : "s", r.prompt_tokens, r.new_tokens,
        r.started_at.empty() ? "" : "Measured on ",
        escape_html(std::string_view(r.started_at).substr(0, 10)));
  }
  out += "<div class=\"verdict\">";
  if (input.recommended) {
    const CellKey& cell = *input.recommended;
    put(out, "<h2>Use {} with {} KV cache</h2>",
        cell.variant == "as shipped" ? "the weights as shipped"
                                     : escape_html(cell.variant) + " weights",
        escape_html((cell.kv == "int8" ? "an " : "a ") + cell.kv));
  } else {
    put(out, "<h2>{}</h2>", input.records.empty() ? "No records" : "No single recommendation");
  }
  if (input.records.empty()) {
    out += "<p class=\"said\">This study holds no measured cell, so there is nothing to draw.</p>";
  }
  if (!input.recommendation.empty()) {
    put(out, "<p class=\"said\">{}</p>", escape_html(input.recommendation));
  }
  if (!input.recommendation_points.empty()) {
    out += "<ul>";
    for (const auto& point : input.recommendation_points)
      put(out, "<li>{}</li>", escape_html(point));
    out += "</ul>";
  }
  out += "</div>";
  if (input.recommended) put_tiles(out, grid, *input.recommended);
  if (const std::string encoding = quantized_encoding(input.records); !encoding.empty()) {
    const char digit = *std::find_if(encoding.begin(), encoding.end(),
                                     [](char c) { return c >= '0' && c <= '9'; });
    put(out,
        "<p class=\"note\">The model as shipped is already {}-bit ({}): bf16 here is a widening of "
        "it, so "
        "the int8 and int4 rows cost a second rounding.</p>",
        digit, escape_html(encoding));
  }
  out += "</header>\n";
}

// --- figures ---

void put_data_table(std::string& out, const Figure& figure) {
  out +=
      "<details><summary>The numbers as a table</summary><div class=\"scroll\" "
      "tabindex=\"0\"><table><thead><tr>";
  for (const auto& column : figure.columns)
    put(out, "<th scope=\"col\">{}</th>", escape_html(column));
  out += "</tr></thead><tbody>";
  for (const auto& row : figure.rows) {
    out += "<tr>";
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string cell = escape_html(row[i]);
      out += i == 0 ? "<th scope=\"row\">" + cell + "</th>" : "<td>" + cell + "</td>";
    }
    out += "</tr>";
  }
  out += "</tbody></table></div></details>";
}

void put_figure(std::string& out, const Figure& figure, size_t number, const std::string& command) {
  put(out, "<figure id=\"f{}\"><p class=\"over\">Figure {}</p><h2>{}</h2><p class=\"sub\">{}</p>",
      number, number, escape_html(figure.title), escape_html(figure.subtitle));
  if (!figure.panels.empty()) {
    put(out, "<div class=\"key\">{}</div><div class=\"panels{}\">", figure.key,
        figure.panels.size() % 3 == 0 ? " three" : "");
    for (const auto& panel : figure.panels) out += panel;
    put(out, "</div><figcaption>{}<br>Measured by <code>{}</code></figcaption>",
        escape_html(figure.note),
        command.empty() ? "a command that the records do not name" : escape_html(command));
    put_data_table(out, figure);
  }
  out += "</figure>\n";
}

}  // namespace

std::string render_report(const ReportInput& input) {
  const StudyGrid grid(input.records);
  std::string out;
  put_head(out, input);
  out += "<main>\n";
  put_first_screen(out, input, grid);
  const std::vector<Figure> figures = make_figures(grid, input.recommended);
  if (!figures.empty()) {
    out +=
        "<nav aria-label=\"Contents\"><a href=\"#f1\">Decode</a><a href=\"#f2\">Prefill</a><a "
        "href=\"#f3\">Memory</a><a href=\"#f4\">Quality</a><a href=\"#f5\">Trade-offs</a><a "
        "href=\"#f7\">Energy</a><a href=\"#table\">Every record</a><a "
        "href=\"#manifest\">Manifest</a></nav>\n";
  }
  for (size_t i = 0; i < figures.size(); ++i) put_figure(out, figures[i], i + 1, input.command);
  put_answers(out, input, grid);
  put_table(out, input, grid);
  put_method(out);
  put_manifest(out, input);
  out +=
      "</main>\n<footer>Made by tandem from records.jsonl; <code class=\"cmd\">tandem report "
      "STUDYDIR -o "
      "report.html</code> draws this page again.</footer>\n</body></html>\n";
  return out;
}

void write_report(const std::filesystem::path& html, const ReportInput& input) {
  write_file_atomic(html, render_report(input));
}

std::vector<Record> read_records_jsonl(const std::filesystem::path& path) {
  const std::string text = read_text_file(path, kMaxRecordsBytes);
  std::vector<Record> records;
  size_t line_number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string name = fmt::format("{}: line {}", path.string(), line_number);
    const Json json = parse_json(line, name);
    try {
      records.push_back(record_from_json(json));
    } catch (const Error& error) {
      fail(error.kind, "{}: {}", name, error.what());
    }
  }
  return records;
}

}  // namespace tandem
