#include "formats/piece_scores.h"

#include <string_view>
#include <unordered_map>

#include "base/error.h"
#include "base/utf8.h"
#include "formats/sentencepiece_model.h"

namespace tandem {
namespace {

// Bounds the time to look at the splits of all pieces: the sum of their squared lengths in bytes.
constexpr uint64_t kMaxSplitBytes = uint64_t{1} << 32;

using Ids = std::unordered_map<std::string_view, size_t>;

// Of the tokens that merge.
Ids normal_ids(const TokenizerSpec& spec) {
  Ids ids;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (spec.types[id] == TokenType::normal) ids.emplace(spec.tokens[id], id);
  }
  return ids;
}

// The normal piece that a merge of two normal pieces makes.
std::optional<size_t> made_by(const std::pair<std::string, std::string>& merge, const Ids& ids) {
  if (!ids.contains(merge.first) || !ids.contains(merge.second)) return std::nullopt;
  const auto found = ids.find(merge.first + merge.second);
  return found == ids.end() ? std::nullopt : std::optional(found->second);
}

[[noreturn]] void refuse(const std::filesystem::path& source, const std::string& what) {
  fail(ErrorKind::usage, "{}: llama.cpp cannot merge as this tokenizer.json does: {}",
       source.string(), what);
}

// The ways to make a piece of two others.
size_t num_splits(std::string_view piece, const Ids& ids) {
  size_t count = 0;
  for (size_t at = utf8_valid_length(piece); at > 0 && at < piece.size();) {
    const std::string_view right = piece.substr(at);
    count += ids.contains(piece.substr(0, at)) && ids.contains(right) ? 1 : 0;
    const size_t bytes = utf8_valid_length(right);
    at = bytes == 0 ? 0 : at + bytes;
  }
  return count;
}

void check_complete(const TokenizerSpec& spec, const Ids& ids, const std::vector<size_t>& merges_of,
                    const std::filesystem::path& source) {
  uint64_t split_bytes = 0;
  for (const auto& [piece, id] : ids) split_bytes += uint64_t{piece.size()} * piece.size();
  if (split_bytes > kMaxSplitBytes) {
    refuse(source, fmt::format("the squared lengths of its pieces add up to {} bytes, expected at "
                               "most {}",
                               split_bytes, kMaxSplitBytes));
  }
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (spec.types[id] != TokenType::normal) continue;
    const size_t splits = num_splits(spec.tokens[id], ids);
    if (splits != merges_of[id]) {
      refuse(source, fmt::format("{} of the {} ways to make {} of two pieces are merges",
                                 merges_of[id], splits, quote(spec.tokens[id])));
    }
  }
}

}  // namespace

std::optional<TokenizerSpec> read_model_beside(const TokenizerSpec& spec,
                                               const std::filesystem::path& source) {
  std::error_code ignored;
  if (spec.rules || !std::filesystem::is_directory(source, ignored) ||
      !std::filesystem::exists(source / "tokenizer.model", ignored)) {
    return std::nullopt;
  }
  return read_sentencepiece_model(source / "tokenizer.model");
}

std::vector<float> scores_of_model(const TokenizerSpec& spec, const TokenizerSpec& model,
                                   const std::filesystem::path& source) {
  const std::string where = (source / "tokenizer.model").string();
  const bool unigram = spec.kind == TokenizerKind::unigram;
  if (unigram != (model.kind == TokenizerKind::unigram) ||
      model.tokens.size() > spec.tokens.size()) {
    fail(ErrorKind::bad_file, "{}: {} of {} pieces, but tokenizer.json is {} of {}", where,
         unigram ? "BPE" : "Unigram", model.tokens.size(), unigram ? "Unigram" : "BPE",
         spec.tokens.size());
  }
  for (size_t id = 0; id < model.tokens.size(); ++id) {
    const TokenType type = spec.types[id];
    const bool added = type == TokenType::control || type == TokenType::user_defined;
    if (added || model.tokens[id] == spec.tokens[id]) continue;
    fail(ErrorKind::bad_file, "{}: piece {} is {}, but tokenizer.json has {}", where, id,
         quote(model.tokens[id]), quote(spec.tokens[id]));
  }
  std::vector<float> scores = model.scores;
  if (unigram) scores.assign(model.unigram_scores.begin(), model.unigram_scores.end());
  scores.resize(spec.tokens.size());
  const Ids ids = normal_ids(spec);
  std::optional<size_t> last;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const std::optional<size_t> made = made_by(spec.merges[rank], ids);
    if (made && last && scores[*made] > scores[*last]) {
      fail(ErrorKind::bad_file, "{}: {} scores {}, {} {}, but tokenizer.json merges to {} first",
           where, quote(spec.tokens[*last]), scores[*last], quote(spec.tokens[*made]),
           scores[*made], quote(spec.tokens[*last]));
    }
    if (made) last = made;
  }
  return scores;
}

std::vector<float> scores_of_merges(const TokenizerSpec& spec,
                                    const std::filesystem::path& source) {
  const Ids ids = normal_ids(spec);
  std::vector<float> scores(spec.tokens.size());
  std::vector<size_t> merges_of(spec.tokens.size());
  size_t num_made = 0;
  std::optional<size_t> last;
  for (const auto& merge : spec.merges) {
    const std::optional<size_t> made = made_by(merge, ids);
    if (!made) continue;
    if (made != last && merges_of[*made] > 0) {
      refuse(source, fmt::format("other merges stand between those that make {}",
                                 quote(spec.tokens[*made])));
    }
    if (made != last) scores[*made] = -static_cast<float>(num_made++);
    ++merges_of[*made];
    last = made;
  }
  check_complete(spec, ids, merges_of, source);
  return scores;
}

}  // namespace tandem
