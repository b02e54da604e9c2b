// Records of one model in many methods of compression -> the table that compares them, as text, as
// markdown and as a page with a picture.
#pragma once

#include <string>
#include <vector>

#include "study/evals/perplexity.h"
#include "study/record.h"

namespace tandem {

// Keys of a Record's `extra` in a table of methods.
inline constexpr const char* kSheetKey = "sheet";  // the title of the row's table
inline constexpr const char* kLayerBitsKey =
    "layer_bits";  // a weight of the layers' matrices, with its scales
inline constexpr const char* kNotRunKey = "not_run";  // why nothing could be measured

struct MethodRow {
  Record record;
  std::vector<Record> elsewhere;  // the same method on other processors, one each
};

// One model or its twin, the baseline first.
struct MethodSheet {
  std::string title;
  std::vector<MethodRow> rows;
};

// The rows of each title, in their order.
std::vector<MethodSheet> method_sheets(const std::vector<Record>& records);

// Fills `elsewhere` from records of other processors: the same variant of the same model, KV bf16,
// batch 1; of two of one processor the later.
void add_speeds_elsewhere(const std::vector<Record>& records, std::vector<MethodSheet>* sheets);

// Right answers of a variant and of the baseline to the same items: their share, and the mean
// paired difference with its error. CHECKs that there are as many of both.
MeanError hit_rate(const std::string& hits);
MeanError hit_change(const std::string& hits, const std::string& baseline);

// What the columns mean.
extern const char* const kMethodsMeaning;
// The cells of a sheet's table, its head first, and what stands below it, a paragraph each: what
// was measured where, and why something was not.
std::vector<std::vector<std::string>> method_cells(const MethodSheet& sheet);
std::vector<std::string> method_notes(const MethodSheet& sheet);

// A table a sheet and what the columns mean; lines of at most 100 columns with two processors.
std::string methods_text(const std::vector<MethodSheet>& sheets);
std::string methods_markdown(const std::vector<MethodSheet>& sheets);
// A self-contained page: KL divergence against size and against speed, a panel a sheet, the tables.
std::string methods_page(const std::vector<MethodSheet>& sheets);

}  // namespace tandem
