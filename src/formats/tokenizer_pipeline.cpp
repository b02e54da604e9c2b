#include "formats/tokenizer_pipeline.h"

#include "base/error.h"
#include "formats/tokenizer_config.h"

namespace tandem {
namespace {

constexpr size_t kMaxReplacementBytes = 256;        // bounds how much a text can grow
constexpr const char* kSpaceMark = "\xE2\x96\x81";  // U+2581

struct SplitPattern {
  const char* name;
  const char* pattern;
};
constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// A pattern is read as the first of its names; GGUF has further ones.
constexpr SplitPattern kSplitPatterns[] = {
    {"llama-bpe", kLlama3Pattern},       {"dbrx", kLlama3Pattern},   {"qwen2", kQwen2Pattern},
    {"deepseek-r1-qwen", kQwen2Pattern}, {"tekken", kTekkenPattern},
};

const SortedJson& at(const SortedJson& json, const char* key) { return member_or_null(json, key); }

bool is_step(const SortedJson& step, const char* type) { return at(step, "type") == type; }

[[noreturn]] void refuse(const char* what, const SortedJson& found, const char* supported,
                         const std::string& where) {
  fail(ErrorKind::bad_file, "{}: {} {} is not supported by this version (supported: {})", where,
       what, printed(found), supported);
}

bool is_byte_level(const SortedJson& step, bool use_regex) {
  const SortedJson& regex = at(step, "use_regex");
  return is_step(step, "ByteLevel") && at(step, "add_prefix_space") == false &&
         (regex == use_regex || (regex.is_null() && use_regex));
}

// The name of a sequence of two steps, the second of them ByteLevel; empty: none known.
std::string name_of_pair(const SortedJson& first, const SortedJson& second) {
  if (is_step(first, "Digits")) {
    const bool single = at(first, "individual_digits") == true;
    return single && is_byte_level(second, true) ? "smollm" : "";
  }
  const bool splits = is_step(first, "Split") && at(first, "behavior") == "Isolated" &&
                      at(first, "invert") == false && is_byte_level(second, false);
  if (!splits) return "";
  for (const SplitPattern& known : kSplitPatterns) {
    if (at(at(first, "pattern"), "Regex") == known.pattern) return known.name;
  }
  return "";
}

// The steps of a sequence, or the one step that it is; none for null.
std::vector<SortedJson> steps_of(const SortedJson& json, const char* list) {
  if (json.is_null()) return {};
  if (!is_step(json, "Sequence")) return {json};
  const SortedJson& steps = at(json, list);
  return steps.is_array() ? std::vector<SortedJson>(steps.begin(), steps.end())
                          : std::vector<SortedJson>{json};
}

std::string known_pre_tokenizer(const std::vector<SortedJson>& steps) {
  if (steps.size() == 1 && is_byte_level(steps[0], true)) return "gpt-2";
  return steps.size() == 2 ? name_of_pair(steps[0], steps[1]) : "";
}

// A text as a pattern that matches just it.
std::string quoted_pattern(const std::string& text) {
  std::string pattern;
  for (const char c : text) {
    const bool plain = (c & 0x80) != 0 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
                       (c >= 'a' && c <= 'z');
    if (!plain) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

// The pattern of a step that cuts its matches out as words of their own; empty: it is none.
std::string split_pattern(const SortedJson& step) {
  if (is_step(step, "Split")) {
    const SortedJson& pattern = at(step, "pattern");
    const SortedJson &regex = at(pattern, "Regex"), &text = at(pattern, "String");
    if (at(step, "behavior") != "Isolated" || at(step, "invert") != false) return "";
    if (regex.is_string()) return regex.get<std::string>();
    return text.is_string() ? quoted_pattern(text.get<std::string>()) : "";
  }
  if (is_step(step, "Digits")) {
    return at(step, "individual_digits") == true ? R"(\p{N})" : R"(\p{N}+)";
  }
  if (is_step(step, "Punctuation")) {
    const std::string one = R"([\p{P}$+<=>^`|~])";
    if (at(step, "behavior") == "Isolated") return one;
    return at(step, "behavior") == "Contiguous" ? one + "+" : "";
  }
  return "";
}

// Steps that end in ByteLevel. What follows it would see stand-ins for bytes.
void read_byte_level(const SortedJson& pre, const std::vector<SortedJson>& steps,
                     TokenizerSpec* spec, const std::string& where) {
  spec->kind = TokenizerKind::byte_bpe;
  spec->pre_tokenizer = known_pre_tokenizer(steps);
  if (!spec->pre_tokenizer.empty()) return;
  const char* supported =
      "Split of behavior Isolated, Digits and Punctuation, then ByteLevel without add_prefix_space";
  for (size_t i = 0; i + 1 < steps.size(); ++i) {
    spec->split_patterns.push_back(split_pattern(steps[i]));
    if (spec->split_patterns.back().empty()) refuse("pre_tokenizer", pre, supported, where);
  }
  if (is_byte_level(steps.back(), true)) {
    spec->split_patterns.push_back(
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
  } else if (!is_byte_level(steps.back(), false) || spec->split_patterns.empty()) {
    refuse("pre_tokenizer", pre, supported, where);
  }
}

// Metaspace by itself or behind WhitespaceSplit; false: the steps are something else.
bool read_metaspace(const std::vector<SortedJson>& steps, TokenizerSpec* spec) {
  const bool split_first = steps.size() == 2 && is_step(steps[0], "WhitespaceSplit");
  if (steps.size() != (split_first ? 2 : 1) || !is_step(steps.back(), "Metaspace")) return false;
  const SortedJson& step = steps.back();
  if (at(step, "replacement") != kSpaceMark) return false;
  Metaspace& metaspace = spec->metaspace.emplace();
  const SortedJson &scheme = at(step, "prepend_scheme"), &prefix = at(step, "add_prefix_space");
  if (scheme == "first") {
    metaspace.prepend = Metaspace::Prepend::first;
  } else if (scheme == "never" || (scheme.is_null() && prefix == false)) {
    metaspace.prepend = Metaspace::Prepend::never;
  } else if (scheme != "always" && !scheme.is_null()) {
    return false;
  }
  metaspace.splits = at(step, "split") != false;
  metaspace.after_whitespace = split_first;
  const bool plain = metaspace.prepend == Metaspace::Prepend::always && metaspace.splits;
  return !split_first || plain;
}

void read_pre_tokenizer(const SortedJson& json, TokenizerSpec* spec, const std::string& where) {
  const SortedJson &pre = at(json, "pre_tokenizer"), &type = at(at(json, "model"), "type");
  const std::vector<SortedJson> steps = steps_of(pre, "pretokenizers");
  if (type == "BPE" && !steps.empty() && is_step(steps.back(), "ByteLevel")) {
    return read_byte_level(pre, steps, spec, where);
  }
  if (type != "BPE" && type != "Unigram") {
    fail(ErrorKind::bad_file,
         "{}: models of type {} are not supported by this version (supported: "
         "BPE, Unigram)",
         where, printed(type));
  }
  spec->kind = type == "BPE" ? TokenizerKind::piece_bpe : TokenizerKind::unigram;
  if (steps.empty() || read_metaspace(steps, spec)) return;
  refuse("pre_tokenizer", pre,
         "none, Metaspace, WhitespaceSplit then Metaspace, and what ends in ByteLevel", where);
}

std::string from_base64(const SortedJson& json, const std::string& where) {
  std::string bytes;
  uint32_t bits = 0;
  int num_bits = 0;
  const std::string text = json.is_string() ? json.get<std::string>() : "?";
  for (const char c : std::string_view(text).substr(0, text.find('='))) {
    constexpr std::string_view kDigits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) {
      fail(ErrorKind::bad_file, "{}: 'precompiled_charsmap' is not base64", where);
    }
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if ((num_bits += 6) < 8) continue;
    num_bits -= 8;
    bytes += static_cast<char>(bits >> num_bits & 0xFF);
  }
  return bytes;
}

void read_normalizer_step(const SortedJson& step, TokenizerSpec* spec, const std::string& where) {
  using Kind = NormalizerStep::Kind;
  const SortedJson& pattern = at(step, "pattern");
  const SortedJson &regex = at(pattern, "Regex"), &text = at(pattern, "String");
  const SortedJson& content = at(step, "content");
  if (is_step(step, "NFC")) {
    spec->normalizer.push_back({Kind::nfc});
  } else if (is_step(step, "Prepend") && at(step, "prepend").is_string()) {
    spec->normalizer.push_back({Kind::prepend, "", step["prepend"]});
  } else if (is_step(step, "Replace") && content.is_string() && text.is_string() && text != "") {
    spec->normalizer.push_back({Kind::replace, text, content});
  } else if (is_step(step, "Replace") && content.is_string() && regex.is_string()) {
    spec->normalizer.push_back({Kind::replace_regex, regex, content});
  } else if (is_step(step, "Precompiled") && spec->charsmap.empty()) {
    spec->normalizer.push_back({Kind::charsmap});
    spec->charsmap = from_base64(at(step, "precompiled_charsmap"), where);
  } else if (is_step(step, "Strip")) {
    if (at(step, "strip_left") == true) spec->normalizer.push_back({Kind::strip_left});
    if (at(step, "strip_right") == true) spec->normalizer.push_back({Kind::strip_right});
  } else {
    refuse("normalizer", step, "NFC, Prepend, Replace, Precompiled, Strip and sequences of these",
           where);
  }
  if (!spec->normalizer.empty() && spec->normalizer.back().to.size() > kMaxReplacementBytes) {
    fail(ErrorKind::bad_file, "{}: the normalizer puts {} bytes in, expected at most {}", where,
         spec->normalizer.back().to.size(), kMaxReplacementBytes);
  }
}

void read_normalizer(const SortedJson& normalizer, TokenizerSpec* spec, const std::string& where) {
  spec->normalizes_nfc = is_step(normalizer, "NFC");
  if (spec->normalizes_nfc) return;
  for (const SortedJson& step : steps_of(normalizer, "normalizers")) {
    read_normalizer_step(step, spec, where);
  }
}

// All decoders here put the bytes of the tokens together; what differs is the space in front.
void read_decoder(const SortedJson& decoder, TokenizerSpec* spec, const std::string& where) {
  for (const SortedJson& step : steps_of(decoder, "decoders")) {
    const bool piece = spec->kind != TokenizerKind::byte_bpe;
    if (is_step(step, "ByteLevel") && !piece) continue;
    if (piece && (is_step(step, "ByteFallback") || is_step(step, "Fuse"))) continue;
    const SortedJson& text = at(at(step, "pattern"), "String");
    if (piece && is_step(step, "Replace") && text == kSpaceMark && at(step, "content") == " ") {
      continue;
    }
    if (piece && is_step(step, "Strip") && at(step, "content") == " " && at(step, "start") == 1 &&
        at(step, "stop") == 0) {
      spec->strips_leading_space = true;
      continue;
    }
    if (piece && is_step(step, "Metaspace") && at(step, "replacement") == kSpaceMark) {
      const SortedJson &scheme = at(step, "prepend_scheme"), &prefix = at(step, "add_prefix_space");
      spec->strips_leading_space = scheme.is_null() ? prefix != false : scheme != "never";
      continue;
    }
    refuse("decoder", step,
           piece ? "Replace of U+2581 by a space, ByteFallback, Fuse, Strip of one space, Metaspace"
                 : "ByteLevel",
           where);
  }
}

// The token in front of $A in the template of one text; the template may hold nothing else.
std::string token_in_front(const SortedJson& processor, const std::string& where) {
  const SortedJson& single = at(processor, "single");
  const bool shape = single.is_array() && (single.size() == 1 || single.size() == 2) &&
                     at(at(single.back(), "Sequence"), "id") == "A";
  if (shape && single.size() == 1) return "";
  if (shape) {
    const SortedJson& id = at(at(single[0], "SpecialToken"), "id");
    if (id.is_string()) return id.get<std::string>();
  }
  refuse("post_processor", processor, "a token in front of the text", where);
}

std::string read_post_processor(const SortedJson& processor, const std::string& where) {
  if (processor.is_null() || is_step(processor, "ByteLevel")) return "";
  if (is_step(processor, "TemplateProcessing")) return token_in_front(processor, where);
  const SortedJson& steps = at(processor, "processors");
  if (is_step(processor, "Sequence") && steps.is_array() && steps.size() == 2 &&
      is_step(steps[0], "ByteLevel") && is_step(steps[1], "TemplateProcessing")) {
    return token_in_front(steps[1], where);
  }
  refuse("post_processor", processor, "ByteLevel, TemplateProcessing", where);
}

}  // namespace

std::string read_tokenizer_pipeline(const SortedJson& json, TokenizerSpec* spec,
                                    const std::string& where) {
  read_pre_tokenizer(json, spec, where);
  read_normalizer(at(json, "normalizer"), spec, where);
  read_decoder(at(json, "decoder"), spec, where);
  return read_post_processor(at(json, "post_processor"), where);
}

const char* split_pattern(std::string_view name) {
  for (const SplitPattern& known : kSplitPatterns) {
    if (known.name == name) return known.pattern;
  }
  return nullptr;
}

}  // namespace tandem
