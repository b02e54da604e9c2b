// Quality of one variant against the baseline, both models in this process: no rounding of the
// baseline's probabilities on the way through a file.
#include <algorithm>
#include <limits>

#include "base/error.h"
#include "model/model.h"
#include "runtime/engine.h"
#include "study/evals/agreement.h"
#include "study/evals/evaluate.h"
#include "study/evals/perplexity.h"
#include "study/task.h"
#include "study/workload.h"
#include "text/chat_template.h"

namespace tandem {
namespace {

constexpr int64_t kMaxQuestionTokens = 1024;  // of a context and its continuation

// Logits of a window's scored positions with what every comparison needs of them.
struct ScoredWindow {
  std::vector<float> logits;     // [kScoredPerWindow, V]
  std::vector<double> log_sums;  // [kScoredPerWindow]
};

// Per position, in the order of the text.
struct Scores {
  std::vector<double> nll;
  std::vector<double> nll_differences;  // from the baseline's
  std::vector<double> kl;
  int64_t num_same_top = 0;
};

ScoredWindow score_window(Scorer& scorer, const std::vector<int32_t>& window, int64_t V,
                          ThreadPool& pool) {
  ScoredWindow scored;
  scored.logits = scored_logits([&](std::span<const int32_t> tokens, int64_t first,
                                    const auto& sink) { scorer.score(tokens, first, sink); },
                                window, V);
  scored.log_sums.resize(kScoredPerWindow);
  pool.parallel_for(kScoredPerWindow, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      scored.log_sums[static_cast<size_t>(p)] = log_sum_exp(scored.logits.data() + p * V, V);
    }
  });
  return scored;
}

// Negative log-likelihood of the token after scored position p.
double nll_at(const ScoredWindow& scored, const std::vector<int32_t>& window, int64_t V,
              int64_t p) {
  const int32_t next = window[static_cast<size_t>(kFirstScored + p + 1)];
  return scored.log_sums[static_cast<size_t>(p)] -
         static_cast<double>(scored.logits[static_cast<size_t>(p * V + next)]);
}

void add_nll(const ScoredWindow& scored, const std::vector<int32_t>& window, int64_t V,
             Scores& scores) {
  for (int64_t p = 0; p < kScoredPerWindow; ++p) {
    scores.nll.push_back(nll_at(scored, window, V, p));
  }
}

void add_agreement(const ScoredWindow& baseline, const ScoredWindow& variant,
                   const std::vector<int32_t>& window, int64_t V, ThreadPool& pool,
                   Scores& scores) {
  for (int64_t p = 0; p < kScoredPerWindow; ++p) {
    scores.nll_differences.push_back(nll_at(variant, window, V, p) -
                                     nll_at(baseline, window, V, p));
  }
  std::vector<PositionAgreement> positions(kScoredPerWindow);
  pool.parallel_for(kScoredPerWindow, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      const auto i = static_cast<size_t>(p);
      positions[i] = agreement(baseline.logits.data() + p * V, baseline.log_sums[i],
                               variant.logits.data() + p * V, variant.log_sums[i], V);
    }
  });
  for (const PositionAgreement& position : positions) {
    scores.kl.push_back(position.kl_divergence);
    scores.num_same_top += position.same_top;
  }
}

Quality quality_of(const Scores& scores) {
  Quality quality;
  const MeanError ppl = perplexity(scores.nll);
  quality.perplexity = ppl.mean;
  quality.perplexity_stderr = ppl.error;
  quality.scored_tokens = static_cast<int64_t>(scores.nll.size());
  if (!scores.kl.empty()) {
    const MeanError kl = mean_error(scores.kl);
    quality.kl_divergence = kl.mean;
    quality.kl_stderr = kl.error;
    const MeanError log_ratio = mean_error(scores.nll_differences);
    quality.log_ratio = log_ratio.mean;
    quality.log_ratio_stderr = log_ratio.error;
    quality.top1_agreement =
        static_cast<double>(scores.num_same_top) / static_cast<double>(scores.kl.size());
  }
  return quality;
}

std::vector<int32_t> question_tokens(const std::string& question, const Tokenizer& tokenizer,
                                     const TokenizerSpec& spec) {
  if (spec.chat_template.empty()) return tokenizer.encode_prompt(question);
  const auto name = [&](int32_t id) { return id < 0 ? std::string() : tokenizer.token_name(id); };
  const ChatTemplate chat(spec.chat_template);
  return tokenizer.encode(
      chat.render({{"user", question}}, true, name(tokenizer.bos_id()), name(tokenizer.eos_id())));
}

