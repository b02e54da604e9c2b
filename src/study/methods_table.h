// Records of one model in many methods of compression -> the table that compares them, as markdown
// and as a page with a picture.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "study/evals/perplexity.h"
#include "study/record.h"

namespace tandem {

struct MethodRow {
  std::string method;     // the variant's name
  double layer_bits = 0;  // a weight of the layers' matrices, with its share of scales
  Record record;
  std::optional<MeanError> hellaswag;             // acc_norm
  std::map<std::string, double> decode_elsewhere;  // processor -> tokens/s of the same method
};

// One model or its twin, the baseline first.
struct MethodSheet {
  std::string title;
  std::vector<MethodRow> rows;
};

// Fills decode_elsewhere from records of other processors: the same variant of the same model, KV
// bf16, batch 1; of two the later.
void add_speeds_elsewhere(const std::vector<Record>& records, std::vector<MethodRow>* rows);

// A section and a table a sheet, and what the columns mean.
std::string methods_markdown(const std::vector<MethodSheet>& sheets);
// A self-contained page: size against KL divergence, a panel a sheet, then the tables.
std::string methods_page(const std::vector<MethodSheet>& sheets);

}  // namespace tandem
