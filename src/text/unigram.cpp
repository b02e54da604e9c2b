#include "text/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"

namespace tandem {
namespace {

constexpr double kUnknownPenalty = 10;
constexpr size_t kMaxPieceBytes = 8000;  // bounds the search at a place; the library's own limit

}  // namespace

struct Unigram::Step {
  double score = 0;
  uint32_t bytes = 0;  // of the piece that ends here; 0: not reached
  int32_t id = -1;     // -1: unknown
};

Unigram::Unigram(const TokenizerSpec& spec, const Vocabulary& vocabulary)
    : vocabulary_(vocabulary),
      scores_(spec.unigram_scores),
      unk_id_(spec.unk_id),
      single_precision_(spec.rules.has_value()),
      falls_back_to_bytes_(spec.rules ? spec.rules->falls_back_to_bytes
                                      : spec.falls_back_to_bytes) {
  if (scores_.size() != spec.tokens.size()) {
    fail(ErrorKind::bad_file, "tokenizer: found {} scores for {} tokens", scores_.size(),
         spec.tokens.size());
  }
  if (unk_id_ < 0) {
    for (int byte = 0; byte < 256; ++byte) {
      if (falls_back_to_bytes_ && vocabulary.byte_id(static_cast<uint8_t>(byte)) >= 0) continue;
      fail(ErrorKind::bad_file,
           "tokenizer: byte 0x{:02X} has no token, and there is no unknown token", byte);
    }
  }
  // The library knows pieces by their type; to `tokenizers` every token is one, but control tokens
  // are only ever cut out of markup.
  const bool by_type = spec.rules.has_value();
  std::vector<std::pair<std::string_view, int32_t>> pieces;
  double worst = std::numeric_limits<float>::max();
  best_score_ = std::numeric_limits<float>::min();
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const double score = scores_[static_cast<size_t>(id)];
    if (!std::isfinite(score)) {
      fail(ErrorKind::bad_file, "tokenizer: the score of token {} is not a number", id);
    }
    const TokenType type = vocabulary.type(id);
    if (vocabulary.spelling(id).size() > kMaxPieceBytes) {
      fail(ErrorKind::bad_file, "tokenizer: piece {} has {} bytes, expected at most {}", id,
           vocabulary.spelling(id).size(), kMaxPieceBytes);
    }
    if (type == TokenType::normal || (!by_type && type != TokenType::unused)) {
      worst = std::min(worst, score);
      best_score_ = std::max(best_score_, static_cast<float>(score));
    }
    if (type == TokenType::normal || (!by_type && type == TokenType::byte)) {
      pieces.emplace_back(vocabulary.spelling(id), id);
    }
  }
  if (by_type && !spec.rules->symbols.empty()) {
    is_symbol_.resize(scores_.size());
    for (const int32_t id : spec.rules->symbols) {
      is_symbol_[static_cast<size_t>(id)] = true;
      pieces.emplace_back(vocabulary.spelling(id), id);
    }
  }
  unknown_score_ = by_type ? static_cast<float>(worst) - static_cast<float>(kUnknownPenalty)
                           : worst - kUnknownPenalty;
  pieces_ = ByteTrie(std::move(pieces));
}

void Unigram::append_unknown(std::string_view run, std::vector<int32_t>& ids) const {
  const auto byte_id = [&](char c) { return vocabulary_.byte_id(static_cast<uint8_t>(c)); };
  if (falls_back_to_bytes_ && std::ranges::all_of(run, [&](char c) { return byte_id(c) >= 0; })) {
    for (const char c : run) ids.push_back(byte_id(c));
  } else {
    ids.push_back(unk_id_);
  }
}

void Unigram::encode(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<Step> steps(text.size() + 1);
  const auto propose = [&](size_t begin, size_t bytes, double score, int32_t id) {
    Step& step = steps[begin + bytes];
    if (single_precision_) score = static_cast<float>(score);
    if (step.bytes > 0 && score <= step.score) return;
    step = {score, static_cast<uint32_t>(bytes), id};
  };
  for (size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at);
    const size_t char_bytes = std::max<size_t>(utf8_valid_length(rest), 1);
    const double before = steps[at].score;
    bool is_piece = false;
    pieces_.each_prefix(rest, [&](size_t bytes, int32_t id) {
      const auto i = static_cast<size_t>(id);
      const bool symbol = !is_symbol_.empty() && is_symbol_[i];
      // The bonus of user-defined pieces, in the library's own precision.
      const double score =
          symbol ? static_cast<float>(static_cast<float>(bytes) * best_score_ - 0.1) : scores_[i];
      propose(at, bytes, score + before, id);
      is_piece = is_piece || bytes == char_bytes;
    });
    if (!is_piece) propose(at, char_bytes, unknown_score_ + before, -1);
    at += char_bytes;
  }

  std::vector<size_t> ends;
  for (size_t end = text.size(); end > 0; end -= steps[end].bytes) ends.push_back(end);
  for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
    const Step& step = steps[*end];
    if (step.id >= 0) {
      ids.push_back(step.id);
      continue;
    }
    const size_t begin = *end - step.bytes;
    while (end + 1 != ends.rend() && steps[end[1]].id < 0) ++end;
    append_unknown(text.substr(begin, *end - begin), ids);
  }
}

}  // namespace tandem