// Greedy answers to the study's questions, all in one batch.
std::vector<std::string> sample_answers(const Model& model, const Checkpoint& checkpoint,
                                        KvType kv_type, int64_t max_tokens) {
  const std::vector<std::string>& questions = sample_questions();
  const Tokenizer tokenizer(checkpoint.tokenizer);
  EngineOptions options;
  options.kv_type = kv_type;
  options.max_sequences = static_cast<int64_t>(questions.size());
  options.max_context = std::min<int64_t>(model.config().max_context, 2048);
  Engine engine(model, options);
  for (size_t i = 0; i < questions.size(); ++i) {
    Request request;
    request.id = i;
    request.prompt = question_tokens(questions[i], tokenizer, checkpoint.tokenizer);
    request.max_tokens = max_tokens;
    request.stop_tokens = tokenizer.stop_ids();
    engine.submit(std::move(request));
  }
  std::vector<std::vector<int32_t>> tokens(questions.size());
  engine.run([&](const TokenEvent& event) {
    if (event.token >= 0) tokens[event.request_id].push_back(event.token);
  });
  std::vector<std::string> answers;
  for (const auto& answer : tokens) answers.push_back(tokenizer.decode(answer));
  return answers;
}

// The items of the task that the model gets right.
std::string task_hits(const Model& model, const Checkpoint& checkpoint, KvType kv_type,
                      const TaskFile& file) {
  std::vector<TaskItem> items = read_task(file.name, file.path);
  if (std::ssize(items) > file.max_items) items.resize(static_cast<size_t>(file.max_items));
  const int64_t most = std::min(kMaxQuestionTokens, checkpoint.config.max_context);
  Scorer scorer(model, kv_type, most);
  const LogitSource source = [&](std::span<const int32_t> tokens, int64_t first, const auto& sink) {
    scorer.score(tokens, first, sink);
  };
  const TaskResult result =
      evaluate_task(source, Tokenizer(checkpoint.tokenizer), items, checkpoint.tokenizer.add_bos,
                    most, checkpoint.config.vocab_size, {});
  std::string hits;
  for (const double hit : result.headline) hits += hit > 0 ? '1' : '0';
  return hits;
}

}  // namespace

QualityByKv measure_quality(const Task& task) {
  ThreadPool pool(task.record.threads);
  const Checkpoint checkpoint = load_checkpoint(task.checkpoint);
  if (checkpoint.config.max_context < kWindowTokens) {
    fail(ErrorKind::usage, "{}: context of {} tokens, perplexity needs {}",
         task.checkpoint.string(), checkpoint.config.max_context, kWindowTokens);
  }
  const Model model(checkpoint, pool, task.record.isa);
  std::optional<Checkpoint> baseline_checkpoint;
  std::optional<Model> baseline_model;
  if (!task.is_baseline) {
    baseline_checkpoint = load_checkpoint(task.baseline);
    baseline_model.emplace(*baseline_checkpoint, pool, task.record.isa);
  }
  const int64_t V = checkpoint.config.vocab_size;
  Scorer baseline(task.is_baseline ? model : *baseline_model, KvType::bf16, kWindowTokens);
  std::vector<std::unique_ptr<Scorer>> scorers;
  for (const std::string& kv : task.kv) {
    scorers.push_back(std::make_unique<Scorer>(model, kv_type_of(kv), kWindowTokens));
  }
  const TokenizerSpec& spec = checkpoint.tokenizer;
  const auto windows =
      cut_windows(read_tokens(task.tokens_path), task.num_windows, spec.add_bos ? spec.bos_id : -1);
  std::vector<Scores> scores(task.kv.size());
  for (const auto& window : windows) {
    const ScoredWindow reference = score_window(baseline, window, V, pool);
    for (size_t k = 0; k < task.kv.size(); ++k) {
      if (task.is_baseline && task.kv[k] == "bf16") {
        add_nll(reference, window, V, scores[k]);
        continue;
      }
      const ScoredWindow scored = score_window(*scorers[k], window, V, pool);
      add_nll(scored, window, V, scores[k]);
      add_agreement(reference, scored, window, V, pool, scores[k]);
    }
  }
  QualityByKv qualities;
  for (size_t k = 0; k < task.kv.size(); ++k) {
    Quality quality = quality_of(scores[k]);
    const KvType kv_type = kv_type_of(task.kv[k]);
    if (task.answer_tokens > 0) {
      quality.sample_answers = sample_answers(model, checkpoint, kv_type, task.answer_tokens);
    }
    if (!task.questions.name.empty()) {
      quality.task_hits = task_hits(model, checkpoint, kv_type, task.questions);
    }
    qualities[task.kv[k]] = std::move(quality);
  }
  return qualities;
}

}  // namespace tandem
