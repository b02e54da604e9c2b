// Files that must be refused, each with a message of its own, and the few odd ones that must not
// be.
#include "formats/gguf.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <limits>

#include "base/clock.h"
#include "base/random.h"
#include "formats/gguf_builder.h"
#include "formats/gguf_tokenizer.h"
#include "formats/temporary_folder.h"

namespace tandem {
namespace {

using Spoil = std::function<void(GgufBuilder&)>;

struct Case {
  const char* name;
  const char* expected;  // a part of the message
  Spoil spoil;
};

void add_tensor(GgufBuilder& b, const std::string& name, std::vector<int64_t> dims,
                uint32_t type = 0) {
  b.tensors.push_back({name, std::move(dims), type, "", {}, {}});
}

Spoil key(const char* name, const std::string& value) {
  return [=](GgufBuilder& b) { b.set(name, value); };
}

constexpr int64_t kMax64 = std::numeric_limits<int64_t>::max();

const Case kCases[] = {
    {"magic reversed", "big-endian", [](auto& b) { b.magic = "FUGG"; }},
    {"magic GGJT", "before GGUF", [](auto& b) { b.magic = "tjgg"; }},
    {"magic GGML", "before GGUF", [](auto& b) { b.magic = "lmgg"; }},
    {"gzip", "gzip archive", [](auto& b) { b.magic = "\x1f\x8b\x08\x08"; }},
    {"zip", "zip archive", [](auto& b) { b.magic = "PK\x03\x04"; }},
    {"web page", "web page", [](auto& b) { b.magic = "\n<!DOCTYPE html>"; }},
    {"git lfs pointer", "Git LFS pointer",
     [](auto& b) { b.magic = "version https://git-lfs.github.com/spec/v1\n"; }},
    {"other magic", "is not a GGUF file", [](auto& b) { b.magic = "ELF!"; }},
    {"version 0", "GGUF version 0", [](auto& b) { b.version = 0; }},
    {"version 1", "convert it again", [](auto& b) { b.version = 1; }},
    {"version 4", "newer than this program", [](auto& b) { b.version = 4; }},
    {"version swapped", "byte-swapped", [](auto& b) { b.version = 0x03000000; }},
    {"tensors -1", "number of tensors", [](auto& b) { b.num_tensors = UINT64_MAX; }},
    {"tensors int64 max", "number of tensors", [](auto& b) { b.num_tensors = kMax64; }},
    {"tensors 2^32", "number of tensors", [](auto& b) { b.num_tensors = 1ull << 32; }},
    {"tensors beyond the file", "fit in the file", [](auto& b) { b.num_tensors = 60000; }},
    {"keys -1", "number of metadata keys", [](auto& b) { b.num_keys = UINT64_MAX; }},
    {"keys 2^40", "number of metadata keys", [](auto& b) { b.num_keys = 1ull << 40; }},
    {"empty key", "key is empty", [](auto& b) { b.keys.emplace_back("", u32_value(1)); }},
    {"key of 64 KiB + 1", "at most 65536",
     [](auto& b) { b.keys.emplace_back(std::string(65537, 'k'), u32_value(1)); }},
    {"key with NUL", "control characters",
     [](auto& b) { b.keys.emplace_back(std::string("a\0b", 3), u32_value(1)); }},
    {"key not UTF-8", "not UTF-8", [](auto& b) { b.keys.emplace_back("\xff\xfe", u32_value(1)); }},
    {"duplicate key", "'general.name' stands twice",
     [](auto& b) { b.keys.emplace_back("general.name", u32_value(1)); }},
    {"value type 13", "unknown value type 13", key("x", raw<uint32_t>(13) + raw(0))},
    {"value type -1", "unknown value type 4294967295", key("x", raw<int32_t>(-1) + raw(0))},
    {"array of arrays", "array of arrays", key("x", array_head(9, 1) + array_head(0, 0))},
    {"array of 2^61", "2305843009213693952 elements", key("x", array_head(10, 1ull << 61))},
    {"array of 2^27 strings", "134217728 elements", key("x", array_head(8, 1ull << 27))},
    {"array beyond the file", "are left in the file", key("x", array_head(10, 1 << 20))},
    {"string of 2^64-1", "at most 67108864",
     key("x", raw<uint32_t>(8) + raw<uint64_t>(UINT64_MAX))},
    {"string of 1 MiB", "are left in the file", key("x", raw<uint32_t>(8) + raw<uint64_t>(1 << 20))},
    {"bool 2", "boolean byte 2", key("x", bool_value(2))},
    {"alignment 0", "power of two", key("general.alignment", u32_value(0))},
    {"alignment 13", "power of two", key("general.alignment", u32_value(13))},
    {"alignment 2^31", "power of two", key("general.alignment", u32_value(1u << 31))},
    {"alignment i32", "expected u32", key("general.alignment", i32_value(32))},
    {"alignment text", "expected u32", key("general.alignment", text_value("32"))},
    {"tensor name of 64", "at most 63", [](auto& b) { b.tensors[0].name = std::string(64, 'n'); }},
    {"tensor name empty", "tensor name ''", [](auto& b) { b.tensors[0].name = ""; }},
    {"tensor name with NUL", "holds something else",
     [](auto& b) { b.tensors[0].name = std::string("a\0", 2); }},
    {"tensor name with slash", "holds something else", [](auto& b) { b.tensors[0].name = "../x"; }},
    {"tensor twice", "stands twice",
     [](auto& b) { b.tensors[1].name = b.tensors[0].name; }},
    {"0 dimensions", "0 dimensions", [](auto& b) { b.tensors[0].num_dims = 0; }},
    {"5 dimensions", "5 dimensions", [](auto& b) { b.tensors[0].num_dims = 5; }},
    {"2^32-1 dimensions", "4294967295 dimensions", [](auto& b) { b.tensors[0].num_dims = UINT32_MAX; }},
    {"int64 max x 2", "dimension 0 is", [](auto& b) { add_tensor(b, "x", {kMax64, 2, 1, 1}); }},
    {"2^32 x 2^32", "dimension 0 is", [](auto& b) { add_tensor(b, "x", {1ll << 32, 1ll << 32}); }},
    {"-1 x 4", "dimension 0 is -1", [](auto& b) { add_tensor(b, "x", {-1, 4}); }},
    {"0 x 5", "dimension 0 is 0", [](auto& b) { add_tensor(b, "x", {0, 5}); }},
    {"product beyond the file", "its dimensions need", [](auto& b) { add_tensor(b, "x", {64, 64, 4}); }},
    {"bytes near SIZE_MAX", "dimension 0 is", [](auto& b) { add_tensor(b, "x", {kMax64 / 2}, 1); }},
    {"type removed", "unknown tensor type 4", [](auto& b) { b.tensors[0].type = 4; }},
    {"type unknown", "unknown tensor type 1000", [](auto& b) { b.tensors[0].type = 1000; }},
    {"type not supported", "type IQ2_XXS is not supported",
     [](auto& b) { b.tensors[0].type = 16; }},
    {"row not whole blocks", "multiple of 32", [](auto& b) { b.tensors[0].type = 3; }},
    {"row not whole super-blocks", "rows of 8 elements, expected a multiple of 256 for q4_k",
     [](auto& b) { b.tensors[0].type = 12; }},
    {"offset unaligned", "offset 1, expected 0", [](auto& b) { b.tensors[0].offset = 1; }},
    {"offset overlapping", "expected 192", [](auto& b) { b.tensors[1].offset = 160; }},
    {"offset gap", "expected 192", [](auto& b) { b.tensors[1].offset = 224; }},
    {"offset equal", "expected 192", [](auto& b) { b.tensors[1].offset = 0; }},
    {"offset beyond the file", "expected 192", [](auto& b) { b.tensors[1].offset = 1ull << 60; }},
    {"split", "key 'split.no' is missing", key("split.count", raw<uint32_t>(2) + raw<uint16_t>(3))},
    {"no architecture", "'general.architecture' is missing",
     [](auto& b) { b.erase("general.architecture"); }},
    {"architecture unknown", "supported: llama", key("general.architecture", text_value("mamba"))},
    {"architecture number", "expected a string", key("general.architecture", u32_value(1))},
    {"architecture 1 MB", "...", key("general.architecture", text_value(std::string(1 << 20, 'x')))},
    {"layers 2^31", "llama.block_count", key("llama.block_count", u32_value(1u << 31))},
    {"layers 0", "number of layers is 0", key("llama.block_count", u32_value(0))},
    {"layers negative", "llama.block_count", key("llama.block_count", i32_value(-1))},
    {"heads 0", "head_count' is 0", key("llama.attention.head_count", u32_value(0))},
    {"KV heads above heads", "KV heads is 4", key("llama.attention.head_count_kv", u32_value(4))},
    {"KV heads not dividing", "do not divide", [](auto& b) {
       b.set("llama.attention.head_count", u32_value(4));
       b.set("llama.attention.head_count_kv", u32_value(3));
     }},
    {"width not divisible", "not a multiple", key("llama.embedding_length", u32_value(9))},
    {"odd head", "an even number", key("llama.embedding_length", u32_value(6))},
    {"RoPE base 0", "RoPE base", key("llama.rope.freq_base", f32_value(0))},
    {"RoPE base NaN", "RoPE base", key("llama.rope.freq_base", f32_value(NAN))},
    {"partial RoPE", "llama.rope.dimension_count", key("llama.rope.dimension_count", u32_value(2))},
    {"RoPE scaling", "RoPE scaling 'yarn'", key("llama.rope.scaling.type", text_value("yarn"))},
    {"RoPE factor", "the RoPE scaling factor is -2", key("llama.rope.scaling.factor", f32_value(-2))},
    {"older RoPE factor", "the RoPE scaling factor is nan", key("llama.rope.scale_linear", f32_value(NAN))},
    {"attention scale", "llama.attention.scale", key("llama.attention.scale", f32_value(0.5f))},
    {"RoPE factors", "RoPE divisors", [](auto& b) { b.tensors[10].name = "rope_freqs.weight"; }},
    {"longrope", "RoPE scaling 'longrope'",
     [](auto& b) { b.tensors[10].name = "rope_factors_long.weight"; }},
    {"experts", "llama.expert_count", key("llama.expert_count", u32_value(8))},
    {"epsilon 0", "epsilon", key("llama.attention.layer_norm_rms_epsilon", f32_value(0))},
    {"epsilon negative", "epsilon", key("llama.attention.layer_norm_rms_epsilon", f32_value(-1))},
    {"epsilon text", "expected an f32", key("llama.attention.layer_norm_rms_epsilon", text_value("x"))},
    {"epsilon bool", "expected an f32", key("llama.attention.layer_norm_rms_epsilon", bool_value(1))},
    {"epsilon NaN", "epsilon", key("llama.attention.layer_norm_rms_epsilon", f32_value(NAN))},
    {"context 0", "context length is 0", key("llama.context_length", u32_value(0))},
    {"context 2^40", "llama.context_length", key("llama.context_length", u64_value(1ull << 40))},
    {"layer missing", "'model.layers.1.input_layernorm.weight' is missing",
     key("llama.block_count", u32_value(2))},
    {"tensor missing", "is missing", [](auto& b) { b.tensors.pop_back(); }},
    {"tensor unknown", "'blk.0.attn_sinks.weight' is not part",
     [](auto& b) { b.tensors[10].name = "blk.0.attn_sinks.weight"; }},
    {"layer beyond", "is missing", [](auto& b) { b.tensors[5].name = "blk.7.attn_output.weight"; }},
    {"layer not canonical", "is not part", [](auto& b) { b.tensors[5].name = "blk.00.attn_output.weight"; }},
    {"shape transposed", "shape [16, 8], expected [8, 16]",
     [](auto& b) { b.tensor("blk.0.ffn_down.weight").dims = {8, 16}; }},
    {"norm NaN", "expected a finite number",
     [](auto& b) { b.tensor("output_norm.weight").data.replace(4, 4, raw(NAN)); }},
    {"vocabulary of 7", "expected [7, 8]", key("llama.vocab_size", u32_value(7))},
    {"tokens of 5", "has 5 tokens, expected 6", [](auto& b) {
       b.set("tokenizer.ggml.tokens", texts_value({"a", "b", "c", "ab", "abc"}));
       b.erase("tokenizer.ggml.token_type");
     }},
    {"token types of 5", "tokenizer.ggml.token_type",
     key("tokenizer.ggml.token_type", array_head(5, 5) + std::string(20, '\1'))},
    {"eos beyond", "tokenizer.ggml.eos_token_id", key("tokenizer.ggml.eos_token_id", u32_value(6))},
    {"BOS wanted, none there", "wants a BOS", key("tokenizer.ggml.add_bos_token", bool_value(1))},
    {"merge of three", "expected two pieces", key("tokenizer.ggml.merges", texts_value({"a b c"}))},
    {"tokenizer unknown", "tokenizer model 'bert'", key("tokenizer.ggml.model", text_value("bert"))},
};

TEST(Gguf, RefusesHostileFiles) {
  const TemporaryFolder folder;
  for (const Case& c : kCases) {
    GgufBuilder builder = GgufBuilder::tiny();
    c.spoil(builder);
    const auto file = folder.write("model.gguf", builder.bytes());
    const std::string error = error_of([&] { load_checkpoint(file); });
    EXPECT_EQ(error.substr(0, 7), "exit 3:") << c.name << ": " << error;
    EXPECT_NE(error.find(c.expected), std::string::npos) << c.name << ": " << error;
    EXPECT_LT(error.size(), 700u) << c.name;
  }
}

TEST(Gguf, ReadsTheTinyModel) {
  const TemporaryFolder folder;
  for (const uint32_t version : {2u, 3u}) {
    GgufBuilder builder = GgufBuilder::tiny();
    builder.version = version;
    builder.set("llama.something.new", u32_value(1));
    const Checkpoint model = load_checkpoint(folder.write("model.gguf", builder.bytes()));
    EXPECT_EQ(model.format, fmt::format("GGUF v{}", version));
    EXPECT_EQ(model.config.head_dim, 4);
    EXPECT_TRUE(model.config.tied_embedding);
    EXPECT_EQ(model.tensors.size(), 11u);
    EXPECT_EQ(model.weight("model.layers.0.self_attn.k_proj.weight").interleaved_head, 4);
    EXPECT_EQ(model.weight("model.layers.0.self_attn.v_proj.weight").interleaved_head, 0);
    EXPECT_EQ(model.tokenizer.merges[1], (std::pair<std::string, std::string>("ab", "c")));
    EXPECT_EQ(model.tokenizer.types[0], TokenType::control);
    ASSERT_EQ(model.warnings.size(), 1u);
    EXPECT_NE(model.warnings[0].find("llama.something.new"), std::string::npos);
  }
}

TEST(Gguf, ReadsTheSmallestEpsilon) {
  const TemporaryFolder folder;
  GgufBuilder builder = GgufBuilder::tiny();
  builder.set("llama.attention.layer_norm_rms_epsilon", raw<uint32_t>(12) + raw(0x1p-1074));
  const Checkpoint model = load_checkpoint(folder.write("model.gguf", builder.bytes()));
  EXPECT_EQ(model.config.rms_eps, 0x1p-1074);
}

TEST(Gguf, HonoursAlignmentAndOutputMatrix) {
  const TemporaryFolder folder;
  GgufBuilder builder = GgufBuilder::tiny();
  builder.alignment = 256;
  builder.set("general.alignment", u32_value(256));
  builder.tensors.push_back(builder.tensors[0]);
  builder.tensors.back().name = "output.weight";
  const Checkpoint model = load_checkpoint(folder.write("model.gguf", builder.bytes()));
  EXPECT_FALSE(model.config.tied_embedding);
  EXPECT_NE(model.find("lm_head.weight"), nullptr);
}

TEST(Gguf, RefusesEveryTruncation) {
  const std::string whole = GgufBuilder::tiny().bytes();
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string error =
        error_of([&] { parse_gguf(std::as_bytes(std::span(whole.data(), size)), "x"); });
    EXPECT_NE(error, "") << size;
  }
  const std::string longer = whole + '\0';
  EXPECT_NE(error_of([&] { parse_gguf(std::as_bytes(std::span(longer)), "x"); }).find("bytes long"),
            std::string::npos);
}

TEST(Gguf, SurvivesSpoiledBytes) {
  const TemporaryFolder folder;
  const std::string whole = GgufBuilder::tiny().bytes();
  Random random(7);
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    std::string bytes = whole;
    // Small numbers, powers of two and all ones reach further than arbitrary bytes do.
    const uint64_t values[] = {
        0, 1, 0x80, UINT64_MAX, uint64_t{1} << random.below(64), random.next()};
    const uint64_t value = values[random.below(6)];
    const size_t size = size_t{1} << random.below(4);
    std::memcpy(bytes.data() + 4 + random.below(bytes.size() - 4 - size), &value, size);
    const auto file = folder.write("model.gguf", bytes);
    refused += error_of([&] { load_checkpoint(file); }).empty() ? 0 : 1;
  }
  EXPECT_GT(refused, 100);
}

