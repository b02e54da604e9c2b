// Folders of every family as GGUF files: what comes back, what is refused, what a failure leaves.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "base/error_message.h"
#include "compress/compress.h"
#include "formats/gguf.h"
#include "formats/random_checkpoint.h"
#include "formats/temporary_folder.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

const fs::path kFamilies = fs::path(TANDEM_TEST_DIR) / "golden" / "families";

CompressResult write(const Checkpoint& source, const std::string& recipe, const fs::path& out) {
  ThreadPool pool(2, /*pin=*/false);
  return compress_to_gguf(source, recipe_from_name(recipe, 0, Container::gguf), out, pool, {});
}

std::vector<float> values(const Weight& w) {
  std::vector<float> out(static_cast<size_t>(w.N * w.K));
  for (int64_t n = 0; n < w.N; ++n) decode_row(w, n, out.data() + n * w.K);
  return out;
}

void expect_same_config(const ModelConfig& a, const ModelConfig& b) {
  EXPECT_EQ(a.num_layers, b.num_layers);
  EXPECT_EQ(a.width, b.width);
  EXPECT_EQ(a.num_heads, b.num_heads);
  EXPECT_EQ(a.num_kv_heads, b.num_kv_heads);
  EXPECT_EQ(a.head_dim, b.head_dim);
  EXPECT_EQ(a.ffn_width, b.ffn_width);
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.max_context, b.max_context);
  EXPECT_EQ(a.rope_theta, b.rope_theta);
  EXPECT_EQ(a.rms_eps, b.rms_eps);
  EXPECT_EQ(a.tied_embedding, b.tied_embedding);
  EXPECT_EQ(a.qkv_bias, b.qkv_bias);
  EXPECT_EQ(a.qk_norm, b.qk_norm);
  EXPECT_EQ(a.sliding_window, b.sliding_window);
  if (b.rope_scaling == RopeScaling::linear) {
    EXPECT_EQ(a.rope_factor, b.rope_factor);
  }
}

void expect_same_tokenizer(const TokenizerSpec& a, const TokenizerSpec& b) {
  EXPECT_EQ(a.kind, b.kind);
  EXPECT_EQ(a.pre_tokenizer, b.pre_tokenizer);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.types, b.types);
  EXPECT_EQ(a.merges, b.merges);
  EXPECT_EQ(a.bos_id, b.bos_id);
  EXPECT_EQ(a.eos_id, b.eos_id);
  EXPECT_EQ(a.pad_id, b.pad_id);
  EXPECT_EQ(a.unk_id, b.unk_id);
  EXPECT_EQ(a.add_bos, b.add_bos);
  EXPECT_EQ(a.chat_template, b.chat_template);
}

class EveryFamily : public testing::TestWithParam<const char*> {};

// The folders hold bf16, so nothing may change.
TEST_P(EveryFamily, ComesBackFromAFile) {
  const Checkpoint source = load_checkpoint(kFamilies / GetParam());
  const TemporaryFolder dir;
  const CompressResult result = write(source, "bf16", dir.path() / "out.gguf");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1);
  const Checkpoint back = load_checkpoint(dir.path() / "out.gguf");
  expect_same_config(back.config, source.config);
  expect_same_tokenizer(back.tokenizer, source.tokenizer);
  ASSERT_EQ(back.tensors.size(), source.tensors.size());
  uint64_t bytes = 0;
  for (const NamedTensor& tensor : source.tensors) {
    const Weight& w = back.weight(tensor.name);
    EXPECT_EQ(w.encoding, tensor.weight.N == 1 ? kF32 : kBF16) << tensor.name;
    EXPECT_EQ(values(w), values(tensor.weight)) << tensor.name;
    bytes += w.total_bytes();
  }
  EXPECT_EQ(result.output_bytes, bytes);
  EXPECT_TRUE(back.warnings.empty()) << back.warnings.front();
}
INSTANTIATE_TEST_SUITE_P(Families, EveryFamily,
                         testing::Values("llama", "llama_tied", "llama_llama3", "llama_linear",
                                         "mistral", "qwen2", "qwen2_sharded", "qwen3", "phi3"),
                         [](const auto& test) { return std::string(test.param); });

