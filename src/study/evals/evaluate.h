// A model and a text or a task -> figures with their standard errors.
#pragma once

#include <functional>
#include <optional>

#include "base/thread_pool.h"
#include "study/evals/loglikelihood.h"
#include "study/evals/protocol.h"

namespace tandem {

// Heard after each window or item: how many are done, of how many.
using EvalProgress = std::function<void(size_t done, size_t total)>;

struct TextResult {
  int64_t num_windows = 0, num_scored = 0;
  MeanError perplexity;
  // Against the baseline, where there is one.
  // ln(perplexity / the baseline's): the mean difference of the same tokens' negative
  // log-likelihoods, whose error is smaller than that of two perplexities apart.
  std::optional<MeanError> log_ratio;
  std::optional<MeanError> kl_divergence;   // nats a token
  std::optional<MeanError> top1_agreement;  // 0 to 1
};

// baseline: null, or the model whose logits the same windows are compared with; both models' logits
// of one window are then in memory, and `pool`, where given, compares them.
TextResult evaluate_text(const LogitSource& model, const LogitSource& baseline,
                         const std::vector<ScoredSpan>& windows, int64_t V,
                         const EvalProgress& progress, ThreadPool* pool = nullptr);

struct TaskResult {
  int64_t num_items = 0;
  MeanError acc;  // items of one choice: greedy decoding writes it
  // Items of several choices.
  std::optional<MeanError> acc_norm, acc_bytes;
  // Items of one choice: exp(mean negative log-likelihood of an item).
  std::optional<MeanError> perplexity;
  // 1 or 0 an item, in order: acc_norm's where there are several choices, else acc's.
  std::vector<double> headline;
};

// Each choice follows its context after one space.
TaskResult evaluate_task(const LogitSource& model, const Tokenizer& tokenizer,
                         std::span<const TaskItem> items, bool add_bos, int64_t max_tokens,
                         int64_t V, const EvalProgress& progress);

}  // namespace tandem
