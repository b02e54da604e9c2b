#include "text/text_preparation.h"

#include <utf8proc.h>

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "text/normalize.h"
#include "text/utf8_runs.h"
#include "text/white_space.h"

namespace tandem {
namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
// `tokenizers` asks the character map about a whole grapheme only when it is shorter than this.
constexpr size_t kLongGrapheme = 6;
// How many times as long the steps of a file may make a text. NFKC with spaces marked reaches 99.
constexpr size_t kMaxGrowth = 1024;

size_t char_bytes(std::string_view text) { return std::max<size_t>(utf8_valid_length(text), 1); }

// Bytes of the extended grapheme cluster that text begins with.
size_t grapheme_bytes(std::string_view text) {
  size_t at = utf8_valid_length(text);
  if (at == 0) return 1;
  auto last = static_cast<utf8proc_int32_t>(utf8_code_point(text, at));
  utf8proc_int32_t state = 0;
  while (at < text.size()) {
    const std::string_view rest = text.substr(at);
    const size_t bytes = utf8_valid_length(rest);
    if (bytes == 0) break;
    const auto next = static_cast<utf8proc_int32_t>(utf8_code_point(rest, bytes));
    if (utf8proc_grapheme_break_stateful(last, next, &state)) break;
    last = next;
    at += bytes;
  }
  return at;
}

// Bytes that a step can make of one.
size_t growth(const NormalizerStep& step, const Charsmap& charsmap) {
  switch (step.kind) {
    case NormalizerStep::Kind::nfc:
      return 3;
    case NormalizerStep::Kind::prepend:
    case NormalizerStep::Kind::replace_regex:
      return std::max<size_t>(step.to.size(), 1);
    case NormalizerStep::Kind::replace:
      return std::max<size_t>((step.to.size() + step.from.size() - 1) / step.from.size(), 1);
    case NormalizerStep::Kind::strip_left:
    case NormalizerStep::Kind::strip_right:
      return 1;
    case NormalizerStep::Kind::charsmap:
      break;
  }
  return std::max<size_t>(charsmap.longest_replacement(), 1);
}

void check_growth(const TokenizerSpec& spec, const Charsmap& charsmap) {
  size_t product = spec.rules ? std::max<size_t>(charsmap.longest_replacement(), 1) : 1;
  for (const NormalizerStep& step : spec.normalizer) {
    if (product <= kMaxGrowth) product *= growth(step, charsmap);  // of a file's size: no overflow
  }
  if (product > kMaxGrowth) {
    fail(ErrorKind::bad_file,
         "tokenizer: its normalizer can make a text {} times as long, expected at most {}", product,
         kMaxGrowth);
  }
}

struct Texts {
  std::string text, is_markup;
};

void replace_all(const NormalizerStep& step, std::string& text, std::string& is_markup) {
  Texts out;
  size_t at = 0;
  for (size_t found; (found = text.find(step.from, at)) != std::string::npos;) {
    out.text.append(text, at, found - at).append(step.to);
    if (!is_markup.empty()) {
      out.is_markup.append(is_markup, at, found - at);
      out.is_markup.append(step.to.size(), is_markup[found]);
    }
    at = found + step.from.size();
  }
  if (at == 0) return;
  out.text.append(text, at);
  if (!is_markup.empty()) out.is_markup.append(is_markup, at);
  text = std::move(out.text);
  is_markup = std::move(out.is_markup);
}

}  // namespace

TextPreparation::TextPreparation(const TokenizerSpec& spec, const Vocabulary& vocabulary)
    : normalizes_nfc_(spec.normalizes_nfc), metaspace_(spec.metaspace), rules_(spec.rules) {
  for (const NormalizerStep& step : spec.normalizer) {
    std::optional<Regex> pattern;
    if (step.kind == NormalizerStep::Kind::replace_regex) pattern.emplace(step.from);
    CHECK(step.kind != NormalizerStep::Kind::replace || !step.from.empty(), "replaces nothing");
    steps_.push_back({step, std::move(pattern)});
  }
  if (!spec.charsmap.empty()) charsmap_ = Charsmap(spec.charsmap);
  check_growth(spec, charsmap_);
  if (!rules_) return;
  std::vector<std::pair<std::string_view, int32_t>> symbols;
  for (const int32_t id : rules_->symbols) symbols.emplace_back(vocabulary.spelling(id), id);
  symbols_ = ByteTrie(std::move(symbols));
}

bool TextPreparation::normalizes_nothing(std::string_view text) const {
  return steps_.empty() && (!normalizes_nfc_ || is_surely_nfc(text));
}

void TextPreparation::normalize(std::string& text, std::string& is_markup) const {
  if (normalizes_nfc_) apply({{NormalizerStep::Kind::nfc}, std::nullopt}, text, is_markup);
  for (const Step& step : steps_) apply(step, text, is_markup);
}