class TheConvertersFile : public testing::TestWithParam<const char*> {};

// Files of the same weights that the gguf package wrote by llama.cpp's names and row order.
TEST_P(TheConvertersFile, HoldsTheSameBytes) {
  const TemporaryFolder dir;
  write(load_checkpoint(kFamilies / GetParam()), "bf16", dir.path() / "out.gguf");
  const MappedFile ours_map(dir.path() / "out.gguf"),
      theirs_map(kFamilies / GetParam() / "model.gguf");
  const GgufFile ours = parse_gguf(ours_map.bytes(), "ours");
  const GgufFile theirs = parse_gguf(theirs_map.bytes(), "theirs");
  ASSERT_EQ(ours.tensors.size(), theirs.tensors.size());
  for (const GgufTensor& expected : theirs.tensors) {
    const auto found = std::ranges::find(ours.tensors, expected.name, &GgufTensor::name);
    ASSERT_NE(found, ours.tensors.end()) << expected.name;
    EXPECT_EQ(found->dims, expected.dims) << expected.name;
    EXPECT_EQ(found->num_dims, expected.num_dims) << expected.name;
    EXPECT_EQ(found->encoding, expected.encoding) << expected.name;
    if (expected.name == "rope_freqs.weight") continue;  // computed in another precision there
    EXPECT_TRUE(std::ranges::equal(found->bytes, expected.bytes)) << expected.name;
  }
  for (const auto& [key, value] : theirs.metadata) {
    if (key == "phi3.rope.scaling.original_context_length") continue;  // no scaling, no need
    const GgufValue* found = ours.find(key);
    ASSERT_NE(found, nullptr) << key;
    EXPECT_EQ(found->type, value.type) << key;
    EXPECT_TRUE(std::ranges::equal(found->bytes, value.bytes)) << key;
  }
}
INSTANTIATE_TEST_SUITE_P(Families, TheConvertersFile,
                         testing::Values("llama_llama3", "qwen2", "qwen3", "phi3"),
                         [](const auto& test) { return std::string(test.param); });

TEST(CompressGguf, Llama3ScalingBecomesDivisors) {
  const TemporaryFolder dir;
  write(load_checkpoint(kFamilies / "llama_llama3"), "bf16", dir.path() / "out.gguf");
  const Checkpoint ours = load_checkpoint(dir.path() / "out.gguf");
  const Checkpoint theirs = load_checkpoint(kFamilies / "llama_llama3" / "model.gguf");
  ASSERT_EQ(ours.config.rope_scaling, RopeScaling::divisors);
  ASSERT_EQ(ours.config.rope_divisors.size(), theirs.config.rope_divisors.size());
  for (size_t d = 0; d < ours.config.rope_divisors.size(); ++d) {
    const float expected = theirs.config.rope_divisors[d];
    EXPECT_NEAR(ours.config.rope_divisors[d], expected, 1e-5f * expected) << "plane " << d;
  }
}

// Rows of 30 hold no block: everything falls back to f16, and the result says so.
TEST(CompressGguf, NamesWhatFallsBack) {
  const TemporaryFolder dir;
  const Checkpoint source = load_checkpoint(kFamilies / "qwen2");
  const CompressResult result = write(source, "q4_k", dir.path() / "out.gguf");
  ASSERT_EQ(result.notes.size(), 9u);
  EXPECT_EQ(result.notes[0],
            "blk.*.attn_k.weight (2 tensors) in f16: its width 30 is no multiple of q4_k's block");
  EXPECT_EQ(result.notes[7],
            "output.weight (1 tensor) in f16: its width 30 is no multiple of q6_k's block");
  const Checkpoint back = load_checkpoint(dir.path() / "out.gguf");
  EXPECT_EQ(back.weight("model.layers.0.mlp.down_proj.weight").encoding, kF16);
}

