// Tiny models of every family, from folders and from GGUF files, against the logits that transformers
// computes in fp32. tests/oracle/families_oracle.py writes them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "formats/checkpoint.h"
#include "formats/safetensors.h"
#include "model/model.h"
#include "runtime/engine.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

struct Golden {
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // [tokens, columns]: every fourth column
  int64_t columns = 0;
};

Golden read_golden(const fs::path& folder) {
  const MappedFile file(folder / "logits.safetensors");
  const SafetensorsFile tensors = parse_safetensors(file.bytes(), "logits.safetensors");
  Golden golden;
  for (const SafetensorsEntry& entry : tensors.tensors) {
    if (entry.name == "tokens") {
      std::vector<int64_t> ids(static_cast<size_t>(entry.shape[0]));
      std::memcpy(ids.data(), entry.bytes.data(), entry.bytes.size());
      golden.tokens.assign(ids.begin(), ids.end());
    } else {
      golden.columns = entry.shape[1];
      golden.logits.resize(entry.bytes.size() / sizeof(float));
      std::memcpy(golden.logits.data(), entry.bytes.data(), entry.bytes.size());
    }
  }
  return golden;
}

// Largest difference from the golden, in standard deviations of its logits.
double worst_difference(const Model& model, const Golden& golden) {
  double sum = 0, squares = 0;
  for (const float x : golden.logits) sum += x, squares += static_cast<double>(x) * x;
  const double n = static_cast<double>(golden.logits.size());
  const double deviation = std::sqrt(squares / n - sum / n * (sum / n));
  double worst = 0;
  Scorer scorer(model, KvType::f32, static_cast<int64_t>(golden.tokens.size()));
  scorer.score(golden.tokens, 0, [&](int64_t position, const float* logits) {
    for (int64_t c = 0; c < golden.columns; ++c) {
      const float want = golden.logits[static_cast<size_t>(position * golden.columns + c)];
      worst = std::max(worst, std::fabs(static_cast<double>(logits[4 * c]) - want));
    }
  });
  return worst / deviation;
}

class Families : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(Families, LogitsAreTransformers) {
  const auto [isa, file] = GetParam();
  const auto isas = runnable_isas();
  if (std::find(isas.begin(), isas.end(), isa) == isas.end()) {
    GTEST_SKIP() << "this processor does not run " << isa;
  }
  const fs::path path = fs::path(TANDEM_TEST_DIR) / "golden" / "families" / file;
  const fs::path folder = fs::is_directory(path) ? path : path.parent_path();
  const Checkpoint checkpoint = load_checkpoint(path);
  ThreadPool pool(2);
  const Model model(checkpoint, pool, isa);
  const double worst = worst_difference(model, read_golden(folder));
  RecordProperty("worst_difference", std::to_string(worst));
  // Plain weights meet f32 activations in every set, so sums differ in their order only.
  EXPECT_LT(worst, 1e-3);
}

INSTANTIATE_TEST_SUITE_P(
    All, Families,
    testing::Combine(testing::Values("ref", "avx2", "avx512"),
                     testing::Values("llama", "llama_tied", "llama_llama3", "llama_linear",
                                     "llama_dynamic", "mistral", "qwen2", "qwen2_sharded", "qwen3",
                                     "phi3", "llama_bias", "llama_old", "qwen15", "qwen2_window",
                                     "qwen3_window", "llama_llama3/model.gguf",
                                     "llama_linear/model.gguf", "llama_bias/model.gguf",
                                     "qwen2/model.gguf", "qwen3/model.gguf", "phi3/model.gguf")),
    [](const auto& test) {
      std::string name = fmt::format("{}_{}", std::get<0>(test.param), std::get<1>(test.param));
      std::replace_if(name.begin(), name.end(), [](char c) { return c == '/' || c == '.'; }, '_');
      return name;
    });

}  // namespace
}  // namespace tandem