void TextPreparation::apply(const Step& step, std::string& text, std::string& is_markup) const {
  if (text.empty()) return;
  if (step.spec.kind == NormalizerStep::Kind::prepend) {
    text.insert(0, step.spec.to);
    if (!is_markup.empty()) is_markup.insert(0, step.spec.to.size(), is_markup[0]);
    return;
  }
  if (step.spec.kind == NormalizerStep::Kind::replace) {
    return replace_all(step.spec, text, is_markup);
  }
  if (step.spec.kind == NormalizerStep::Kind::strip_left) {
    const size_t bytes = space_end(text, 0);
    text.erase(0, bytes);
    is_markup.erase(0, std::min(bytes, is_markup.size()));
    return;
  }
  if (step.spec.kind == NormalizerStep::Kind::strip_right) {
    text.resize(space_begin(text, 0, text.size()));
    if (!is_markup.empty()) is_markup.resize(text.size());
    return;
  }
  if (is_markup.empty()) {
    text = changed(step, text);
    return;
  }
  Texts out;
  for (size_t begin = 0; begin < text.size();) {
    const char markup = is_markup[begin];
    const size_t end = std::min(is_markup.find(markup == 0 ? '\1' : '\0', begin), text.size());
    out.text += changed(step, std::string_view(text).substr(begin, end - begin));
    out.is_markup.resize(out.text.size(), markup);
    begin = end;
  }
  text = std::move(out.text);
  is_markup = std::move(out.is_markup);
}

std::string TextPreparation::changed(const Step& step, std::string_view text) const {
  if (step.spec.kind == NormalizerStep::Kind::nfc) {
    return is_surely_nfc(text) ? std::string(text) : to_nfc(text);
  }
  if (step.spec.kind == NormalizerStep::Kind::charsmap) return map_graphemes(text);
  Regex::Scratch scratch;
  std::string out;
  while (!text.empty()) {
    const std::string_view run = text.substr(0, utf8_run(text, true));
    size_t at = 0;
    while (const auto match = step.pattern->find(run, at, scratch)) {
      out.append(run.substr(at, match->begin - at)).append(step.spec.to);
      at = match->end;
    }
    out.append(run.substr(at));
    text.remove_prefix(run.size());
    const size_t invalid = utf8_run(text, false);
    out.append(text.substr(0, invalid));
    text.remove_prefix(invalid);
  }
  return out;
}

// As `tokenizers` does it: the shortest rule that a grapheme begins with replaces the whole of it.
std::string TextPreparation::map_graphemes(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    std::string_view grapheme = text.substr(0, grapheme_bytes(text));
    text.remove_prefix(grapheme.size());
    if (grapheme.size() < kLongGrapheme) {
      if (const auto match = charsmap_.shortest(grapheme); match.bytes > 0) {
        out += match.replacement;
        continue;
      }
    }
    while (!grapheme.empty()) {
      const std::string_view character = grapheme.substr(0, char_bytes(grapheme));
      const auto match = charsmap_.shortest(character);
      out += match.bytes > 0 ? match.replacement : character;
      grapheme.remove_prefix(character.size());
    }
  }
  return out;
}

std::string TextPreparation::prepare(std::string text, bool at_start) const {
  if (rules_) {
    return by_rules(text, rules_->adds_dummy_prefix && (at_start || !rules_->prefix_first_only));
  }
  if (!metaspace_) return text;
  std::string out;
  if (metaspace_->after_whitespace) {
    bool between = true;
    for (std::string_view rest = text; !rest.empty();) {
      const std::string_view character = rest.substr(0, char_bytes(rest));
      rest.remove_prefix(character.size());
      if (begins_with_space(character)) {
        between = true;
        continue;
      }
      if (between && character != kSpaceMark) out += kSpaceMark;
      out += character;
      between = false;
    }
    return out;
  }
  const bool prepends = metaspace_->prepend == Metaspace::Prepend::always ||
                        (metaspace_->prepend == Metaspace::Prepend::first && at_start);
  if (prepends && !text.starts_with(' ') && !text.starts_with(kSpaceMark)) out += kSpaceMark;
  for (const char c : text) c == ' ' ? out.append(kSpaceMark) : out.append(1, c);
  return out;
}

Charsmap::Match TextPreparation::next_by_rules(std::string_view text) const {
  size_t symbol_bytes = 0;
  symbols_.each_prefix(text, [&](size_t bytes, int32_t) { symbol_bytes = bytes; });
  if (symbol_bytes > 0) return {symbol_bytes, text.substr(0, symbol_bytes)};
  if (const auto match = charsmap_.longest(text); match.bytes > 0) return match;
  const size_t bytes = utf8_valid_length(text);
  if (bytes == 0) return {1, kReplacement};
  return {bytes, text.substr(0, bytes)};
}

std::string TextPreparation::by_rules(std::string_view text, bool adds_prefix) const {
  const std::string_view space = rules_->escapes_spaces ? kSpaceMark : " ";
  const bool trims = rules_->removes_extra_spaces;
  while (trims && !text.empty()) {
    const auto next = next_by_rules(text);
    if (next.replacement != " ") break;
    text.remove_prefix(next.bytes);
  }
  std::string out;
  if (text.empty()) return out;
  out.reserve(text.size() * 5 / 4 + space.size());
  if (adds_prefix && !rules_->space_is_suffix) out += space;
  bool behind_space = trims;
  while (!text.empty()) {
    auto [bytes, piece] = next_by_rules(text);
    while (behind_space && piece.starts_with(' ')) piece.remove_prefix(1);
    if (!piece.empty()) {
      for (const char c : piece) c == ' ' ? out.append(space) : out.append(1, c);
      behind_space = trims && piece.ends_with(' ');
    }
    text.remove_prefix(bytes);
  }
  while (trims && out.ends_with(space)) out.erase(out.size() - space.size());
  if (adds_prefix && rules_->space_is_suffix) out += space;
  return out;
}

size_t TextPreparation::word_bytes(std::string_view text) const {
  if (!metaspace_ || !metaspace_->splits) return text.size();
  return std::min(text.find(kSpaceMark, char_bytes(text)), text.size());
}

}  // namespace tandem
