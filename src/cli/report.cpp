#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "cli/report_input.h"
#include "cli/verbs.h"

namespace tandem {
namespace {

struct ReportOptions {
  std::string study;
  std::string out = "report.html";
  std::string quality_floor;
};

int run_report(const ReportOptions& options) {
  std::filesystem::path records = options.study;
  if (std::filesystem::is_directory(records)) records /= "records.jsonl";
  const ReportInput input = make_report_input(read_records_jsonl(records),
                                              parse_quality_floor(options.quality_floor));
  write_report(options.out, input);
  fmt::print("{}\n", std::filesystem::absolute(options.out).lexically_normal().string());
  return 0;
}

}  // namespace

void add_report(CLI::App& app, Action& action) {
  auto options = std::make_shared<ReportOptions>();
  CLI::App* verb = app.add_subcommand("report", "Write report.html from the records of a study");
  verb->add_option("STUDY", options->study, "A study's folder, or its records.jsonl")
      ->required()
      ->type_name("");
  verb->add_option("-o,--out", options->out, "The page to write")
      ->capture_default_str()
      ->type_name("FILE");
  verb->add_option("--quality-floor", options->quality_floor,
                   "Least quality to recommend, against bf16 (top1=90,ppl=5)")
      ->type_name("PERCENT");
  verb->footer("Example:\n  tandem report studies/quick -o page.html");
  verb->callback([options, &action] { action = [options] { return run_report(*options); }; });
}

}  // namespace tandem