TEST(Gguf, AcceptsAnUnpaddedEnd) {
  GgufBuilder builder = GgufBuilder::tiny();
  builder.tensors.back().data.resize(8 * 4 - 4);
  builder.tensors.back().dims = {7};
  std::string bytes = builder.bytes();
  EXPECT_NO_THROW(parse_gguf(std::as_bytes(std::span(bytes)), "x"));
  bytes.resize(bytes.size() - 4);
  EXPECT_NO_THROW(parse_gguf(std::as_bytes(std::span(bytes)), "x"));
}

TEST(Gguf, RefusesOddPaths) {
  const TemporaryFolder folder;
  const auto error = [](const std::filesystem::path& path) {
    return error_of([&] { load_checkpoint(path); });
  };
  EXPECT_NE(error(folder.path() / "none").find("No such file"), std::string::npos);
  EXPECT_NE(error(folder.write("empty", "")).find("is empty"), std::string::npos);
  EXPECT_NE(error(folder.write("short", "GGU")).find("3 are left"), std::string::npos);
  EXPECT_NE(error(folder.path()).find("without config.json"), std::string::npos);
  EXPECT_NE(error("/dev/zero").find("not a regular file"), std::string::npos);
  EXPECT_NE(error(folder.write("model.pt", "x")).find("pickle"), std::string::npos);
  const auto fifo = folder.path() / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_NE(error(fifo).find("not a regular file"), std::string::npos);
}

