#include "formats/gguf_write_tokenizer.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "formats/piece_scores.h"
#include "formats/sentencepiece_model.h"

namespace tandem {
namespace {

// How converters write "no such token" where leaving the key out means a token of its own.
constexpr uint32_t kNoToken = UINT32_MAX;

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581

// llama.cpp matches Unigram's unused pieces too; converters give them this score.
constexpr float kUnusedScore = -10000;

[[noreturn]] void refuse(const std::filesystem::path& source, const std::string& what) {
  fail(ErrorKind::usage, "{}: a GGUF file cannot describe this tokenizer to llama.cpp: {}",
       source.string(), what);
}

// ---- byte-level BPE

// GGUF tells NFC and words that are not merged by the name of the pre-tokenizer only.
struct NamedBpe {
  std::string_view pattern;  // TokenizerSpec::pre_tokenizer
  bool normalizes_nfc, ignores_merges;
  std::string_view name;  // llama.cpp's
};
constexpr NamedBpe kNamedBpes[] = {
    {"llama-bpe", false, true, "llama-bpe"}, {"llama3", false, true, "llama3"},
    {"llama-v3", false, true, "llama-v3"},   {"llama-bpe", false, false, "dbrx"},
    {"qwen2", true, false, "qwen2"},         {"qwen2", false, false, "deepseek-r1-qwen"},
    {"tekken", false, true, "tekken"},
};

std::string_view byte_bpe_name(const TokenizerSpec& spec, const std::filesystem::path& source) {
  const std::string& pattern = spec.pre_tokenizer;
  if (pattern.empty()) refuse(source, "its pre-tokenizer has no name");
  if (!spec.normalizer.empty() || spec.metaspace || spec.rules) {
    refuse(source, "a normalizer in front of byte-level BPE");
  }
  bool has_names = false;
  for (const NamedBpe& named : kNamedBpes) {
    if (named.pattern != pattern) continue;
    has_names = true;
    if (named.normalizes_nfc == spec.normalizes_nfc &&
        named.ignores_merges == spec.ignores_merges) {
      return named.name;
    }
  }
  if (has_names || spec.normalizes_nfc || spec.ignores_merges) {
    refuse(source, fmt::format("pre-tokenizer {} {} NFC, with words that are tokens {}",
                               quote(pattern), spec.normalizes_nfc ? "after" : "without",
                               spec.ignores_merges ? "left whole" : "merged up"));
  }
  return pattern;
}

void add_byte_bpe(const TokenizerSpec& spec, const std::filesystem::path& source, GgufKeys* keys) {
  keys->add_text("tokenizer.ggml.model", "gpt2");
  keys->add_text("tokenizer.ggml.pre", byte_bpe_name(spec, source));
  keys->add_texts("tokenizer.ggml.tokens", spec.tokens);
  std::vector<std::string> merges;
  merges.reserve(spec.merges.size());
  for (const auto& [left, right] : spec.merges) merges.push_back(left + " " + right);
  keys->add_texts("tokenizer.ggml.merges", merges);
}

// ---- pieces

// Whether a piece has a U+2581 that is not its first character.
bool has_inner_space(const TokenizerSpec& spec) {
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (spec.types[id] != TokenType::normal) continue;
    if (spec.tokens[id].find(kSpaceMark, 1) != std::string::npos) return true;
  }
  return false;
}

// Whether Metaspace puts a space in front, where llama.cpp can do the rest of it.
bool metaspace_prepends(const TokenizerSpec& spec, const std::filesystem::path& source) {
  const Metaspace& metaspace = *spec.metaspace;
  if (metaspace.after_whitespace) refuse(source, "Metaspace behind WhitespaceSplit");
  if (metaspace.splits && has_inner_space(spec)) {
    refuse(source, "words that end at each space, and pieces that reach over one");
  }
  return metaspace.prepend != Metaspace::Prepend::never;
}

// llama.cpp's BPE turns spaces into U+2581 and puts one in front or not; nothing else.
bool bpe_prepends(const TokenizerSpec& spec, const std::filesystem::path& source) {
  using Kind = NormalizerStep::Kind;
  const char* too_much = "SentencePiece that does more to a text than to mark its spaces";
  const auto& steps = spec.normalizer;
  if (spec.normalizes_nfc || !spec.charsmap.empty()) refuse(source, too_much);
  if (spec.rules) {
    const SentencePieceRules& rules = *spec.rules;
    if (rules.removes_extra_spaces || !rules.escapes_spaces || rules.space_is_suffix) {
      refuse(source, too_much);
    }
    return rules.adds_dummy_prefix;
  }
  if (spec.metaspace) {
    if (!steps.empty()) refuse(source, too_much);
    return metaspace_prepends(spec, source);
  }
  const bool replaces = !steps.empty() && steps.back().kind == Kind::replace &&
                        steps.back().from == " " && steps.back().to == kSpaceMark;
  const bool prepends =
      steps.size() == 2 && steps[0].kind == Kind::prepend && steps[0].to == kSpaceMark;
  if (!replaces || steps.size() > 2 || (steps.size() == 2 && !prepends)) refuse(source, too_much);
  return prepends;
}

// llama.cpp spells every character without a piece in bytes.
void check_bytes(const TokenizerSpec& spec, const std::filesystem::path& source) {
  const bool falls_back = spec.rules ? spec.rules->falls_back_to_bytes : spec.falls_back_to_bytes;
  const auto num_bytes = std::ranges::count(spec.types, TokenType::byte);
  if (!falls_back || num_bytes != 256) {
    refuse(source, fmt::format("BPE of pieces {} byte fallback, with {} byte tokens",
                               falls_back ? "with" : "without", num_bytes));
  }
}

// User-defined pieces are met in the prepared text; llama.cpp cuts them out of the text as it came.
void check_no_symbols(const TokenizerSpec& spec, const std::filesystem::path& source) {
  if (!spec.rules || spec.rules->symbols.empty()) return;
  const auto id = static_cast<size_t>(spec.rules->symbols.front());
  refuse(source, fmt::format("user-defined pieces, such as {}", quote(spec.tokens[id])));
}

void mark_unused(const TokenizerSpec& spec, std::vector<float>* scores) {
  for (size_t id = 0; id < scores->size(); ++id) {
    if (spec.types[id] == TokenType::unused) (*scores)[id] = kUnusedScore;
  }
}

void add_bpe(const TokenizerSpec& spec, const std::filesystem::path& source, GgufKeys* keys) {
  const bool prepends = bpe_prepends(spec, source);
  std::vector<float> scores = spec.scores;
  if (spec.kind == TokenizerKind::piece_bpe || spec.rules) {
    check_bytes(spec, source);
    check_no_symbols(spec, source);
    if (spec.ignores_merges) refuse(source, "BPE of pieces with texts that are tokens left whole");
    if (spec.kind == TokenizerKind::piece_bpe) {
      const std::optional<TokenizerSpec> model = read_model_beside(spec, source);
      scores = model ? scores_of_model(spec, *model, source) : scores_of_merges(spec, source);
    }
    mark_unused(spec, &scores);
  }
  keys->add_text("tokenizer.ggml.model", "llama");
  keys->add_text("tokenizer.ggml.pre", "default");
  keys->add_texts("tokenizer.ggml.tokens", spec.tokens);
  keys->add_bool("tokenizer.ggml.add_space_prefix", prepends);
  keys->add_f32s("tokenizer.ggml.scores", scores);
}

// tokenizer.json's steps as the rules that they were made of: Precompiled, Strip at the right, two
// spaces and more to one, Metaspace.
SentencePieceRules rules_of_steps(const TokenizerSpec& spec, const std::filesystem::path& source) {
  using Kind = NormalizerStep::Kind;
  SentencePieceRules rules;
  rules.removes_extra_spaces = false;
  size_t at = 0;
  const auto takes = [&](auto&& is_wanted) {
    const bool found = at < spec.normalizer.size() && is_wanted(spec.normalizer[at]);
    at += found ? 1 : 0;
    return found;
  };
  takes([](const NormalizerStep& step) { return step.kind == Kind::charsmap; });
  takes([](const NormalizerStep& step) { return step.kind == Kind::strip_right; });
  rules.removes_extra_spaces = takes([](const NormalizerStep& step) {
    return step.kind == Kind::replace_regex && step.from == " {2,}" &&
           (step.to == " " || step.to == kSpaceMark);
  });
  if (at != spec.normalizer.size() || spec.normalizes_nfc || !spec.metaspace) {
    refuse(source, "Unigram with other steps than SentencePiece's own");
  }
  rules.adds_dummy_prefix = metaspace_prepends(spec, source);
  return rules;
}

void add_unigram(const TokenizerSpec& spec, const std::filesystem::path& source, GgufKeys* keys) {
  const bool from_folder = std::filesystem::is_directory(source);
  const std::optional<TokenizerSpec> model = read_model_beside(spec, source);
  const SentencePieceRules rules = model        ? *model->rules
                                   : spec.rules ? *spec.rules
                                                : rules_of_steps(spec, source);
  if (from_folder) check_no_symbols(spec, source);
  if (!rules.escapes_spaces || rules.space_is_suffix) {
    refuse(source, "Unigram that marks spaces in another way than by U+2581 in front of words");
  }
  if (rules.removes_extra_spaces && !rules.adds_dummy_prefix) {
    refuse(source, "Unigram without a space in front of a text whose other spaces are made one");
  }
  if (spec.unk_id < 0) refuse(source, "Unigram without an unknown token");
  std::vector<float> scores(spec.unigram_scores.begin(), spec.unigram_scores.end());
  if (model) {
    scores = scores_of_model(spec, *model, source);
    if (model->charsmap != spec.charsmap) {
      refuse(source, "tokenizer.json and tokenizer.model normalize each in its own way");
    }
  }
  mark_unused(spec, &scores);
  keys->add_text("tokenizer.ggml.model", "t5");
  keys->add_text("tokenizer.ggml.pre", "default");
  keys->add_texts("tokenizer.ggml.tokens", spec.tokens);
  keys->add_f32s("tokenizer.ggml.scores", scores);
  keys->add_bool("tokenizer.ggml.add_space_prefix", rules.adds_dummy_prefix);
  keys->add_bool("tokenizer.ggml.remove_extra_whitespaces", rules.removes_extra_spaces);
  if (!spec.charsmap.empty()) keys->add_bytes("tokenizer.ggml.precompiled_charsmap", spec.charsmap);
}

void add_ids(const TokenizerSpec& spec, GgufKeys* keys) {
  // Ids of Llama's or T5's own are meant where a model of pieces leaves one of the first three out.
  const bool has_default = spec.kind != TokenizerKind::byte_bpe;
  const auto add = [&](std::string_view key, int32_t id, bool defaults) {
    if (id >= 0 || defaults) keys->add_u32(key, id >= 0 ? static_cast<uint32_t>(id) : kNoToken);
  };
  add("tokenizer.ggml.bos_token_id", spec.bos_id, has_default);
  add("tokenizer.ggml.eos_token_id", spec.eos_id, has_default);
  add("tokenizer.ggml.unknown_token_id", spec.unk_id, has_default);
  add("tokenizer.ggml.padding_token_id", spec.pad_id, false);
}

}  // namespace

