#include "study/report_figures.h"

#include "study/figure_parts.h"

namespace tandem {

std::vector<Figure> make_figures(const StudyGrid& grid, const std::optional<CellKey>& recommended) {
  if (grid.batches.empty()) return {};
  std::vector<Figure> figures;
  figures.push_back(decode_figure(grid));
  figures.push_back(prefill_figure(grid));
  figures.push_back(memory_figure(grid));
  figures.push_back(quality_figure(grid));
  figures.push_back(trade_figure(grid, recommended, false));
  figures.push_back(trade_figure(grid, recommended, true));
  figures.push_back(energy_figure(grid));
  if (auto limit = limit_figure(grid)) figures.push_back(std::move(*limit));
  return figures;
}

}  // namespace tandem
