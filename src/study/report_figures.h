// Records -> the figures of the report: drawings, what they show in one sentence, and their
// numbers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "study/study_grid.h"

namespace tandem {

struct Figure {
  std::string title;                 // what it shows, in one sentence
  std::string subtitle;              // what is drawn, plain text
  std::string key;                   // of the marks, HTML
  std::vector<std::string> panels;   // SVG; empty: not drawn, and `subtitle` says why
  std::string note;                  // n, whiskers, axes, plain text
  std::vector<std::string> columns;  // the same numbers as a table
  std::vector<std::vector<std::string>> rows;
};

// In the order of the report. `recommended` is ringed in the trade-off figures.
std::vector<Figure> make_figures(const StudyGrid& grid, const std::optional<CellKey>& recommended);

}  // namespace tandem
