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

}  // namespace

StepTiming time_steps(const Model& model, const StepTest& test, const StepSettings& settings) {
  if (test.timed_tokens() <= 0 || test.context() > model.config().max_context) {
    fail(ErrorKind::usage,
         "bench: depth {} + prompt {} + new {} tokens; expected at least one to time and at most "
         "{}, the model's context",
         test.depth, test.prompt_tokens, test.new_tokens, model.config().max_context);
  }
  Sequences sequences(model, settings.kv_type, test.sequences, test.context(),
                      settings.step_tokens);
  sequences.append(test.depth);
  StepTiming timing;
  for (int repetition = settings.warm_up ? -1 : 0; repetition < settings.repetitions;
       ++repetition) {
    sequences.rewind(test.depth);
    const int64_t start_ns = now_ns();
    uint64_t bytes = sequences.append(test.prompt_tokens);
    for (int64_t i = 0; i < test.new_tokens; ++i) bytes += sequences.append(1);
    const int64_t elapsed_ns = now_ns() - start_ns;
    timing.bytes_moved = bytes;
    const bool is_warm_up = repetition < 0;
    if (!is_warm_up) timing.samples_ns.push_back(elapsed_ns);
  }
  return timing;
}

}  // namespace tandem
