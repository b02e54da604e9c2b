// A recipe over a small random model from end to end: the folder, resumption, what is refused.
#include "compress/compress_steps.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "base/error_message.h"
#include "base/json.h"
#include "compress/compress.h"
#include "formats/random_checkpoint.h"
#include "formats/temporary_folder.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGptq = "[[step]]\nmethod = \"gptq\"\ngroup = 32\n";

class CompressStepsTest : public testing::Test {
 protected:
  CompressStepsTest() {
    ModelConfig config;
    config.family = "llama";
    config.name = "toy";
    config.num_layers = 3;
    config.width = 64;
    config.num_heads = 4;
    config.num_kv_heads = 2;
    config.head_dim = 16;
    config.ffn_width = 96;
    config.vocab_size = 40;
    config.max_context = 128;
    source_ = random_checkpoint(config, kBF16, kBF16, 3, pool_);
    source_.path = "toy";
    source_.tokenizer.pre_tokenizer = "smollm";
    for (int i = 0; i < 40; ++i) source_.tokenizer.tokens.push_back(std::string(1, static_cast<char>('A' + i)));
    source_.tokenizer.types.assign(40, TokenType::normal);
    source_.tokenizer.eos_id = 0;
    source_.files.push_back(folder_file("weights", "any"));
    rows_.length = 32;
    for (int i = 0; i < 8 * 32; ++i) rows_.ids.push_back((i * 7 + i / 5) % 40);
    rows_.source = "rows";
    rows_.hash = "1";
  }

  std::shared_ptr<MappedFile> folder_file(const std::string& name, const std::string& bytes) {
    return std::make_shared<MappedFile>(folder_.write(name, bytes));
  }
  CompressResult run(const std::string& recipe, const std::string& out,
                     const std::function<void(const SequentialProgress&)>& progress = {}) {
    return compress_by_steps(source_, parse_step_recipe(recipe, "r.toml"), &rows_,
                             folder_.path() / out, pool_, progress);
  }
  std::string bytes(const std::string& out) {
    std::ifstream in(folder_.path() / out / "model.safetensors", std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  ThreadPool pool_{2, /*pin=*/false};
  TemporaryFolder folder_;
  Checkpoint source_;
  CalibrationRows rows_;
};

// A field of /proc/self/status, in bytes.
uint64_t memory_field(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    uint64_t kib = 0;
    if (word == field && status >> kib) return kib << 10;
  }
  return 0;
}

double matrix_error(const Weight& a, const Weight& b) {
  std::vector<float> x(static_cast<size_t>(a.K)), y(x.size());
  double sum = 0, all = 0;
  for (int64_t n = 0; n < a.N; ++n) {
    decode_row(a, n, x.data());
    decode_row(b, n, y.data());
    for (size_t k = 0; k < x.size(); ++k) {
      sum += (x[k] - y[k]) * (x[k] - y[k]);
      all += x[k] * x[k];
    }
  }
  return std::sqrt(sum / all);
}

TEST_F(CompressStepsTest, WritesAFolderThatLoads) {
  const CompressResult result = run(kGptq, "out");
  EXPECT_EQ(result.num_layer_weights, 3u * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96));
  const Checkpoint loaded = load_checkpoint(folder_.path() / "out");
  for (const NamedTensor& tensor : source_.tensors) {
    const double error = matrix_error(tensor.weight, loaded.weight(tensor.name));
    if (tensor.name.ends_with("_proj.weight")) {
      EXPECT_EQ(loaded.weight(tensor.name).encoding.bits(), 4) << tensor.name;
      EXPECT_GT(error, 0.02) << tensor.name;
      EXPECT_LT(error, 0.25) << tensor.name;
    } else {
      EXPECT_EQ(error, 0) << tensor.name;
    }
  }
  EXPECT_FALSE(fs::exists(folder_.path() / "out.partial"));
}

