// Records and advice -> the text that ends a study on the terminal.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "advisor/rank.h"
#include "study/record.h"

namespace tandem {

// One line a record, variants in the order of all_variants, then KV type and batch.
std::string study_table(std::vector<Record> records);

// Goals that get the same advice, joined: ("balanced, least memory", text), in the order of goals.
std::vector<std::pair<std::string, std::string>> grouped_advice(const Ranking& ranking);

// The advice for each goal and what the quality floor kept out.
std::string advice_text(const Ranking& ranking, const QualityFloor& floor);

}  // namespace tandem