TEST(Gguf, RefusesWeightsLargerThanMemory) {
  const TemporaryFolder folder;
  GgufBuilder builder = GgufBuilder::tiny();
  builder.tensors.resize(1);
  const int64_t width = int64_t{1} << 40;  // a sparse file of 4 TiB
  builder.tensors[0].dims = {width};
  builder.tensors[0].data.clear();
  const auto file = folder.write("model.gguf", builder.bytes());
  std::error_code error;
  const auto begin = std::filesystem::file_size(file);
  std::filesystem::resize_file(file, begin + static_cast<uint64_t>(width) * 4, error);
  if (error) GTEST_SKIP() << "the file system holds no file of 4 TiB: " << error.message();
  const std::string message = error_of([&] { load_checkpoint(file); });
  EXPECT_EQ(message.substr(0, 7), "exit 4:") << message;
  EXPECT_NE(message.find("bytes are available"), std::string::npos) << message;
}

TEST(Gguf, ParsesManyEntriesQuickly) {
  GgufBuilder builder = GgufBuilder::tiny();
  for (int i = 0; i < 60000; ++i) builder.keys.emplace_back(fmt::format("k{}", i), bool_value(1));
  std::vector<std::string> tokens;
  for (int i = 0; i < 150000; ++i) tokens.push_back(fmt::format("token{}", i));
  builder.set("tokenizer.ggml.tokens", texts_value(tokens));
  const std::string bytes = builder.bytes();
  const int64_t start = now_ns();
  const GgufFile file = parse_gguf(std::as_bytes(std::span(bytes)), "x");
  EXPECT_EQ(file.find("tokenizer.ggml.tokens")->strings().size(), 150000u);
  // Ten times what an optimised build on a busy machine needs; a quadratic check would need
  // minutes.
  EXPECT_LT(seconds_since(start), 1.0);
}