TEST_F(CompressStepsTest, GoesOnWhereItWasStopped) {
  run(kGptq, "whole");
  struct Stop {};
  const auto stop_in_layer_2 = [](const SequentialProgress& progress) {
    if (progress.layer == 2 && progress.set == LinearSet::gate_up) throw Stop{};
  };
  EXPECT_THROW(run(kGptq, "out", stop_in_layer_2), Stop);
  EXPECT_FALSE(fs::exists(folder_.path() / "out"));
  EXPECT_TRUE(fs::exists(layer_file(folder_.path() / "out.partial", 1)));
  EXPECT_FALSE(fs::exists(layer_file(folder_.path() / "out.partial", 2)));
  const std::string other = std::string(kGptq) + "bits = 8\n";
  EXPECT_NE(message_of(ErrorKind::usage, [&] { run(other, "out"); })
                .find("holds the finished layers of another source, recipe or calibration"),
            std::string::npos);
  const auto time = fs::last_write_time(layer_file(folder_.path() / "out.partial", 1));
  run(kGptq, "out", [&](const SequentialProgress& progress) {
    if (progress.layer < 2) {
      EXPECT_EQ(progress.share, 0) << "the time that is left is that of the third layer";
    } else {
      EXPECT_EQ(fs::last_write_time(layer_file(folder_.path() / "out.partial", 1)), time);
      EXPECT_EQ(progress.share, static_cast<double>(progress.set) / kNumSets);
    }
  });
  EXPECT_EQ(bytes("out"), bytes("whole"));
}

TEST_F(CompressStepsTest, SkippedMatricesStayAndAreNamed) {
  run(std::string(kGptq) + "[[step.override]]\nmatch = \"*.1.*.down_proj\"\nskip = true\n", "out");
  const Checkpoint loaded = load_checkpoint(folder_.path() / "out");
  EXPECT_EQ(loaded.weight("model.layers.1.mlp.down_proj.weight").encoding, kBF16);
  EXPECT_EQ(loaded.weight("model.layers.0.mlp.down_proj.weight").encoding.bits(), 4);
}

TEST_F(CompressStepsTest, SeveralGridsInOneFolder) {
  const std::string wide = "[[step.override]]\nmatch = \"*.1.*\"\nbits = 8\n";
  run(kGptq + wide, "out");
  const Checkpoint loaded = load_checkpoint(folder_.path() / "out");
  EXPECT_EQ(loaded.weight("model.layers.1.mlp.up_proj.weight").encoding.bits(), 8);
  EXPECT_EQ(loaded.weight("model.layers.2.mlp.up_proj.weight").encoding.bits(), 4);
  for (const char* name : {"model.layers.1.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight"}) {
    EXPECT_LT(matrix_error(source_.weight(name), loaded.weight(name)), 0.25) << name;
  }
  EXPECT_NE(message_of(ErrorKind::usage, [&] { run("format = \"gptq\"\n" + (kGptq + wide), "no"); })
                .find("format gptq holds one number of bits"),
            std::string::npos);
}

TEST_F(CompressStepsTest, EverySetSeesTheCompressedOnesBefore) {
  // Two bits in the first layer change what the last one sees, and so its codes.
  const std::string last_only = std::string(kGptq) + "only = \"*.2.*\"\n";
  run(last_only, "clean");
  run(last_only + "[[step]]\nmethod = \"rtn\"\nbits = 4\ngroup = 32\nonly = \"*.0.*\"\n", "after");
  const Checkpoint clean = load_checkpoint(folder_.path() / "clean");
  const Checkpoint after = load_checkpoint(folder_.path() / "after");
  EXPECT_GT(matrix_error(clean.weight("model.layers.2.mlp.down_proj.weight"),
                         after.weight("model.layers.2.mlp.down_proj.weight")),
            0);
}

TEST_F(CompressStepsTest, MemoryHoldsTheActivationsAndLittleMore) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer keeps what is freed";
#endif
  rows_.length = 64;
  rows_.ids.resize(2048 * 64);
  for (size_t i = 0; i < rows_.ids.size(); ++i) {
    rows_.ids[i] = static_cast<int32_t>((i * 7 + i / 5) % 40);
  }
  const uint64_t before = memory_field("VmRSS:");
  ASSERT_GT(before, 0u);
  run(kGptq, "out");
  const uint64_t grown = memory_field("VmHWM:") - before;
  const uint64_t activations =
      calibration_bytes(source_.config, make_steps(parse_step_recipe(kGptq, "r"), source_.config),
                        rows_);
  EXPECT_EQ(activations, 2048u * 64 * (64 + 96) * sizeof(float));
  EXPECT_GT(grown, activations / 2) << "the measurement sees them";
  EXPECT_LT(grown, activations + (48u << 20));
}

