// Records -> files that other programs read.
#pragma once

#include <string>
#include <vector>

#include "study/record.h"

namespace tandem {

// One JSON document a line.
std::string records_jsonl(const std::vector<Record>& records);

// A header and one line a record, flat: medians with spread and count. Quoted as RFC 4180 says,
// lines end in CRLF; a field that was not measured is empty.
std::string records_csv(const std::vector<Record>& records);

}  // namespace tandem
