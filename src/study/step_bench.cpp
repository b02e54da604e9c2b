#include "study/step_bench.h"

#include <algorithm>
#include <numeric>

#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"
#include "runtime/kv_store.h"

namespace tandem {
namespace {

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// Sequences of equal length, each with its own run of pages.
class Sequences {
 public:
  Sequences(const Model& model, KvType kv_type, int64_t count, int64_t max_context,
            int64_t step_tokens)
      : model_(model),
        count_(count),
        max_step_tokens_(std::max(count, std::min(step_tokens, count * max_context))),
        store_(model.kv_layout(kv_type), count * pages_for(max_context), model.device()),
        workspace_(model.make_workspace(max_step_tokens_, count, count * pages_for(max_context))),
        tokens_(static_cast<size_t>(max_step_tokens_)),
        positions_(static_cast<size_t>(max_step_tokens_)),
        pages_(static_cast<size_t>(count * pages_for(max_context))),
        pages_each_(pages_for(max_context)) {
    std::iota(pages_.begin(), pages_.end(), 0);
    batch_.tokens = tokens_.data();
    batch_.positions = positions_.data();
  }

  // Forgets the tokens from `context` on.
  void rewind(int64_t context) { context_ = context; }

  // Appends num_tokens random tokens to every sequence, in as few steps as fit. Returns the bytes
  // that these steps read.
  uint64_t append(int64_t num_tokens) {
    uint64_t bytes = 0;
    for (int64_t done = 0; done < num_tokens;) {
      const int64_t tokens = std::min(num_tokens - done, max_step_tokens_ / count_);
      step(tokens);
      done += tokens;
      bytes += model_.step_read_bytes() +
               static_cast<uint64_t>(count_ * context_ * store_.layout().token_bytes());
    }
    return bytes;
  }

 private:
  void step(int64_t num_tokens) {
    batch_.T = count_ * num_tokens;
    batch_.sequences.clear();
    batch_.logit_rows.clear();
    const auto vocab_size = static_cast<uint64_t>(model_.config().vocab_size);
    for (int64_t s = 0; s < count_; ++s) {
      const int64_t first = s * num_tokens;
      for (int64_t i = 0; i < num_tokens; ++i) {
        tokens_[static_cast<size_t>(first + i)] = static_cast<int32_t>(random_.below(vocab_size));
        positions_[static_cast<size_t>(first + i)] = static_cast<int32_t>(context_ + i);
      }
      batch_.sequences.push_back(
          {first, num_tokens, context_ + num_tokens, pages_.data() + s * pages_each_});
      batch_.logit_rows.push_back(static_cast<int32_t>(first + num_tokens - 1));
    }
    context_ += num_tokens;
    model_.forward(batch_, store_.cache(), *workspace_);
    // A device's step ends, as a greedy answer's does, with its tokens on the host.
    if (model_.device() != nullptr) model_.greedy_tokens(*workspace_, count_);
  }

  const Model& model_;
  const int64_t count_;
  const int64_t max_step_tokens_;
  int64_t context_ = 0;
  KvStore store_;
  Model::WorkspacePtr workspace_;
  std::vector<int32_t> tokens_;     // [max_step_tokens]
  std::vector<int32_t> positions_;  // [max_step_tokens]
  std::vector<int32_t> pages_;      // [count, pages_each]
  const int64_t pages_each_;
  Batch batch_;
  Random random_{1};
};

// A test and the sequences it repeats on, at its depth.
class TestRun {
 public:
  TestRun(const Model& model, const StepTest& test, const StepSettings& settings)
      : test_(checked(model, test)),
        sequences_(model, settings.kv_type, test.sequences, test.context(), settings.step_tokens) {
    sequences_.append(test.depth);
  }
  // Returns the bytes that its steps read at least.
  uint64_t repeat() {
    sequences_.rewind(test_.depth);
    uint64_t bytes = sequences_.append(test_.prompt_tokens);
    for (int64_t i = 0; i < test_.new_tokens; ++i) bytes += sequences_.append(1);
    return bytes;
  }
  // Repeats for at least so many seconds. Returns how often.
  int64_t repeat_for(double seconds) {
    const int64_t start_ns = now_ns();
    int64_t count = 0;
    do {
      repeat();
      ++count;
    } while (seconds_since(start_ns) < seconds);
    return count;
  }

 private:
  static const StepTest& checked(const Model& model, const StepTest& test) {
    if (test.timed_tokens() > 0 && test.context() <= model.config().max_context) return test;
    fail(ErrorKind::usage,
         "bench: depth {} + prompt {} + new {} tokens; expected at least one to time and at most "
         "{}, the model's context",
         test.depth, test.prompt_tokens, test.new_tokens, model.config().max_context);
  }

  StepTest test_;
  Sequences sequences_;
};

constexpr double kWarmUpSeconds = 1.0;  // from idle clocks to those of steady work

}  // namespace

StepTiming time_steps(const Model& model, const StepTest& test, const StepSettings& settings) {
  TestRun run(model, test, settings);
  StepTiming timing;
  for (int repetition = settings.warm_up ? -1 : 0; repetition < settings.repetitions;
       ++repetition) {
    const int64_t start_ns = now_ns();
    timing.bytes_moved = run.repeat();
    const int64_t elapsed_ns = now_ns() - start_ns;
    const bool is_warm_up = repetition < 0;
    if (!is_warm_up) timing.samples_ns.push_back(elapsed_ns);
  }
  return timing;
}

EnergyPoint measure_step_energy(const Model& model, const StepTest& test,
                                const StepSettings& settings, EnergyMeter& meter,
                                const EnergyWindows& windows) {
  TestRun run(model, test, settings);
  return measure_energy(meter, windows, [&] {
    run.repeat_for(kWarmUpSeconds);
    WorkWindow window;
    meter.start();
    const int64_t start_ns = now_ns();
    window.tokens = run.repeat_for(windows.work_seconds) * test.timed_tokens();
    window.seconds = seconds_since(start_ns);
    window.reading = meter.stop();
    return window;
  });
}

}  // namespace tandem
