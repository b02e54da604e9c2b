#include "formats/tokenizer_pipeline.h"

#include "base/error.h"

namespace tandem {
namespace {

struct SplitPattern {
  const char* name;
  const char* pattern;
};
constexpr SplitPattern kSplitPatterns[] = {
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
     R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"},
};

// json[key], or null when json is no object or has no such member.
const SortedJson& at(const SortedJson& json, const char* key) {
  static const SortedJson kNull;
  if (!json.is_object()) return kNull;
  const auto it = json.find(key);
  return it == json.end() ? kNull : *it;
}

bool is_step(const SortedJson& step, const char* type) { return at(step, "type") == type; }

[[noreturn]] void refuse(const char* what, const SortedJson& found, const char* supported,
                         const std::string& where) {
  const std::string text = found.dump(-1, ' ', false, SortedJson::error_handler_t::replace);
  fail(ErrorKind::bad_file, "{}: {} {} is not supported by this version (supported: {})", where,
       what, quote(text, 160), supported);
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

std::string pre_tokenizer_name(const SortedJson& pre) {
  if (is_byte_level(pre, true)) return "gpt-2";
  const SortedJson& steps = at(pre, "pretokenizers");
  if (!is_step(pre, "Sequence") || !steps.is_array() || steps.size() != 2) return "";
  return name_of_pair(steps[0], steps[1]);
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
  const SortedJson& pre = at(json, "pre_tokenizer");
  spec->pre_tokenizer = pre_tokenizer_name(pre);
  if (spec->pre_tokenizer.empty()) {
    refuse("pre_tokenizer", pre,
           "single Digits then ByteLevel, ByteLevel alone, and the Split of Llama 3 or Qwen2 then "
           "ByteLevel",
           where);
  }
  const SortedJson& normalizer = at(json, "normalizer");
  spec->normalizes_nfc = is_step(normalizer, "NFC");
  if (!normalizer.is_null() && !spec->normalizes_nfc)
    refuse("normalizer", normalizer, "NFC", where);
  const SortedJson& decoder = at(json, "decoder");
  if (!decoder.is_null() && !is_step(decoder, "ByteLevel")) {
    refuse("decoder", decoder, "ByteLevel", where);
  }
  return read_post_processor(at(json, "post_processor"), where);
}

const char* split_pattern(std::string_view name) {
  for (const SplitPattern& known : kSplitPatterns) {
    if (known.name == name) return known.pattern;
  }
  return nullptr;
}

}  // namespace tandem
