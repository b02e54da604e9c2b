// Records by cell, in the order and the colours that tables and figures share, so that a variant
// has the same hue everywhere.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "study/record.h"

namespace tandem {

// It points into `records`, which must outlive it.
class StudyGrid {
 public:
  explicit StudyGrid(const std::vector<Record>& records);

  // What the figures draw: at most 8 variants, 4 KV types and 6 batches of those that there are.
  std::vector<std::string> variants, kvs;
  std::vector<int64_t> batches;
  size_t left_out = 0;  // cells that are not drawn
  size_t repeated = 0;  // records whose cell a later record has again

  const Record* find(const std::string& variant, const std::string& kv, int64_t batch) const;
  // The bf16 weights with bf16 KV: what the others are compared with. Null when not measured.
  const Record* reference(int64_t batch) const;
  // Quality does not depend on the batch: the first batch at which it was measured, or null.
  const Record* quality(const std::string& variant, const std::string& kv) const;
  int series(const std::string& variant) const;  // colour, in [0, kNumSeries)

 private:
  std::map<CellKey, const Record*> cells_;
  std::map<std::string, int> series_;
};

std::string cell_name(const CellKey& cell);  // "int8, KV bf16"
// "2.1" and a multiplication sign; "n/a" when it cannot be formed
std::string format_ratio(double ratio);
bool is_measured(const Samples& samples);

}  // namespace tandem
