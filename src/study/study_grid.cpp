#include "study/study_grid.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "study/svg_plot.h"

namespace tandem {
namespace {

constexpr size_t kMostVariants = kNumSeries, kMostKvs = 4, kMostBatches = 6;
constexpr const char* kReferenceName = "bf16";

// The usual names by falling width; others follow in the order of their letters.
int rank_of(const std::string& name) {
  if (name == "as shipped") return 0;
  if (name.starts_with("bf16")) return 1;
  if (name.starts_with("fp8")) return 2;
  if (name.starts_with("int8")) return 3;
  return 4;
}

template <typename T>
std::vector<std::string> in_order(const T& names, size_t most) {
  std::vector<std::string> out(names.begin(), names.end());
  std::stable_sort(out.begin(), out.end(),
                   [](const auto& a, const auto& b) { return rank_of(a) < rank_of(b); });
  if (out.size() > most) out.resize(most);
  return out;
}

}  // namespace

StudyGrid::StudyGrid(const std::vector<Record>& records) {
  std::set<std::string> variant_names, kv_names;
  std::set<int64_t> batch_sizes;
  for (const Record& r : records) {
    if (!cells_.insert_or_assign(r.cell, &r).second) ++repeated;
    variant_names.insert(r.cell.variant);
    kv_names.insert(r.cell.kv);
    batch_sizes.insert(r.cell.batch);
  }
  variants = in_order(variant_names, kMostVariants);
  kvs = in_order(kv_names, kMostKvs);
  batches.assign(batch_sizes.begin(), batch_sizes.end());
  // The largest batch is kept: the figures compare the ends.
  if (batches.size() > kMostBatches)
    batches.erase(batches.begin() + kMostBatches - 1, batches.end() - 1);
  int next = 1;
  for (const auto& name : in_order(variant_names, SIZE_MAX)) {
    series_[name] = name == kReferenceName ? 0 : next;
    if (name != kReferenceName) next = next % (kNumSeries - 1) + 1;
  }
  const auto drawn = [](const auto& list, const auto& item) {
    return std::find(list.begin(), list.end(), item) != list.end();
  };
  for (const auto& [cell, record] : cells_) {
    left_out +=
        !drawn(variants, cell.variant) || !drawn(kvs, cell.kv) || !drawn(batches, cell.batch);
  }
}

const Record* StudyGrid::find(const std::string& variant, const std::string& kv,
                              int64_t batch) const {
  const auto it = cells_.find(CellKey{variant, kv, batch});
  return it == cells_.end() ? nullptr : it->second;
}

const Record* StudyGrid::reference(int64_t batch) const {
  return find(kReferenceName, kReferenceName, batch);
}

const Record* StudyGrid::quality(const std::string& variant, const std::string& kv) const {
  for (auto it = cells_.lower_bound(CellKey{variant, kv, INT64_MIN});
       it != cells_.end() && it->first.variant == variant && it->first.kv == kv; ++it) {
    if (it->second->quality.perplexity > 0) return it->second;
  }
  return nullptr;
}

int StudyGrid::series(const std::string& variant) const {
  const auto it = series_.find(variant);
  return it == series_.end() ? 0 : it->second;
}

std::string cell_name(const CellKey& cell) { return cell.variant + ", KV " + cell.kv; }

std::string format_ratio(double ratio) {
  if (!std::isfinite(ratio) || ratio <= 0) return "n/a";
  return format_number(ratio, ratio < 0.095 ? 1
                              : ratio >= 10 ? 3
                                            : 2 + (ratio < 1 ? 0 : 1)) +
         "\u00d7";
}

bool is_measured(const Samples& samples) {
  return !samples.values.empty() &&
         std::all_of(samples.values.begin(), samples.values.end(),
                     [](double v) { return std::isfinite(v) && v >= 0; });
}

}  // namespace tandem
