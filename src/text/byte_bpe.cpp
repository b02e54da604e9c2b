#include "text/byte_bpe.h"

#include <bit>
#include <functional>
#include <string>

#include "base/error.h"

namespace tandem {
namespace {

constexpr size_t kMaxMerges = size_t{4} << 20;

}  // namespace

MergeTable read_merge_table(const TokenizerSpec& spec, const Vocabulary& vocabulary) {
  if (spec.merges.empty() || spec.merges.size() > kMaxMerges) {
    fail(ErrorKind::bad_file, "tokenizer: found {} merges, expected 1 to {}", spec.merges.size(),
         kMaxMerges);
  }
  MergeTable table;
  std::string spelling;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    spelling.assign(left).append(right);
    const int32_t left_id = vocabulary.find(left), right_id = vocabulary.find(right);
    const int32_t merged = vocabulary.find(spelling);
    if (left_id < 0 || right_id < 0 || merged < 0) {
      fail(ErrorKind::bad_file, "tokenizer: merge {} is {} + {}: {} is not a token", rank,
           quote(left), quote(right),
           quote(left_id < 0    ? left
                 : right_id < 0 ? right
                                : spelling));
    }
    if (!table.add(left_id, right_id, static_cast<uint32_t>(rank), merged)) {
      fail(ErrorKind::bad_file, "tokenizer: merges {} and {} are both {} + {}",
           table.find(left_id, right_id).rank, rank, quote(left), quote(right));
    }
  }
  return table;
}

ByteBpe::ByteBpe(const TokenizerSpec& spec, const Vocabulary& vocabulary)
    : vocabulary_(vocabulary), merges_(read_merge_table(spec, vocabulary)) {
  if (spec.ignores_merges) index_words();
}

void ByteBpe::index_words() {
  words_.assign(std::bit_ceil(static_cast<size_t>(vocabulary_.size()) * 2), -1);
  const size_t mask = words_.size() - 1;
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    if (vocabulary_.type(id) != TokenType::normal) continue;
    size_t slot = std::hash<std::string_view>{}(vocabulary_.bytes(id)) & mask;
    while (words_[slot] >= 0) slot = (slot + 1) & mask;
    words_[slot] = id;
  }
}

int32_t ByteBpe::find_word(std::string_view word) const {
  const size_t mask = words_.size() - 1;
  size_t slot = std::hash<std::string_view>{}(word)&mask;
  while (words_[slot] >= 0 && vocabulary_.bytes(words_[slot]) != word) slot = (slot + 1) & mask;
  return words_[slot];
}

void ByteBpe::encode_word(std::string_view word, std::vector<int32_t>& ids) const {
  if (!words_.empty()) {
    if (const int32_t id = find_word(word); id >= 0) return ids.push_back(id);
  }
  const size_t begin = ids.size();
  for (const char c : word) {
    const int32_t id = vocabulary_.byte_id(static_cast<uint8_t>(c));
    if (id >= 0) ids.push_back(id);
  }
  ids.resize(begin + merges_.merge(std::span(ids).subspan(begin)));
}

}  // namespace tandem
