#include "text/piece_bpe.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "base/utf8.h"
#include "text/byte_bpe.h"

namespace tandem {
namespace {

// Bounds the time to list the splits of all pieces: the sum of their squared lengths in bytes.
constexpr uint64_t kMaxSplitBytes = uint64_t{1} << 32;
constexpr size_t kMaxWords = 1 << 13;
constexpr size_t kMaxWordBytes = 64;  // longer ones seldom come twice

std::string_view first_char(std::string_view text) {
  return text.substr(0, std::max<size_t>(utf8_valid_length(text), 1));
}

std::string_view last_char(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return text.substr(begin);
}

}  // namespace

PieceBpe::PieceBpe(const TokenizerSpec& spec, const Vocabulary& vocabulary)
    : vocabulary_(vocabulary), unk_id_(spec.unk_id), ignores_merges_(spec.ignores_merges) {
  if (spec.kind == TokenizerKind::piece_bpe) {
    falls_back_to_bytes_ = spec.falls_back_to_bytes;
    fuses_unknown_ = spec.fuses_unknown;
    read_merges(spec);
  } else {
    falls_back_to_bytes_ = !spec.rules || spec.rules->falls_back_to_bytes;
    bytes_one_by_one_ = !spec.rules;
    fuses_unknown_ = spec.rules.has_value();
    read_scores(spec);
  }
  for (size_t c = 0; c < ascii_.size(); ++c) {
    const char spelling = static_cast<char>(c);
    ascii_[c] = character({&spelling, 1});
  }
  if (!spec.rules) return;
  std::vector<std::pair<std::string_view, int32_t>> symbols;
  for (const int32_t id : spec.rules->symbols) symbols.emplace_back(vocabulary.spelling(id), id);
  symbols_ = ByteTrie(std::move(symbols));
}

int32_t PieceBpe::character(std::string_view spelling) const {
  const int32_t id = vocabulary_.find(spelling);
  if (id >= 0 && vocabulary_.type(id) == TokenType::normal) return id;
  const auto numbered = characters_.find(spelling);
  return numbered == characters_.end() ? -1 : numbered->second;
}

int32_t PieceBpe::number_character(std::string_view spelling) {
  if (const int32_t symbol = character(spelling); symbol >= 0) return symbol;
  const int32_t symbol = vocabulary_.size() + static_cast<int32_t>(numbered_.size());
  characters_.emplace(spelling, symbol);
  numbered_.push_back(spelling);
  return symbol;
}

void PieceBpe::add_joint(std::string_view left, std::string_view right) {
  const int32_t before = character(last_char(left)), behind = character(first_char(right));
  if (before >= 0 && behind >= 0) joints_.add(before, behind, 0, 0);
}

void PieceBpe::read_merges(const TokenizerSpec& spec) {
  merges_ = read_merge_table(spec, vocabulary_);
  for (const auto& [left, right] : spec.merges) add_joint(left, right);
}

void PieceBpe::read_scores(const TokenizerSpec& spec) {
  if (spec.scores.size() != spec.tokens.size()) {
    fail(ErrorKind::bad_file, "tokenizer: found {} scores for {} tokens", spec.scores.size(),
         spec.tokens.size());
  }
  for (size_t id = 0; id < spec.scores.size(); ++id) {
    if (std::isnan(spec.scores[id])) {
      fail(ErrorKind::bad_file, "tokenizer: the score of token {} is not a number", id);
    }
  }
  for (int byte = 0; byte < 256 && unk_id_ < 0; ++byte) {
    if (falls_back_to_bytes_ && vocabulary_.byte_id(static_cast<uint8_t>(byte)) >= 0) continue;
    fail(ErrorKind::bad_file,
         "tokenizer: byte 0x{:02X} has no token, and there is no unknown token", byte);
  }
  std::vector<int32_t> pieces;
  uint64_t split_bytes = 0;
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    if (vocabulary_.type(id) != TokenType::normal) continue;
    const uint64_t bytes = vocabulary_.spelling(id).size();
    split_bytes += bytes * bytes;  // at most 4 Mi tokens of a file's size: cannot overflow
    pieces.push_back(id);
  }
  if (split_bytes > kMaxSplitBytes) {
    fail(ErrorKind::bad_file,
         "tokenizer: the pieces are too long: their squared lengths add up to "
         "{} bytes, expected at most {}",
         split_bytes, kMaxSplitBytes);
  }
  const auto score = [&](int32_t id) { return spec.scores[static_cast<size_t>(id)]; };
  std::ranges::stable_sort(pieces, std::greater<>(), score);
  uint32_t rank = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (i > 0 && score(pieces[i]) != score(pieces[i - 1])) ++rank;
    add_splits(pieces[i], rank);
  }
}

