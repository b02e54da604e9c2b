#include "study/report_sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <tuple>

#include "study/svg_plot.h"

namespace tandem {
namespace {

constexpr size_t kMostPrompts = 16;        // with sample answers on the page
constexpr size_t kMostManifestValues = 6;  // of one field; more are counted

template <typename... Args>
void put(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

std::string median_or_blank(const Samples& samples, double scale = 1) {
  return is_measured(samples) ? format_number(samples.median() * scale) : "";
}

// --- sample answers ---

// Bytes that both begin with, cut back to the end of a word so that the change shows whole words.
size_t shared_prefix(std::string_view a, std::string_view b) {
  const auto ends = [](std::string_view text, size_t n) {
    return n >= text.size() || text[n] == ' ' || text[n] == '\n';
  };
  size_t n = 0;
  while (n < a.size() && n < b.size() && a[n] == b[n]) ++n;
  while (n > 0 && !(ends(a, n) && ends(b, n))) --n;
  return n;
}

struct Card {
  std::string text;
  std::vector<CellKey> who;
};

// Different answers with those that gave them; the answer of bf16 first.
std::vector<Card> make_cards(const StudyGrid& grid, size_t prompt) {
  std::vector<Card> cards;
  size_t reference = 0;
  for (const auto& variant : grid.variants) {
    for (const auto& kv : grid.kvs) {
      const Record* r = grid.quality(variant, kv);
      if (r == nullptr || prompt >= r->quality.sample_answers.size()) continue;
      const std::string& text = r->quality.sample_answers[prompt];
      auto card =
          std::find_if(cards.begin(), cards.end(), [&](const Card& c) { return c.text == text; });
      if (card == cards.end()) card = cards.insert(cards.end(), Card{text, {}});
      card->who.push_back(r->cell);
      if (variant == "bf16" && kv == "bf16") reference = static_cast<size_t>(card - cards.begin());
    }
  }
  if (reference > 0)
    std::rotate(cards.begin(), cards.begin() + reference, cards.begin() + reference + 1);
  return cards;
}

void put_card(std::string& out, const StudyGrid& grid, const Card& card,
              const std::string& reference) {
  const bool is_reference = card.text == reference;
  put(out, "<div class=\"card s{}\"><div class=\"who\">",
      is_reference ? 0 : grid.series(card.who.front().variant));
  for (size_t i = 0; i < card.who.size();) {
    size_t end = i;
    while (end < card.who.size() && card.who[end].variant == card.who[i].variant) ++end;
    // A variant that says the same with every KV type is named once.
    const bool every = end - i == grid.kvs.size();
    for (; i < end; i = every ? end : i + 1) {
      put(out, "<span><span class=\"dot s{}\"></span>{}</span>", grid.series(card.who[i].variant),
          escape_html(every ? card.who[i].variant : cell_name(card.who[i])));
    }
  }
  const std::string_view text = card.text;
  const size_t same = is_reference ? 0 : shared_prefix(text, reference);
  put(out, "</div><p><span class=\"same\">{}</span>{}</p></div>", escape_html(text.substr(0, same)),
      escape_html(text.substr(same)));
}

}  // namespace

void put_answers(std::string& out, const ReportInput& input, const StudyGrid& grid) {
  size_t prompts = 0;
  for (const auto& variant : grid.variants) {
    for (const auto& kv : grid.kvs) {
      if (const Record* r = grid.quality(variant, kv)) {
        prompts = std::max(prompts, r->quality.sample_answers.size());
      }
    }
  }
  if (prompts == 0) return;
  out +=
      "<section id=\"answers\"><h2>The same questions, answered in each precision</h2><p "
      "class=\"sub\">Greedy "
      "decoding. Equal answers share a card, and a name without a KV type stands for all of them; "
      "grey text is word for word what bf16 says, up to the first "
      "difference. A few answers show the tone, not the quality: for that, see the figures.</p>";
  for (size_t i = 0; i < std::min(prompts, kMostPrompts); ++i) {
    const std::string question =
        i < input.questions.size() ? input.questions[i] : fmt::format("Prompt {}", i + 1);
    put(out, "<p class=\"ask\">{}</p><div class=\"cards\">", escape_html(question));
    const Record* base = grid.quality("bf16", "bf16");
    const bool known = base != nullptr && i < base->quality.sample_answers.size();
    const std::string reference = known ? base->quality.sample_answers[i] : "";
    for (const Card& card : make_cards(grid, i)) put_card(out, grid, card, reference);
    out += "</div>";
  }
  if (prompts > kMostPrompts) {
    put(out, "<p class=\"sub\">The answers to {} further prompts are in the records.</p>",
        prompts - kMostPrompts);
  }
  out += "</section>\n";
}

namespace {

// --- every record ---

struct Column {
  const char* head;
  std::string (*cell)(const Record&);  // HTML; empty: not measured
};

std::string fixed(double value, int decimals) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, decimals) : "n/a";
}

std::string fixed_megabytes(uint64_t bytes) {
  return bytes == 0 ? "" : fixed(static_cast<double>(bytes) * 1e-6, 1);
}

std::string fixed_or_blank(const std::optional<double>& value, int decimals, double scale = 1) {
  return value ? fixed(*value * scale, decimals) : "";
}

constexpr Column kColumns[] = {
    {"decode<br>tok/s",
     [](const Record& r) { return median_or_blank(r.decode_tokens_per_second); }},
    {"spread<br>%",
     [](const Record& r) {
       const Samples& s = r.decode_tokens_per_second;
       return is_measured(s) && s.values.size() > 1 ? fixed(100 * s.spread(), 1) : "";
     }},
    {"prefill<br>tok/s",
     [](const Record& r) { return median_or_blank(r.prefill_tokens_per_second); }},
    {"first<br>token ms",
     [](const Record& r) { return median_or_blank(r.first_token_seconds, 1e3); }},
    {"n<br>runs",
     [](const Record& r) { return fmt::format("{}", r.decode_tokens_per_second.values.size()); }},
    {"file<br>MB", [](const Record& r) { return fixed_megabytes(r.file_bytes); }},
    {"weights<br>MB", [](const Record& r) { return fixed_megabytes(r.weight_bytes); }},
    {"KV<br>MB", [](const Record& r) { return fixed_megabytes(r.kv_bytes); }},
    {"work<br>MB", [](const Record& r) { return fixed_megabytes(r.workspace_bytes); }},
    {"peak<br>MB", [](const Record& r) { return fixed_megabytes(r.peak_resident_bytes); }},
    {"idle<br>W", [](const Record& r) { return fixed_or_blank(r.idle_watts, 1); }},
    {"mean<br>W", [](const Record& r) { return fixed_or_blank(r.mean_watts, 1); }},
    {"energy<br>J/token", [](const Record& r) { return fixed_or_blank(r.joules_per_token, 3); }},
    {"above idle<br>J/token",
     [](const Record& r) { return fixed_or_blank(r.dynamic_joules_per_token, 3); }},
    {"tok/s<br>for a watt",
     [](const Record& r) {
       if (!r.joules_per_token || !(*r.joules_per_token > 0)) return std::string();
       return fixed(1 / *r.joules_per_token, 2);
     }},
    {"perplexity<br>\u00b1 std. error",
     [](const Record& r) {
       const Quality& q = r.quality;
       if (!(q.perplexity > 0)) return std::string();
       return fixed(q.perplexity, 3) + " <small>\u00b1" + fixed(q.perplexity_stderr, 2) +
              "</small>";
     }},
    {"against bf16 %<br>\u00b1 paired error",
     [](const Record& r) {
       const Quality& q = r.quality;
       if (!q.log_ratio || !std::isfinite(*q.log_ratio)) return std::string();
       // exp(x) - 1 and its error, in percent
       const double ratio = std::exp(*q.log_ratio);
       return fmt::format("{:+.2f} <small>\u00b1{:.2f}</small>", 100 * (ratio - 1),
                          100 * ratio * q.log_ratio_stderr.value_or(0));
     }},
    {"KL<br>nats", [](const Record& r) { return fixed_or_blank(r.quality.kl_divergence, 4); }},
    {"same top<br>token %",
     [](const Record& r) { return fixed_or_blank(r.quality.top1_agreement, 2, 100); }},
};

// The columns of which at least one record has a value.
std::vector<const Column*> used_columns(const std::vector<Record>& records) {
  std::vector<const Column*> columns;
  for (const Column& column : kColumns) {
    const auto has = [&](const Record& r) { return !column.cell(r).empty(); };
    if (std::any_of(records.begin(), records.end(), has)) columns.push_back(&column);
  }
  return columns;
}

std::vector<const Record*> rows_in_order(const ReportInput& input, const StudyGrid& grid) {
  std::map<std::string, size_t> place;
  for (const auto& variant : grid.variants) place.emplace(variant, place.size());
  const auto key = [&](const Record* r) {
    const auto it = place.find(r->cell.variant);
    return std::tuple(it == place.end() ? place.size() : it->second, r->cell);
  };
  std::vector<const Record*> rows;
  for (const Record& r : input.records) rows.push_back(&r);
  std::stable_sort(rows.begin(), rows.end(), [&](auto* a, auto* b) { return key(a) < key(b); });
  return rows;
}

}  // namespace