TEST(CompressGguf, CopiesWhatHasTheEncodingAlready) {
  const TemporaryFolder dir;
  const fs::path first = dir.path() / "first.gguf", second = dir.path() / "second.gguf";
  write(load_checkpoint(kFamilies / "llama"), "f16", first);
  write(load_checkpoint(first), "f16", second);
  const Checkpoint a = load_checkpoint(first), b = load_checkpoint(second);
  for (const NamedTensor& tensor : a.tensors) {
    EXPECT_EQ(values(tensor.weight), values(b.weight(tensor.name))) << tensor.name;
  }
}

TEST(CompressGguf, HqqIsNearerInTheMeanThanRoundToNearest) {
  // The family's own widths hold no block of 32.
  const Checkpoint family = load_checkpoint(kFamilies / "llama");
  ModelConfig config = family.config;
  config.width = 64;
  config.ffn_width = 96;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 32;
  ThreadPool pool(2, /*pin=*/false);
  Checkpoint source = random_checkpoint(config, kBF16, kBF16, 1, pool);
  source.tokenizer = family.tokenizer;
  source.files = family.files;  // what the manifest hashes
  const TemporaryFolder folder;
  const auto mean_error = [&](const std::string& recipe) {
    const fs::path file = folder.path() / (recipe + ".gguf");
    write(source, recipe, file);
    const Checkpoint written = load_checkpoint(file);
    double sum = 0;
    size_t count = 0;
    for (const NamedTensor& tensor : source.tensors) {
      if (!tensor.name.starts_with("model.layers.") || tensor.weight.N == 1) continue;
      const Weight& w = written.weight(tensor.name);
      EXPECT_EQ(w.encoding, kQ4_1) << tensor.name;
      const std::vector<float> before = values(tensor.weight), after = values(w);
      for (size_t i = 0; i < before.size(); ++i) sum += std::fabs(before[i] - after[i]);
      count += before.size();
    }
    return sum / static_cast<double>(count);
  };
  EXPECT_LT(mean_error("hqq"), 0.98 * mean_error("q4_1"));
}

TEST(CompressGgufRefuses, NamesThatTheContainerCannotHold) {
  EXPECT_EQ(message_of(ErrorKind::usage, [] { recipe_from_name("int8", 0, Container::gguf); }),
            "recipe 'int8': is none that can be held by a GGUF file, expected one of bf16, f16, "
            "q8_0, q6_k, q4_k, q4_1, q4_0, hqq");
  EXPECT_EQ(message_of(ErrorKind::usage, [] { recipe_from_name("q2_k", 0, Container::gguf); }),
            "recipe 'q2_k': unknown for a GGUF file, expected one of bf16, f16, q8_0, q6_k, q4_k, "
            "q4_1, q4_0, hqq");
  EXPECT_EQ(message_of(ErrorKind::usage, [] { recipe_from_name("q4_k"); }),
            "recipe q4_k: a Hugging Face folder cannot hold it, expected bf16, f32, int8, llm-int8, "
            "int4, int3, int2, fp8, fp8-tensor, fp8-block, fp8-deepseek, nf4, nf4-dq, fp4, fp4-dq, codebook, "
            "sparse-24, magnitude-24, random-24, gqa-mean, gqa-aligned, off-grid, off-grid-f32, or an output "
            "named *.gguf");
  EXPECT_EQ(message_of(ErrorKind::usage, [] { recipe_from_name("q4_0", 64, Container::gguf); }),
            "recipe q4_0: has no groups, found --group 64");
}

