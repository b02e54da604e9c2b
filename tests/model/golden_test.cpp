// Whole models against what transformers computes in fp32 from the same file: logits, greedy
// answers and perplexity. tests/oracle/ writes the goldens.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <numeric>

#include "base/cpu.h"
#include "base/default_model.h"
#include "base/file.h"
#include "base/json.h"
#include "base/sanitizers.h"
#include "formats/checkpoint.h"
#include "model/model.h"
#include "runtime/engine.h"
#include "text/tokenizer.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

const fs::path kShared = fs::path(TANDEM_SOURCE_DIR).parent_path() / "shared" / "data";

Json golden(const std::string& name) {
  const std::string path = TANDEM_TEST_DIR "/golden/" + name;
  return parse_json(read_text_file(path, 1 << 20), path);
}

// A model file, packed for one instruction set.
struct Loaded {
  Checkpoint checkpoint;
  ThreadPool pool;
  Model model;

  Loaded(const fs::path& path, std::string_view isa)
      : checkpoint(load_checkpoint(path)), pool(usable_cpus()), model(checkpoint, pool, isa) {}
};

// The cache keeps f32 where the kernels are exact, so that nothing but the order of sums differs.
KvType kv_type_of(std::string_view isa) { return isa == "ref" ? KvType::f32 : KvType::bf16; }

std::vector<Ids> greedy(const Model& model, const std::vector<Ids>& prompts, int64_t max_tokens) {
  EngineOptions options;
  options.kv_type = kv_type_of(model.isa());
  options.max_context = std::min<int64_t>(256, model.config().max_context);
  options.max_sequences = static_cast<int64_t>(prompts.size());
  Engine engine(model, options);
  for (size_t i = 0; i < prompts.size(); ++i) {
    engine.submit({.id = i,
                   .prompt = prompts[i],
                   .max_tokens = max_tokens,
                   .sampling = {},
                   .stop_tokens = {},
                   .continues = {}});
  }
  std::vector<Ids> answers(prompts.size());
  engine.run([&](const TokenEvent& event) {
    if (event.token >= 0) answers[event.request_id].push_back(event.token);
  });
  return answers;
}

struct WindowScore {
  double nll = 0;  // mean over the scored positions
  Ids argmax;      // at each of them
};

// Positions `first` to the last but one predict the token after them.
WindowScore score(Scorer& scorer, std::span<const int32_t> tokens, int64_t first, int64_t V) {
  WindowScore out;
  scorer.score(tokens, first, [&](int64_t position, const float* logits) {
    if (position + 1 == static_cast<int64_t>(tokens.size())) return;
    const float* best = std::max_element(logits, logits + V);
    out.argmax.push_back(static_cast<int32_t>(best - logits));
    double sum = 0;
    for (int64_t v = 0; v < V; ++v) sum += std::exp(logits[v] - *best);
    out.nll += std::log(sum) + *best - logits[tokens[static_cast<size_t>(position + 1)]];
  });
  out.nll /= static_cast<double>(out.argmax.size());
  return out;
}

void skip_unless_present(const fs::path& path) {
  if (!fs::exists(path)) GTEST_SKIP() << path << " is absent";
}

void skip_unless_runnable(std::string_view isa) {
  if (isa == "ref" && kAddressSanitized) {
    GTEST_SKIP() << "ref takes an hour for this model under AddressSanitizer; its kernels and the "
                    "families' small models are tested there";
  }
  const auto isas = runnable_isas();
  if (std::find(isas.begin(), isas.end(), isa) == isas.end()) {
    GTEST_SKIP() << "this processor does not run " << isa;
  }
}

class Golden : public testing::Test {
 protected:
  void SetUp() override { skip_unless_present(default_model()); }
};

class GoldenOnRef : public Golden {
 protected:
  void SetUp() override {
    Golden::SetUp();
    skip_unless_runnable("ref");
  }
};

// One test body for each instruction set.
class GoldenOn : public Golden, public testing::WithParamInterface<std::string_view> {
 protected:
  void SetUp() override {
    Golden::SetUp();
    skip_unless_runnable(isa());
  }
  std::string_view isa() const { return GetParam(); }
};
std::string isa_name(const testing::TestParamInfo<std::string_view>& info) {
  return std::string(info.param);
}
INSTANTIATE_TEST_SUITE_P(Isa, GoldenOn, testing::Values("ref", "avx2", "avx512"), isa_name);

TEST_F(GoldenOnRef, LogitsAreTransformers) {
  const Json expected = golden("logits/smollm2.json");
  const auto columns = expected["columns"].get<Ids>();
  const Loaded loaded(default_model(), "ref");
  Scorer scorer(loaded.model, KvType::f32, 64);
  double worst = 0;
  for (size_t row = 0; row < expected["tokens"].size(); ++row) {
    const auto tokens = expected["tokens"][row].get<Ids>();
    scorer.score(tokens, 0, [&](int64_t position, const float* logits) {
      const size_t p = static_cast<size_t>(position);
      const auto check = [&](const Ids& ids, const Json& values) {
        for (size_t i = 0; i < ids.size(); ++i) {
          worst = std::max(worst, std::abs(logits[ids[i]] - values[i].get<double>()));
        }
      };
      check(expected["top_ids"][row][p].get<Ids>(), expected["top_logits"][row][p]);
      check(columns, expected["column_logits"][row][p]);
      const int64_t V = loaded.model.config().vocab_size;
      const double mean = std::accumulate(logits, logits + V, 0.0) / static_cast<double>(V);
      EXPECT_NEAR(mean, expected["mean_std"][row][p][0].get<double>(), 1e-3);
    });
  }
  RecordProperty("worst_difference", std::to_string(worst));
  EXPECT_LT(worst, 1e-3);
}

