#include "cli/report_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
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

const char* goal_heading(Goal goal) {
  switch (goal) {
    case Goal::balanced:
      return "Balanced";
    case Goal::fastest_decode:
      return "Fastest for one user";
    case Goal::throughput:
      return "Most tokens from the machine";
    case Goal::least_memory:
      return "Least memory";
  }
  return "";
}

}  // namespace

ReportInput make_report_input(std::vector<Record> records, const QualityFloor& floor) {
  ReportInput input;
  input.questions = sample_questions();
  input.profile = extra_text(records, "profile");
  input.command = extra_text(records, "command");
  if (!records.empty()) {
    const Ranking ranking = rank(records, floor);
    for (const Advice& advice : ranking.advice) {
      if (advice.goal == Goal::balanced) {
        input.recommended = advice.best;
        input.recommendation = advice.text;
      } else {
        input.recommendation_points.push_back(
            fmt::format("{}: {}", goal_heading(advice.goal), advice.text));
      }
    }
    for (const Excluded& excluded : ranking.excluded) {
      input.recommendation_points.push_back(
          fmt::format("Not recommended: {} weights with a {} KV cache, {}", excluded.cell.variant,
                      excluded.cell.kv, excluded.reason));
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
    if (!(percent >= 0) || (name != "top1" && name != "ppl")) {
      fail(ErrorKind::usage, "--quality-floor: found {}, expected top1=PERCENT,ppl=PERCENT",
           quote(text));
    }
    (name == "top1" ? floor.min_top1_agreement : floor.max_perplexity_rise) = percent / 100;
    begin = end + 1;
  }
  return floor;
}

}  // namespace tandem
