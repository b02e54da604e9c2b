#include "study/evals/evaluate.h"

#include <algorithm>

#include "study/evals/agreement.h"

namespace tandem {
namespace {

// Logits of a window's scored positions, [scored, V].
std::vector<float> keep_logits(const LogitSource& model, const ScoredSpan& window, int64_t V) {
  std::vector<float> rows;
  const std::span<const int32_t> read(window.tokens.data(), window.tokens.size() - 1);
  model(read, window.first, [&](int64_t, const float* logits) {
    rows.insert(rows.end(), logits, logits + V);
  });
  return rows;
}

// What the two models' logits of one position say of the token that follows.
struct PositionScore {
  double nll = 0, baseline_nll = 0;
  PositionAgreement agreement;
};

PositionScore compare(const float* baseline, const float* logits, int32_t next, int64_t V) {
  const double log_sum = log_sum_exp(logits, V), baseline_sum = log_sum_exp(baseline, V);
  return {log_sum - static_cast<double>(logits[next]),
          baseline_sum - static_cast<double>(baseline[next]),
          agreement(baseline, baseline_sum, logits, log_sum, V)};
}

std::vector<PositionScore> compare_window(const LogitSource& model, const LogitSource& baseline,
                                          const ScoredSpan& window, int64_t V, ThreadPool* pool) {
  const std::vector<float> reference = keep_logits(baseline, window, V);
  const std::vector<float> variant = keep_logits(model, window, V);
  std::vector<PositionScore> scores(variant.size() / static_cast<size_t>(V));
  const auto compare_rows = [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int32_t next = window.tokens[static_cast<size_t>(window.first + row + 1)];
      scores[static_cast<size_t>(row)] =
          compare(reference.data() + row * V, variant.data() + row * V, next, V);
    }
  };
  const auto count = static_cast<int64_t>(scores.size());
  if (pool != nullptr) {
    pool->parallel_for(count, 8, compare_rows);
  } else {
    compare_rows(0, count, 0);
  }
  return scores;
}

}  // namespace

TextResult evaluate_text(const LogitSource& model, const LogitSource& baseline,
                         const std::vector<ScoredSpan>& windows, int64_t V,
                         const EvalProgress& progress, ThreadPool* pool) {
  std::vector<double> nll, differences, kl, same_top;
  size_t done = 0;
  for (const ScoredSpan& window : windows) {
    if (baseline) {
      for (const PositionScore& score : compare_window(model, baseline, window, V, pool)) {
        nll.push_back(score.nll);
        differences.push_back(score.nll - score.baseline_nll);
        kl.push_back(score.agreement.kl_divergence);
        same_top.push_back(score.agreement.same_top ? 1 : 0);
      }
    } else {
      const std::span<const int32_t> read(window.tokens.data(), window.tokens.size() - 1);
      model(read, window.first, [&](int64_t position, const float* logits) {
        const int32_t next = window.tokens[static_cast<size_t>(position + 1)];
        nll.push_back(log_sum_exp(logits, V) - static_cast<double>(logits[next]));
      });
    }
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
  result.headline = acc_norm.empty() ? acc : acc_norm;
  if (!acc_norm.empty()) {
    result.acc_norm = mean_error(acc_norm);
    result.acc_bytes = mean_error(acc_bytes);
  }
  if (!nll.empty()) result.perplexity = perplexity(nll);
  return result;
}

}  // namespace tandem
