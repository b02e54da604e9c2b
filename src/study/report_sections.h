// The parts of the report below its figures, each appended as HTML; a part without content adds
// nothing.
#pragma once

#include <string>

#include "study/report.h"
#include "study/study_grid.h"

namespace tandem {

// Sample answers side by side, equal ones once.
void put_answers(std::string& out, const ReportInput& input, const StudyGrid& grid);
// Every record, one a row.
void put_table(std::string& out, const ReportInput& input, const StudyGrid& grid);
// What the words mean and how the numbers were taken.
void put_method(std::string& out);
// Machine, program, model, text and settings.
void put_manifest(std::string& out, const ReportInput& input);

}  // namespace tandem