TEST(CompressGgufRefuses, WhatGgufCannotSay) {
  const TemporaryFolder dir;
  const fs::path out = dir.path() / "out.gguf";
  const auto refused = [&](const Checkpoint& source) {
    const std::string message = message_of(ErrorKind::usage, [&] { write(source, "bf16", out); });
    EXPECT_TRUE(fs::is_empty(dir.path()));
    return message.substr(message.rfind(": ") + 2);
  };
  EXPECT_EQ(refused(load_checkpoint(kFamilies / "llama_dynamic")), "its RoPE scaling is 'dynamic'");
  Checkpoint qwen2 = load_checkpoint(kFamilies / "qwen2");
  qwen2.config.rope_scaling = RopeScaling::llama3;
  EXPECT_EQ(refused(qwen2), "RoPE scaling 'llama3' (rope_freqs.weight) in architecture qwen2");
  qwen2 = load_checkpoint(kFamilies / "qwen2");
  qwen2.config.head_dim = 8;
  EXPECT_EQ(refused(qwen2), "3 heads of 8 are not its width, 30, in architecture qwen2");
  Checkpoint llama = load_checkpoint(kFamilies / "llama");
  llama.tokenizer.normalizes_nfc = true;
  message_of(ErrorKind::usage, [&] { write(llama, "bf16", out); });
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(CompressGgufRefuses, AnOutputThatExists) {
  const TemporaryFolder dir;
  const Checkpoint source = load_checkpoint(kFamilies / "llama");
  const fs::path out = dir.path() / "out.gguf";
  std::ofstream(out) << "mine";
  const std::string expected = "exists already, expected the name of a new file";
  EXPECT_EQ(message_of(ErrorKind::usage, [&] { write(source, "bf16", out); }),
            out.string() + ": " + expected);
  fs::create_symlink("nowhere", dir.path() / "link.gguf");
  for (const fs::path& path : {dir.path(), dir.path() / "link.gguf", fs::path("/dev/full")}) {
    message_of(ErrorKind::usage, [&] { write(source, "bf16", path); });
  }
  EXPECT_EQ(fs::file_size(out), 4u);
}

TEST(CompressGgufRefuses, AFolderThatIsNotThere) {
  const TemporaryFolder dir;
  const Checkpoint source = load_checkpoint(kFamilies / "llama");
  std::ofstream(dir.path() / "file") << "mine";
  for (const char* folder : {"none", "file"}) {
    const fs::path out = dir.path() / folder / "out.gguf";
    const std::string message = message_of(ErrorKind::system, [&] { write(source, "bf16", out); });
    EXPECT_TRUE(message.starts_with(out.string() + ": cannot create: ")) << message;
  }
}

TEST(CompressGgufRefuses, AWeightBeyondTheTypesRange) {
  const TemporaryFolder dir;
  Checkpoint source = load_checkpoint(kFamilies / "llama");
  const std::string name = "model.layers.1.self_attn.q_proj.weight";
  std::vector<float> large(30 * 30, 0.5f);
  large[65] = 70000.0f;
  for (NamedTensor& tensor : source.tensors) {
    if (tensor.name == name) {
      tensor.weight.encoding = kF32;
      tensor.weight.data = reinterpret_cast<const std::byte*>(large.data());
    }
  }
  const std::string message =
      message_of(ErrorKind::bad_file, [&] { write(source, "q8_0", dir.path() / "out.gguf"); });
  EXPECT_NE(message.find("'blk.1.attn_q.weight': row 4 has a weight"), std::string::npos)
      << message;
  EXPECT_TRUE(fs::is_empty(dir.path()));
  write(source, "bf16", dir.path() / "out.gguf");
}

// A limit on the size of files fails as a full disk does.
TEST(CompressGgufRefuses, ADiskThatIsFull) {
  const TemporaryFolder dir;
  const Checkpoint source = load_checkpoint(kFamilies / "llama");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 40000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message =
      message_of(ErrorKind::system, [&] { write(source, "bf16", dir.path() / "out.gguf"); });
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(message, (dir.path() / "out.gguf").string() + ": cannot write: File too large");
  EXPECT_TRUE(fs::is_empty(dir.path())) << "something was left behind";
}

}  // namespace
}  // namespace tandem