TEST_F(GoldenOnRef, GreedyAnswersAreTransformers) {
  const Json expected = golden("greedy/smollm2.json");
  const auto answers = expected["answers"].get<std::vector<Ids>>();
  const Loaded loaded(default_model(), "ref");
  const auto found = greedy(loaded.model, expected["prompts"].get<std::vector<Ids>>(), 64);
  ASSERT_EQ(answers.size(), 20u);
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(found[i], answers[i]) << "after " << expected["texts"][i];
  }
}

TEST_P(GoldenOn, FirstTwoWindowsOfPerplexity) {
  const Json expected = golden("perplexity/smollm2_wikitext2.json");
  const int64_t first = expected["first"];
  const Loaded loaded(default_model(), isa());
  const int64_t V = loaded.model.config().vocab_size;
  Scorer scorer(loaded.model, kv_type_of(isa()), expected["window"]);
  double nll = 0, nll_expected = 0;
  int64_t agree = 0, count = 0;
  for (size_t w = 0; w < 2; ++w) {
    const WindowScore window = score(scorer, expected["tokens"][w].get<Ids>(), first, V);
    const auto argmax = expected["argmax"][w].get<Ids>();
    ASSERT_EQ(window.argmax.size(), argmax.size());
    for (size_t i = 0; i < argmax.size(); ++i) agree += window.argmax[i] == argmax[i];
    count += static_cast<int64_t>(argmax.size());
    nll += window.nll / 2;
    nll_expected += expected["nll"][w].get<double>() / 2;
  }
  const double perplexity = std::exp(nll), reference = std::exp(nll_expected);
  RecordProperty("perplexity", std::to_string(perplexity));
  RecordProperty("agreement", std::to_string(agree));
  // The fast kernels quantize activations to 8 bits; two windows are 510 tokens, hence the wider
  // bound than for forty.
  EXPECT_NEAR(perplexity, reference, isa() == "ref" ? 0.01 : 0.01 * reference);
  EXPECT_GE(static_cast<double>(agree),
            (isa() == "ref" ? 0.995 : 0.95) * static_cast<double>(count));
}

TEST_F(Golden, FortyWindowsOfPerplexityOnTheBestInstructionSet) {
  const fs::path text_path = kShared / "wikitext-2" / "test.raw";
  if (!fs::exists(text_path)) GTEST_SKIP() << text_path << " is absent";
  const Json expected = golden("perplexity/smollm2_wikitext2.json");
  const size_t window = expected["window"], num_windows = expected["nll"].size();

  std::string text = read_text_file(text_path, 1 << 24);
  if (text.ends_with('\n')) text.pop_back();
  const Loaded loaded(default_model(), best_isa());
  const Ids tokens = Tokenizer(loaded.checkpoint.tokenizer).encode(text);
  ASSERT_EQ(tokens.size(), expected["num_tokens"].get<size_t>());
  Scorer scorer(loaded.model, KvType::bf16, static_cast<int64_t>(window));
  double nll = 0;
  for (size_t w = 0; w < num_windows; ++w) {
    nll += score(scorer, std::span(tokens).subspan(w * window, window), expected["first"],
                 loaded.model.config().vocab_size)
               .nll;
  }
  const double perplexity = std::exp(nll / static_cast<double>(num_windows));
  RecordProperty("perplexity", std::to_string(perplexity));
  const double reference = expected["perplexity"];
  EXPECT_NEAR(perplexity, reference, 0.005 * reference);
}

class Stories : public testing::TestWithParam<std::string_view> {
 protected:
  void SetUp() override {
    skip_unless_present(path());
    skip_unless_runnable(GetParam());
  }
  static fs::path path() { return kShared / "stories260K" / "stories260Ktok512.gguf"; }
};
INSTANTIATE_TEST_SUITE_P(Isa, Stories, testing::Values("ref", "avx2", "avx512"), isa_name);

TEST_P(Stories, TellsItsKnownStory) {
  const Loaded loaded(path(), GetParam());
  const Tokenizer tokenizer(loaded.checkpoint.tokenizer);
  const Ids prompt = tokenizer.encode_prompt("Once upon a time");
  const Ids answer = greedy(loaded.model, {prompt}, 80).front();
  Ids all = prompt;
  all.insert(all.end(), answer.begin(), answer.end());
  const std::string story = tokenizer.decode(all);
  EXPECT_NE(
      story.find("Once upon a time, there was a little girl named Lily. She loved to play outside "
                 "in the park. One day, she saw a big, red ball."),
      std::string::npos)
      << story;
}

}  // namespace
}  // namespace tandem