void add_gguf_tokenizer(const TokenizerSpec& spec, const std::filesystem::path& source,
                        GgufKeys* keys) {
  switch (spec.kind) {
    case TokenizerKind::byte_bpe:
      add_byte_bpe(spec, source, keys);
      break;
    case TokenizerKind::sentencepiece:
    case TokenizerKind::piece_bpe:
      add_bpe(spec, source, keys);
      break;
    case TokenizerKind::unigram:
      add_unigram(spec, source, keys);
      break;
  }
  std::vector<int32_t> types;
  // TokenType is in GGUF's order, which begins with 1.
  for (const TokenType type : spec.types) types.push_back(static_cast<int32_t>(type) + 1);
  keys->add_i32s("tokenizer.ggml.token_type", types);
  add_ids(spec, keys);
  keys->add_bool("tokenizer.ggml.add_bos_token", spec.add_bos);
  keys->add_bool("tokenizer.ggml.add_eos_token", false);  // llama.cpp adds one to Unigram if unsaid
  if (!spec.chat_template.empty()) keys->add_text("tokenizer.chat_template", spec.chat_template);
}

std::vector<std::string> gguf_tokenizer_notes(const TokenizerSpec& spec) {
  std::vector<std::string> notes;
  if (!spec.added.empty()) {
    notes.push_back(fmt::format("GGUF does not say how {} added tokens treat the text around them",
                                spec.added.size()));
  }
  const bool metaspace = spec.metaspace && spec.metaspace->prepend != Metaspace::Prepend::never;
  if (metaspace && spec.kind == TokenizerKind::piece_bpe) {
    notes.push_back("llama.cpp puts a space in front of a text that begins with one, too");
  }
  const bool first_only =
      metaspace ? spec.metaspace->prepend == Metaspace::Prepend::first
                : spec.rules && spec.rules->adds_dummy_prefix && spec.rules->prefix_first_only;
  if (first_only) notes.push_back("llama.cpp puts a space behind every special token, too");
  const bool falls_back = spec.rules ? spec.rules->falls_back_to_bytes : spec.falls_back_to_bytes;
  if (spec.kind == TokenizerKind::unigram && falls_back) {
    notes.push_back("llama.cpp makes the unknown token, not bytes, of what has no piece");
  }
  return notes;
}

}  // namespace tandem
