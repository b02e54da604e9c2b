// What the figures of a report have in common: their keys, bars made from records, shared axes.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "study/report_figures.h"
#include "study/study_grid.h"
#include "study/svg_plot.h"

namespace tandem {

inline constexpr const char* kReferenceName = "bf16";
extern const char* const kSolidAndHatched;  // the key of bars: KV types, HTML
extern const char* const kFilledAndOpen;    // the key of points

double megabytes(uint64_t bytes);
Interval range_of(const Samples& samples);
std::string count_note(const StudyGrid& grid, const Samples Record::*samples);
std::string batch_title(int64_t batch);
// For a title: the KV type stands only where there are several.
std::string named(const StudyGrid& grid, const CellKey& cell);

using MakeBar = std::function<Bar(const Record&)>;

// One group a variant, one bar a KV type.
std::vector<BarGroup> by_variant(const StudyGrid& grid, int64_t batch, const MakeBar& make);
// One group a variant, one bar a batch.
std::vector<BarGroup> by_batch(const StudyGrid& grid, const std::string& kv, const MakeBar& make);

Bar not_measured(std::string why = "not measured");
Bar sample_bar(const Record& record, const Samples& samples, double scale, const std::string& more);
Bar value_bar(std::optional<double> value, std::optional<double> error, int digits,
              const char* unit);

// Gives all panels one axis, from zero unless they are dots; drops panels without a measured bar.
void share_axis(std::vector<BarPanel>& panels);
void add_panels(Figure& figure, const std::vector<BarPanel>& panels);

// The figures, in the files of their subject.
Figure decode_figure(const StudyGrid& grid);
Figure prefill_figure(const StudyGrid& grid);
Figure memory_figure(const StudyGrid& grid);
Figure quality_figure(const StudyGrid& grid);
Figure trade_figure(const StudyGrid& grid, const std::optional<CellKey>& recommended, bool memory);
Figure energy_figure(const StudyGrid& grid);
std::optional<Figure> limit_figure(const StudyGrid& grid);  // nothing without a measured limit

}  // namespace tandem
