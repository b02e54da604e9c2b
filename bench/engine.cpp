// The speed of the model's step alone, measured as llama-bench does: no tokenizer, no sampler, random
// tokens, an empty cache at the start of every repetition, one warm-up of each kind. One JSON document
// on stdout: prefill of -p tokens and decode of -n tokens, for -b sequences at once.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/json.h"
#include "base/random.h"
#include "base/version.h"
#include "formats/checkpoint.h"
#include "model/model.h"

namespace tandem {
namespace {

constexpr int64_t kChunkTokens = 512;  // tokens of a prefill step

struct Options {
  std::string model;
  int64_t prompt_tokens = 512;
  int64_t new_tokens = 64;
  int64_t sequences = 1;
  int threads = 0;
  int repetitions = 5;
  std::string kv = "bf16";
  std::string isa;
};

KvType kv_type_from(const std::string& name) {
  for (const KvType type : {KvType::f32, KvType::bf16, KvType::int8}) {
    if (name == kv_type_name(type)) return type;
  }
  fail(ErrorKind::usage, "--kv: found {}, expected f32, bf16 or int8", quote(name));
}

// Sequences of equal length, each with its own run of pages.
class Sequences {
 public:
  Sequences(const Model& model, KvType kv_type, int64_t count, int64_t max_context)
      : model_(model),
        count_(count),
        pages_each_((max_context + kPageTokens - 1) / kPageTokens),
        max_step_tokens_(std::max(count, std::min(max_context, kChunkTokens))),
        workspace_(model.make_workspace(max_step_tokens_, count)),
        tokens_(max_step_tokens_),
        positions_(max_step_tokens_),
        pages_(count * pages_each_) {
    cache_.layout = model.kv_layout(kv_type);
    memory_ = Buffer(static_cast<size_t>(count * pages_each_ * cache_.layout.page_bytes()));
    cache_.base = memory_.data();
    for (size_t i = 0; i < pages_.size(); ++i) pages_[i] = static_cast<int32_t>(i);
    batch_.tokens = tokens_.data();
    batch_.positions = positions_.data();
  }

  void clear() { context_ = 0; }

  // Appends num_tokens random tokens to every sequence in one step; logits of each one's last.
  void step(int64_t num_tokens, Random& random) {
    batch_.T = count_ * num_tokens;
    CHECK(batch_.T <= max_step_tokens_, "{} tokens, at most {}", batch_.T, max_step_tokens_);
    batch_.sequences.clear();
    batch_.logit_rows.clear();
    const auto vocab_size = static_cast<uint64_t>(model_.config().vocab_size);
    for (int64_t s = 0; s < count_; ++s) {
      const int64_t first = s * num_tokens;
      for (int64_t i = 0; i < num_tokens; ++i) {
        tokens_[first + i] = static_cast<int32_t>(random.below(vocab_size));
        positions_[first + i] = static_cast<int32_t>(context_ + i);
      }
      batch_.sequences.push_back(
          {first, num_tokens, context_ + num_tokens, pages_.data() + s * pages_each_});
      batch_.logit_rows.push_back(static_cast<int32_t>(first + num_tokens - 1));
    }
    context_ += num_tokens;
    model_.forward(batch_, cache_, *workspace_);
  }

  int64_t max_step_tokens() const { return max_step_tokens_; }