TEST_F(CompressStepsTest, Fp8IsTheRowRecipesToTheByte) {
  for (const auto& [scales, name] : {std::pair{"channel", "fp8"}, std::pair{"tensor", "fp8-tensor"},
                                     std::pair{"block", "fp8-block"}}) {
    const std::string folder = std::string("rows-") + name;
    compress(source_, recipe_from_name(name), folder_.path() / folder, pool_, {});
    run(fmt::format("activations = \"dynamic\"\n[[step]]\nmethod = \"fp8\"\nscales = \"{}\"\n",
                    scales),
        name);
    EXPECT_EQ(bytes(name), bytes(folder)) << name;
    const char* down = "model.layers.1.mlp.down_proj.weight";
    const Checkpoint by_rows = load_checkpoint(folder_.path() / folder);
    EXPECT_EQ(load_checkpoint(folder_.path() / name).weight(down).encoding,
              by_rows.weight(down).encoding);
  }
}

TEST_F(CompressStepsTest, Fp8MeetsWhatTheRecipeSays) {
  const std::string fp8 = "[[step]]\nmethod = \"fp8\"\n";
  run(fp8, "plain");
  const char* name = "model.layers.2.mlp.up_proj.weight";
  EXPECT_EQ(load_checkpoint(folder_.path() / "plain").weight(name).encoding,
            fp8_weight(ScaleType::bf16));
  run("activations = \"static\"\n" + fp8, "static");
  const Checkpoint fixed = load_checkpoint(folder_.path() / "static");
  EXPECT_EQ(fixed.weight(name).encoding, fp8_static(ScaleType::bf16));
  // gate and up share their inputs, whose largest magnitude is 448 times the scale.
  const float scale = fixed.weight(name).input_scale;
  EXPECT_EQ(fixed.weight("model.layers.2.mlp.gate_proj.weight").input_scale, scale);
  EXPECT_GT(scale * 448, 0.5f);
  EXPECT_LT(scale * 448, 50.0f);
  const auto refusal = [&](const std::string& recipe) {
    return message_of(ErrorKind::usage, [&] { run(recipe, "out"); });
  };
  EXPECT_EQ(refusal("activations = \"static\"\n" + fp8 + "scales = \"block\"\n"),
            "r.toml:4: fp8 with scales \"block\" meets activations \"dynamic\", found 'static'");
  EXPECT_EQ(refusal("format = \"gptq\"\n" + fp8),
            "r.toml:2: fp8 in format gptq, expected compressed-tensors");
}

TEST_F(CompressStepsTest, Fp8BesideIntegersInOneFolder) {
  const std::string text =
      "[[step]]\nmethod = \"fp8\"\nonly = \"*.mlp.*\"\n"
      "[[step]]\nmethod = \"gptq\"\ngroup = 32\nonly = \"*.self_attn.*\"\n";
  run(text, "out");
  const Checkpoint loaded = load_checkpoint(folder_.path() / "out");
  for (const auto& [name, encoding] :
       {std::pair{"model.layers.1.mlp.up_proj.weight", fp8_weight(ScaleType::bf16)},
        std::pair{"model.layers.1.self_attn.v_proj.weight", int4_group(32, ScaleType::bf16)}}) {
    EXPECT_EQ(loaded.weight(name).encoding, encoding);
    EXPECT_LT(matrix_error(source_.weight(name), loaded.weight(name)), 0.25) << name;
  }
}

TEST_F(CompressStepsTest, Refusals) {
  const std::string two = std::string(kGptq) + "[[step]]\nmethod = \"rtn\"\ngroup = 32\n";
  EXPECT_NE(message_of(ErrorKind::usage, [&] { run(two, "out"); })
                .find("2 steps quantize model.layers.0.self_attn.q_proj, expected at most one"),
            std::string::npos);
  const auto refusal = [&](const std::string& recipe) {
    return message_of(ErrorKind::usage, [&] { run(recipe, "out"); });
  };
  EXPECT_EQ(refusal("[[step]]\nmethod = \"gptq\"\ngroup = 64\n"),
            "r.toml:3: gptq: option 'group' is 64, which does not divide the 96 input channels of "
            "model.layers.0.mlp.down_proj");
  EXPECT_NE(refusal(std::string(kGptq) + "[[step.override]]\nmatch = \"*.9.*\"\nskip = true\n")
                .find("'*.9.*' matches none of the model's matrices"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder_.path() / "out"));
  EXPECT_FALSE(fs::exists(folder_.path() / "out.partial"));
  fs::create_directory(folder_.path() / "full");
  std::ofstream(folder_.path() / "full" / "x") << 1;
  EXPECT_NE(message_of(ErrorKind::usage, [&] { run(kGptq, "full"); }).find("is not empty"),
            std::string::npos);
}

}  // namespace
}  // namespace tandem