void put_table(std::string& out, const ReportInput& input, const StudyGrid& grid) {
  if (input.records.empty()) return;
  out +=
      "<section id=\"table\" class=\"full\"><h2>Every record</h2><p class=\"sub\">Medians; spread "
      "is the "
      "interquartile range over the median. A cell whose spread stayed over 10 % after its reruns "
      "is marked "
      "noisy. Empty: not measured; a column that would be empty is left out.";
  if (grid.repeated > 0)
    put(out, " {} records measure a cell again; figures draw the last.", grid.repeated);
  if (grid.left_out > 0)
    put(out, " {} cells are too many for the figures and stand only here.", grid.left_out);
  out +=
      "</p><div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th "
      "scope=\"col\">Configuration</th>";
  const auto columns = used_columns(input.records);
  for (const Column* column : columns) put(out, "<th scope=\"col\">{}</th>", column->head);
  out += "</tr></thead><tbody>\n";
  for (const Record* r : rows_in_order(input, grid)) {
    put(out, "<tr{}><th scope=\"row\"><span class=\"dot s{}\"></span>{} <i>KV {}, batch {}</i>",
        input.recommended == r->cell ? " class=\"pick\"" : "", grid.series(r->cell.variant),
        escape_html(r->cell.variant), escape_html(r->cell.kv), r->cell.batch);
    if (r->noisy) out += " <small class=\"bad\">noisy</small>";
    if (r->reruns > 0) put(out, " <small>{} rerun{}</small>", r->reruns, r->reruns == 1 ? "" : "s");
    out += "</th>";
    for (const Column* column : columns) put(out, "<td>{}</td>", column->cell(*r));
    out += "</tr>\n";
  }
  out += "</tbody></table></div></section>\n";
}