TEST(Gguf, ParsesARealVocabularyQuickly) {
  GgufBuilder builder = GgufBuilder::tiny();
  std::vector<std::string> tokens;
  for (int i = 0; i < 150000; ++i) tokens.push_back(fmt::format("token{}", i));
  builder.set("tokenizer.ggml.tokens", texts_value(tokens));
  const std::string bytes = builder.bytes();
  int64_t best_ns = std::numeric_limits<int64_t>::max();
  for (int i = 0; i < 3; ++i) {
    const int64_t start = now_ns();
    parse_gguf(std::as_bytes(std::span(bytes)), "x");
    best_ns = std::min(best_ns, now_ns() - start);
  }
  EXPECT_LT(best_ns, 100'000'000);
}

TEST(Gguf, AVocabularyWithoutTensorsIsATokenizerAndNoModel) {
  const TemporaryFolder folder;
  GgufBuilder builder = GgufBuilder::tiny();
  builder.tensors.clear();
  const auto path = folder.write("vocabulary.gguf", builder.bytes());
  EXPECT_EQ(read_gguf_vocabulary(path).tokens.size(), 6u);
  EXPECT_THROW(load_checkpoint(path), Error);
}

// llama.cpp scales linearly when no type is named, takes the older key, and reads 0 as 1.
TEST(Gguf, ReadsLinearRopeScalingInEverySpelling) {
  const TemporaryFolder folder;
  const auto config_with = [&](const Spoil& change) {
    GgufBuilder b = GgufBuilder::tiny();
    change(b);
    return load_checkpoint(folder.write("tiny.gguf", b.bytes())).config;
  };
  const Spoil linear = key("llama.rope.scaling.type", text_value("linear"));
  const Spoil none = key("llama.rope.scaling.type", text_value("none"));
  const Spoil factor = key("llama.rope.scaling.factor", f32_value(4));
  for (const Spoil& spelling : {factor, key("llama.rope.scale_linear", f32_value(4)),
                                Spoil([&](GgufBuilder& b) { linear(b), factor(b); })}) {
    const ModelConfig config = config_with(spelling);
    EXPECT_EQ(config.rope_scaling, RopeScaling::linear);
    EXPECT_EQ(config.rope_factor, 4);
  }
  for (const Spoil& spelling : {linear, key("llama.rope.scale_linear", f32_value(0)),
                                Spoil([&](GgufBuilder& b) { none(b), factor(b); })}) {
    EXPECT_EQ(config_with(spelling).rope_scaling, RopeScaling::none);
  }
}

