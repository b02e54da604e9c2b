#include "study/evals/evaluate.h"

#include <algorithm>

#include "study/evals/agreement.h"

namespace tandem {
namespace {

// Logits of a window's scored positions, [scored, V], and their log_sum_exp.
struct WindowLogits {
  std::vector<float> rows;
  std::vector<double> log_sums;
};

WindowLogits keep_logits(const LogitSource& model, const ScoredSpan& window, int64_t V) {
  WindowLogits kept;
  const std::span<const int32_t> read(window.tokens.data(), window.tokens.size() - 1);
  model(read, window.first, [&](int64_t, const float* logits) {
    kept.rows.insert(kept.rows.end(), logits, logits + V);
    kept.log_sums.push_back(log_sum_exp(logits, V));
  });
  return kept;
}

}  // namespace

TextResult evaluate_text(const LogitSource& model, const LogitSource& baseline,
                         const std::vector<ScoredSpan>& windows, int64_t V,
                         const EvalProgress& progress) {
  std::vector<double> nll, differences, kl, same_top;
  size_t done = 0;
  for (const ScoredSpan& window : windows) {
    const WindowLogits reference = baseline ? keep_logits(baseline, window, V) : WindowLogits{};
    const std::span<const int32_t> read(window.tokens.data(), window.tokens.size() - 1);
    model(read, window.first, [&](int64_t position, const float* logits) {
      const double log_sum = log_sum_exp(logits, V);
      const int32_t next = window.tokens[static_cast<size_t>(position + 1)];
      nll.push_back(log_sum - static_cast<double>(logits[next]));
      if (!baseline) return;
      const int64_t row = position - window.first;
      const double baseline_nll =
          reference.log_sums[static_cast<size_t>(row)] -
          static_cast<double>(reference.rows[static_cast<size_t>(row * V + next)]);
      differences.push_back(nll.back() - baseline_nll);
      const PositionAgreement found =
          agreement(reference.rows.data() + row * V, reference.log_sums[static_cast<size_t>(row)],
                    logits, log_sum, V);
      kl.push_back(found.kl_divergence);
      same_top.push_back(found.same_top ? 1 : 0);
    });
    if (progress) progress(++done, windows.size());
  }
  TextResult result;
  result.num_windows = static_cast<int64_t>(windows.size());
  result.num_scored = static_cast<int64_t>(nll.size());
  result.perplexity = perplexity(nll);
  if (baseline) {
    result.log_ratio = mean_error(differences);
    result.kl_divergence = mean_error(kl);
    result.top1_agreement = mean_error(same_top);
  }
  return result;
}

TaskResult evaluate_task(const LogitSource& model, const Tokenizer& tokenizer,
                         std::span<const TaskItem> items, bool add_bos, int64_t max_tokens,
                         int64_t V, const EvalProgress& progress) {
  std::vector<double> acc, acc_norm, acc_bytes, nll;
  size_t done = 0;
  for (const TaskItem& item : items) {
    std::vector<PairScore> scores;
    for (const std::string& choice : item.choices) {
      const PairTokens pair =
          encode_pair(tokenizer, item.context, " " + choice, add_bos, max_tokens);
      scores.push_back(score_pair(model, pair, V));
    }
    if (scores.size() == 1) {
      acc.push_back(scores[0].is_greedy ? 1 : 0);
      nll.push_back(-scores[0].log_likelihood);
    } else {
      const ChoiceResult result = judge(item, scores);
      acc.push_back(result.right ? 1 : 0);
      acc_norm.push_back(result.right_by_character ? 1 : 0);
      acc_bytes.push_back(result.right_by_byte ? 1 : 0);
    }
    if (progress) progress(++done, items.size());
  }
  TaskResult result;
  result.num_items = static_cast<int64_t>(items.size());
  result.acc = mean_error(acc);
  if (!acc_norm.empty()) {
    result.acc_norm = mean_error(acc_norm);
    result.acc_bytes = mean_error(acc_bytes);
  }
  if (!nll.empty()) result.perplexity = perplexity(nll);
  return result;
}

}  // namespace tandem