namespace {

// --- manifest ---

// Field -> its different values, in the order of first appearance.
class Manifest {
 public:
  void add(const std::string& field, const std::string& value) {
    if (value.empty()) return;
    auto it = std::find_if(fields_.begin(), fields_.end(),
                           [&](const auto& f) { return f.name == field; });
    if (it == fields_.end()) it = fields_.insert(fields_.end(), Field{field, {}, 0});
    if (std::find(it->values.begin(), it->values.end(), value) != it->values.end()) return;
    if (it->values.size() < kMostManifestValues) {
      it->values.push_back(value);
    } else {
      ++it->more;
    }
  }
  // A number that may differ from cell to cell: only its range is printed.
  void add_number(const std::string& field, double value) {
    const auto it = numbers_.try_emplace(field, value, value).first;
    it->second = {std::min(it->second.first, value), std::max(it->second.second, value)};
  }
  void write(std::string& out) const {
    for (const Field& f : fields_) {
      put(out, "<tr><th scope=\"row\">{}</th><td>", escape_html(f.name));
      for (size_t i = 0; i < f.values.size(); ++i)
        put(out, "{}{}", i ? "<br>" : "", escape_html(f.values[i]));
      if (f.more > 0) put(out, "<br>and other values in {} records", f.more);
      out += "</td></tr>\n";
    }
    for (const auto& [name, range] : numbers_) {
      put(out, "<tr><th scope=\"row\">{}</th><td>{}{}</td></tr>\n", escape_html(name),
          format_number(range.first, 4),
          range.first == range.second ? "" : " to " + format_number(range.second, 4));
    }
  }