TEST(Gguf, BiasesComeWithTheirTensors) {
  GgufBuilder b = GgufBuilder::tiny();
  const auto add = [&](const char* name, std::initializer_list<float> values) {
    std::string data;
    for (const float value : values) data += raw(value);
    b.tensors.push_back({name, {static_cast<int64_t>(values.size())}, 0, data, {}, {}});
  };
  add("blk.0.attn_q.bias", {0, 1, 2, 3, 4, 5, 6, 7});
  const TemporaryFolder folder;
  const auto load = [&] { return load_checkpoint(folder.write("tiny.gguf", b.bytes())); };
  EXPECT_NE(error_of(load).find("'model.layers.0.self_attn.k_proj.bias' is missing"),
            std::string::npos);
  add("blk.0.attn_k.bias", {0, 1, 2, 3});
  add("blk.0.attn_v.bias", {0, 1, 2, 3});
  const Checkpoint checkpoint = load();
  EXPECT_TRUE(checkpoint.config.qkv_bias);
  EXPECT_FALSE(checkpoint.config.o_bias);
  // Rows of a llama file's q and k are interleaved, and so are their biases.
  std::vector<float> q(8), v(4);
  decode_row(checkpoint.weight("model.layers.0.self_attn.q_proj.bias"), 0, q.data());
  decode_row(checkpoint.weight("model.layers.0.self_attn.v_proj.bias"), 0, v.data());
  EXPECT_EQ(q, (std::vector<float>{0, 2, 1, 3, 4, 6, 5, 7}));
  EXPECT_EQ(v, (std::vector<float>{0, 1, 2, 3}));
}

}  // namespace
}  // namespace tandem
