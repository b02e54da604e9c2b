// Records of a study -> what the report says about them, the advice included.
#pragma once

#include <string>
#include <vector>

#include "advisor/rank.h"
#include "study/report.h"

namespace tandem {

// The advice is the balanced one; the other goals and what the floor keeps out follow as points.
// The profile and the command are those that the records name in `extra`, if they do.
ReportInput make_report_input(std::vector<Record> records, const QualityFloor& floor);

// "top1=90,ppl=5", both in percent and either alone; empty: the defaults. Throws usage.
QualityFloor parse_quality_floor(const std::string& text);

}  // namespace tandem