// A piece can come from every two parts that are pieces or single characters.
void PieceBpe::add_splits(int32_t id, uint32_t rank) {
  const std::string_view piece = vocabulary_.spelling(id);
  const auto symbol_of = [&](std::string_view part) {
    if (first_char(part).size() == part.size()) return number_character(part);
    const int32_t found = vocabulary_.find(part);
    return found >= 0 && vocabulary_.type(found) == TokenType::normal ? found : -1;
  };
  for (size_t at = first_char(piece).size(); at < piece.size();) {
    const std::string_view left = piece.substr(0, at), right = piece.substr(at);
    const int32_t left_symbol = symbol_of(left), right_symbol = symbol_of(right);
    if (left_symbol >= 0 && right_symbol >= 0) {
      merges_.add(left_symbol, right_symbol, rank, id);
      number_character(last_char(left));
      number_character(first_char(right));
      add_joint(left, right);
    }
    at += first_char(right).size();
  }
}

// One call of encode(): walks over the characters and merges a word wherever one ends.
class PieceBpe::Encoder {
 public:
  Encoder(const PieceBpe& bpe, std::string_view text, std::vector<int32_t>& ids)
      : bpe_(bpe), text_(text), ids_(ids) {
    words_.resize(std::bit_ceil(std::min(text.size() / 16 + 1, kMaxWords)));
  }

  void run() {
    for (size_t at = 0; at < text_.size();) {
      if (const size_t bytes = take_user_symbol(at)) {
        at += bytes;
        continue;
      }
      const std::string_view character = first_char(text_.substr(at));
      const auto first = static_cast<uint8_t>(character[0]);
      const int32_t symbol = first < 0x80 ? bpe_.ascii_[first] : bpe_.character(character);
      if (symbol < 0) {
        end_word(at);
        append_unknown(character);
      } else {
        if (!symbols_.empty() && !joins(symbols_.back(), symbol)) end_word(at);
        if (symbols_.empty()) word_begin_ = at;
        symbols_.push_back(symbol);
      }
      at += character.size();
    }
    end_word(text_.size());
  }

 private:
  // An earlier word of this text and its ids, by where they lie; count 0: none.
  struct Word {
    size_t begin = 0, bytes = 0, ids_begin = 0, count = 0;
  };

  bool joins(int32_t left, int32_t right) const {
    return bpe_.joints_.find(left, right).rank != MergeTable::kNoRank;
  }

  // The bytes of a user-defined piece at this place, whose id is appended; 0: none.
  size_t take_user_symbol(size_t at) {
    size_t longest = 0;
    int32_t found = -1;
    bpe_.symbols_.each_prefix(text_.substr(at), [&](size_t bytes, int32_t id) {
      longest = bytes;
      found = id;
    });
    if (longest == 0) return 0;
    end_word(at);
    append(found);
    return longest;
  }

  void append(int32_t id) {
    ids_.push_back(id);
    behind_unknown_ = false;
  }

  void append_unknown(std::string_view character) {
    const auto byte_id = [&](char c) { return bpe_.vocabulary_.byte_id(static_cast<uint8_t>(c)); };
    const bool spelled = std::ranges::all_of(character, [&](char c) { return byte_id(c) >= 0; });
    if (bpe_.falls_back_to_bytes_ && (spelled || bpe_.bytes_one_by_one_)) {
      for (const char c : character) append(byte_id(c) >= 0 ? byte_id(c) : bpe_.unk_id_);
      return;
    }
    if (bpe_.unk_id_ < 0 || (behind_unknown_ && bpe_.fuses_unknown_)) return;
    append(bpe_.unk_id_);
    behind_unknown_ = true;
  }

  // Ends the word under way in front of `end`, if there is one.
  void end_word(size_t end) {
    if (symbols_.empty()) return;
    const std::string_view word = text_.substr(word_begin_, end - word_begin_);
    if (word.size() > kMaxWordBytes) {
      merge();
    } else {
      Word& known = words_[std::hash<std::string_view>{}(word) & (words_.size() - 1)];
      if (known.count > 0 && text_.substr(known.begin, known.bytes) == word) {
        for (size_t i = 0; i < known.count; ++i) append(ids_[known.ids_begin + i]);
      } else {
        const size_t ids_begin = ids_.size();
        // What an unknown character becomes depends on what is in front of it.
        if (merge()) known = {word_begin_, word.size(), ids_begin, ids_.size() - ids_begin};
      }
    }
    symbols_.clear();
  }

  // Appends the ids of the word under way. False when a character of it has no token.
  bool merge() {
    const size_t count = bpe_.merges_.merge(symbols_);
    bool known = true;
    for (size_t i = 0; i < count; ++i) {
      const int32_t symbol = symbols_[i], size = bpe_.vocabulary_.size();
      if (symbol < size) {
        append(symbol);
      } else {
        append_unknown(bpe_.numbered_[static_cast<size_t>(symbol - size)]);
        known = false;
      }
    }
    return known;
  }

  const PieceBpe& bpe_;
  std::string_view text_;
  std::vector<int32_t>& ids_;
  std::vector<int32_t> symbols_;  // of the word under way
  size_t word_begin_ = 0;
  std::vector<Word> words_;  // by hash, the latest one
  bool behind_unknown_ = false;
};

void PieceBpe::encode(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  if (ignores_merges_) {
    const int32_t id = vocabulary_.find(text);
    if (id >= 0 && vocabulary_.type(id) == TokenType::normal) return ids.push_back(id);
  }
  Encoder(*this, text, ids).run();
}

}  // namespace tandem
