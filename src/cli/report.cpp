#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "cli/report_input.h"
#include "cli/verbs.h"
#include "study/workload.h"

namespace tandem {
namespace {

struct ReportOptions {
  std::string study;
  std::string out = "report.html";
  QualityFloor floor;
};

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

int run_report(const ReportOptions& options) {
  std::filesystem::path records = options.study;
  if (std::filesystem::is_directory(records)) records /= "records.jsonl";
  const ReportInput input = make_report_input(read_records_jsonl(records), options.floor);
  write_report(options.out, input);
  fmt::print("{}\n", std::filesystem::absolute(options.out).lexically_normal().string());
  return 0;
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

void add_report(CLI::App& app, Action& action) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* verb = app.add_subcommand("report", "Write report.html from the records of a study");
  verb->add_option("STUDY", options->study, "A study's folder, or its records.jsonl")->required();
  verb->add_option("-o,--output", options->out, "The page to write")->capture_default_str();
  verb->add_option("--min-agreement", options->floor.min_top1_agreement,
                   "Quality floor: share of positions with bf16's most likely token")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb->add_option("--max-perplexity-rise", options->floor.max_perplexity_rise,
                   "Quality floor: rise of perplexity over bf16, as a share")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  verb->callback([options, &action] { action = [options] { return run_report(*options); }; });
}

}  // namespace tandem
