#include "text/detokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "text/utf8_replace.h"

namespace tandem {
namespace {

constexpr size_t kMaxStops = 4;

std::vector<size_t> fallback_lengths(std::string_view text) {
  std::vector<size_t> fallback(text.size(), 0);
  for (size_t i = 1, length = 0; i < text.size(); ++i) {
    while (length > 0 && text[i] != text[length]) length = fallback[length - 1];
    if (text[i] == text[length]) ++length;
    fallback[i] = length;
  }
  return fallback;
}

}  // namespace

Detokenizer::Detokenizer(const Tokenizer& tokenizer, std::vector<std::string> stops,
                         bool continues_text)
    : tokenizer_(tokenizer), at_start_(!continues_text && tokenizer.adds_leading_space()) {
  if (stops.size() > kMaxStops) {
    fail(ErrorKind::usage, "stop strings: found {}, expected at most {}", stops.size(), kMaxStops);
  }
  for (std::string& text : stops) {
    if (text.empty()) fail(ErrorKind::usage, "stop strings: one is empty");
    if (!utf8_valid(text)) {
      fail(ErrorKind::usage, "stop strings: {} is not UTF-8", quote(text));
    }
    std::vector<size_t> fallback = fallback_lengths(text);
    stops_.push_back({std::move(text), std::move(fallback)});
  }
}

size_t Detokenizer::advance(char byte) {
  size_t complete = 0;
  for (Stop& stop : stops_) {
    while (stop.matched > 0 && stop.text[stop.matched] != byte) {
      stop.matched = stop.fallback[stop.matched - 1];
    }
    if (stop.text[stop.matched] == byte) ++stop.matched;
    if (stop.matched == stop.text.size()) complete = std::max(complete, stop.matched);
  }
  return complete;
}

std::string Detokenizer::take(bool final) {
  const size_t scanned = pending_.size();
  bytes_.erase(0, append_replacing(bytes_, final, pending_));
  for (size_t i = scanned; i < pending_.size(); ++i) {
    const size_t complete = advance(pending_[i]);
    if (complete == 0) continue;
    stopped_ = true;
    bytes_.clear();
    std::string before = pending_.substr(0, i + 1 - complete);
    pending_.clear();
    return before;
  }
  size_t held = 0;
  for (const Stop& stop : stops_) held = final ? 0 : std::max(held, stop.matched);
  std::string certain = pending_.substr(0, pending_.size() - held);
  pending_.erase(0, certain.size());
  return certain;
}

std::string Detokenizer::push(int32_t token) {
  if (stopped_) return {};
  std::string_view added = tokenizer_.token_bytes(token);
  if (at_start_ && !added.empty()) {
    if (added[0] == ' ') added.remove_prefix(1);
    at_start_ = false;
  }
  bytes_ += added;
  return take(false);
}

std::string Detokenizer::finish() {
  if (stopped_) return {};
  return take(true);
}

}  // namespace tandem