 private:
  struct Field {
    std::string name;
    std::vector<std::string> values;
    size_t more;
  };
  std::vector<Field> fields_;
  std::map<std::string, std::pair<double, double>> numbers_;
};

void add_record(Manifest& manifest, const Record& r) {
  manifest.add("study", r.study_id);
  manifest.add("program", r.version.empty() ? r.commit : r.version + ", commit " + r.commit);
  manifest.add("compiler", r.compiler);
  manifest.add("machine", r.machine);
  manifest.add("processor", r.cpu);
  manifest.add("threads", fmt::format("{}", r.threads));
  manifest.add("instruction set", r.isa);
  std::string kernels;
  for (const auto& kernel : r.kernels) kernels += (kernels.empty() ? "" : ", ") + kernel;
  manifest.add("kernels", kernels.empty() ? "" : r.cell.variant + ": " + kernels);
  manifest.add("model", r.model_path);
  manifest.add("model hash", r.model_hash);
  manifest.add("text", r.text_path);
  manifest.add("text hash", r.text_hash);
  manifest.add("prompt tokens", fmt::format("{}", r.prompt_tokens));
  manifest.add("new tokens", fmt::format("{}", r.new_tokens));
  manifest.add("seed", fmt::format("{}", r.seed));
  manifest.add("energy", r.energy_source);
  if (!r.extra.is_object()) return;
  for (const auto& [key, value] : r.extra.items()) {
    if (value.is_number()) {
      manifest.add_number(key, value.get<double>());
      continue;
    }
    manifest.add(key,
                 clip_text(value.is_string() ? value.get<std::string>() : dump_json(value), 400));
  }
}

}  // namespace

void put_manifest(std::string& out, const ReportInput& input) {
  if (input.records.empty()) return;
  out +=
      "<section id=\"manifest\"><h2>Manifest</h2><p class=\"sub\">What it takes to audit and "
      "repeat these "
      "numbers.</p><div class=\"scroll\"><table class=\"mani\"><tbody>\n";
  Manifest manifest;
  manifest.add("command", input.command);
  std::string first = input.records.front().started_at, last = first;
  double least = input.records.front().load_average, most = least;
  for (const Record& r : input.records) {
    add_record(manifest, r);
    first = std::min(first, r.started_at);
    last = std::max(last, r.started_at);
    least = std::min(least, r.load_average);
    most = std::max(most, r.load_average);
  }
  manifest.add("cells started", first == last ? first : first + " to " + last);
  manifest.add("load average", fmt::format("{} to {} when cells started", format_number(least),
                                           format_number(most)));
  manifest.write(out);
  out += "</tbody></table></div></section>\n";
}

namespace {

constexpr const char* kMethod =
    "<section id=\"method\" class=\"method\"><h2>How it was measured</h2>"
    "<p><b>Prefill</b> reads all prompt tokens at once; its throughput is prompt tokens over that "
    "time, for the "
    "whole batch. <b>Decode</b> then makes one token a sequence and step; its throughput counts "
    "the tokens of all "
    "sequences. <b>Time to first token</b> runs from handing in the requests until the last "
    "sequence of the batch "
    "has its first token. Each cell runs in a process of its own, and cells run in random order, "
    "so that a warm "
    "machine or a busy neighbour does not favour one variant; a cell whose spread is over 10 % is "
    "run again and, "
    "if it stays so, marked.</p>"
    "<p><b>Perplexity</b> is the exponential of the mean negative log-likelihood of a fixed text, "
    "cut in windows "
    "of which the second half is scored; its standard error is over tokens. <b>KL divergence</b> "
    "is the mean, over "
    "positions of that text, of KL(bf16 || variant) in nats; <b>agreement</b> is the share of "
    "positions where both "
    "name the same most likely token. Perplexities compare only between models with one vocabulary "
    "and one text.</p>"
    "<p><b>Memory</b>: weights, KV cache and workspace are the program's own allocations; the peak "
    "is the highest "
    "resident set of the process as the system reports it. MB are 10\u2076 bytes. <b>Energy</b> "
    "comes from a meter or "
    "not at all; nothing here is estimated from a data sheet.</p></section>\n";

}  // namespace

void put_method(std::string& out) { out += kMethod; }

}  // namespace tandem
