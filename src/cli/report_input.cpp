#include "cli/report_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "cli/study_table.h"
#include "study/workload.h"

namespace tandem {
namespace {

std::string extra_text(const std::vector<Record>& records, const char* key) {
  for (const Record& r : records) {
    if (r.extra.is_object() && r.extra.contains(key) && r.extra[key].is_string()) {
      return r.extra[key].get<std::string>();
    }
  }
  return "";
}

std::string capitalized(std::string text) {
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 32);
  return text;
}

}  // namespace

ReportInput make_report_input(std::vector<Record> records, const QualityFloor& floor) {
  ReportInput input;
  input.questions = sample_questions();
  input.profile = extra_text(records, "profile");
  input.command = extra_text(records, "command");
  if (!records.empty()) {
    const Ranking ranking = rank(records, floor);
    input.recommended = ranking.advice.front().best;
    // The first group holds the balanced choice, which the page recommends.
    for (const auto& [goals, advice] : grouped_advice(ranking)) {
      const std::string line = fmt::format("{}: {}", capitalized(goals), advice);
      if (input.recommendation.empty()) {
        input.recommendation = line;
      } else {
        input.recommendation_points.push_back(line);
      }
    }
    for (const Excluded& excluded : ranking.excluded) {
      input.recommendation_points.push_back(
          fmt::format("Not recommended: {} with {} KV: {}", excluded.cell.variant, excluded.cell.kv,
                      excluded.reason));
    }
  }
  input.records = std::move(records);
  return input;
}

QualityFloor parse_quality_floor(const std::string& text) {
  QualityFloor floor;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = std::string_view(text).substr(begin, end - begin);
    const size_t equals = part.find('=');
    const std::string_view name = part.substr(0, equals);
    double percent = -1;
    if (equals != std::string_view::npos) {
      const char* last = part.data() + part.size();
      const auto [stop, error] = std::from_chars(part.data() + equals + 1, last, percent);
      if (error != std::errc() || stop != last) percent = -1;
    }
    const bool in_range = percent >= 0 && (name != "top1" || percent <= 100);
    if (!in_range || (name != "top1" && name != "ppl")) {
      fail(ErrorKind::usage, "--quality-floor: found {}, expected top1=PERCENT,ppl=PERCENT",
           quote(text));
    }
    (name == "top1" ? floor.min_top1_agreement : floor.max_perplexity_rise) = percent / 100;
    begin = end + 1;
  }
  return floor;
}

}  // namespace tandem