 private:
  const Model& model_;
  int64_t count_;
  int64_t pages_each_;
  int64_t max_step_tokens_;
  int64_t context_ = 0;
  Model::WorkspacePtr workspace_;
  Buffer memory_;
  KvCache cache_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> pages_;
  Batch batch_;
};

// Tokens a second, over all sequences, of each repetition of `tokens_each` in steps of step_tokens.
std::vector<double> measure(Sequences& sequences, const Options& options, int64_t tokens_each,
                            int64_t step_tokens) {
  Random random(1);
  std::vector<double> samples;
  for (int repetition = -1; repetition < options.repetitions; ++repetition) {
    sequences.clear();
    const int64_t start_ns = now_ns();
    for (int64_t done = 0; done < tokens_each; done += step_tokens) {
      sequences.step(std::min(step_tokens, tokens_each - done), random);
    }
    const double seconds = seconds_since(start_ns);
    const bool is_warm_up = repetition < 0;
    if (!is_warm_up) {
      samples.push_back(static_cast<double>(tokens_each * options.sequences) / seconds);
    }
  }
  return samples;
}

Json result_json(const std::string& name, int64_t tokens, std::vector<double> samples) {
  Json json = {{"name", name}, {"tokens", tokens}, {"samples_tokens_per_second", samples}};
  std::sort(samples.begin(), samples.end());
  json["median_tokens_per_second"] =
      (samples[samples.size() / 2] + samples[(samples.size() - 1) / 2]) / 2;
  return json;
}

int bench_engine(const Options& options) {
  if (options.threads < 0 || options.repetitions < 1 || options.sequences < 1 ||
      options.prompt_tokens < 0 || options.new_tokens < 0) {
    fail(ErrorKind::usage, "-r and -b must be at least 1; -t, -p and -n must not be negative");
  }
  const Checkpoint checkpoint = load_checkpoint(options.model);
  ThreadPool pool(options.threads > 0 ? options.threads : usable_cpus());
  const std::string isa = options.isa.empty() ? std::string(best_isa()) : options.isa;
  require_isa(isa);
  const Model model(checkpoint, pool, isa);
  const KvType kv_type = kv_type_from(options.kv);

  Json results = Json::array();
  const int64_t max_context = std::max<int64_t>({options.prompt_tokens, options.new_tokens, 1});
  Sequences sequences(model, kv_type, options.sequences, max_context);
  if (options.prompt_tokens > 0) {
    const int64_t step_tokens = sequences.max_step_tokens() / options.sequences;
    results.push_back(result_json(fmt::format("pp{}", options.prompt_tokens), options.prompt_tokens,
                                  measure(sequences, options, options.prompt_tokens, step_tokens)));
  }
  if (options.new_tokens > 0) {
    Json result = result_json(fmt::format("tg{}", options.new_tokens), options.new_tokens,
                              measure(sequences, options, options.new_tokens, 1));
    const double steps_per_second =
        result["median_tokens_per_second"].get<double>() / static_cast<double>(options.sequences);
    result["weight_gigabytes_per_second"] =
        steps_per_second * static_cast<double>(model.step_read_bytes()) * 1e-9;
    results.push_back(std::move(result));
  }
  const Json document = {{"program", fmt::format("tandem {} ({})", version(), commit())},
                         {"cpu", cpu_features().model_name},
                         {"model", options.model},
                         {"isa", isa},
                         {"kernels", model.kernels_in_use()},
                         {"kv", options.kv},
                         {"threads", pool.size()},
                         {"sequences", options.sequences},
                         {"weight_bytes", model.weight_bytes()},
                         {"step_read_bytes", model.step_read_bytes()},
                         {"results", results}};
  std::puts(dump_json(document, 2).c_str());
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  CLI::App app("Prefill and decode speed of the model's step, as JSON");
  tandem::Options options;
  app.add_option("-m,--model", options.model, "model file or folder")->required();
  app.add_option("-p,--prompt-tokens", options.prompt_tokens, "prefill of this many tokens; 0: none");
  app.add_option("-n,--new-tokens", options.new_tokens, "decode of this many tokens; 0: none");
  app.add_option("-b,--sequences", options.sequences, "sequences at once");
  app.add_option("-t,--threads", options.threads, "threads; 0: every CPU this process may use");
  app.add_option("-r,--repetitions", options.repetitions, "samples of each");
  app.add_option("--kv", options.kv, "type of the KV cache: f32, bf16, int8");
  app.add_option("--isa", options.isa, "kernel set: ref, avx2, avx512; default: the best that runs");
  CLI11_PARSE(app, argc, argv);
  try {
    return tandem::bench_engine(options);
  } catch (const tandem::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return tandem::exit_code(error.kind);
  }
}
