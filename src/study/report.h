// Records -> report.html: one self-contained page without scripts that answers "which configuration
// should I use?" first, then shows the measurements, the sample answers, every record and the
// manifest.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "study/record.h"

namespace tandem {

struct ReportInput {
  std::string title = "Which precision should this model run in?";
  std::string profile;                 // of the study: "smoke", "quick", "full"
  std::string command;                 // what measures all this again, as typed
  std::vector<std::string> questions;  // which the sample answers answer, in their order
  std::vector<Record> records;         // in any order; of two with one cell the later is drawn
  std::optional<CellKey> recommended;  // the cell whose numbers stand beside the advice
  std::string recommendation;          // plain text, may have several lines
  std::vector<std::string> recommendation_points;
};

// The page as UTF-8; the same input gives the same bytes.
std::string render_report(const ReportInput& input);

// Writes the page atomically. Throws system if it cannot be written.
void write_report(const std::filesystem::path& html, const ReportInput& input);

// One to_json(Record) a line; blank lines are skipped. Throws bad_file naming the line.
std::vector<Record> read_records_jsonl(const std::filesystem::path& path);

}  // namespace tandem
