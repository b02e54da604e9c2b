#include "study/evals/gate.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/cpu.h"
#include "base/error.h"
#include "model/model.h"
#include "runtime/engine.h"

namespace tandem {
namespace {

constexpr int64_t kMaxTaskTokens = 2048;  // of a context and its continuation
constexpr double kTwoSided95 = 1.96;      // standard errors
constexpr size_t kLeastLineBytes = 40;    // shorter lines are headings, braces, and alike anywhere

// A model ready to give logits.
class Scored {
 public:
  Scored(const Checkpoint& checkpoint, const GatePlan& plan, ThreadPool& pool, int64_t longest)
      : model_(checkpoint, pool, plan.isa), scorer_(model_, plan.kv_type, longest) {}

  LogitSource source() {
    return [this](std::span<const int32_t> tokens, int64_t first, const auto& sink) {
      scorer_.score(tokens, first, sink);
    };
  }

 private:
  Model model_;
  Scorer scorer_;
};

std::vector<ScoredSpan> windows_of(const Checkpoint& source, const Tokenizer& tokenizer,
                                   const GatePlan& plan) {
  const PerplexityProtocol& protocol = protocol_of("B");
  std::string_view text = plan.text;
  if (text.ends_with('\n')) text.remove_suffix(1);  // as llama.cpp reads a file
  return protocol_windows(protocol, tokenizer.encode(text),
                          source.tokenizer.add_bos ? source.tokenizer.bos_id : -1,
                          plan.num_windows);
}

void check_pair(const Checkpoint& source, const Checkpoint& result, const GatePlan& plan) {
  if (source.config.vocab_size != result.config.vocab_size) {
    fail(ErrorKind::usage, "gate: the result has a vocabulary of {} tokens, the source {}",
         result.config.vocab_size, source.config.vocab_size);
  }
  const int64_t window = protocol_of("B").window;
  if (!plan.text.empty() && source.config.max_context < window) {
    fail(ErrorKind::usage, "gate: windows of {} tokens, the model's context is {}", window,
         source.config.max_context);
  }
  const uint64_t needed = footprint(source).resident_bytes + footprint(result).resident_bytes;
  if (names_device(plan.isa) || needed <= available_memory_bytes()) return;
  fail(ErrorKind::no_memory, "gate: source and result need {} bytes, {} are available", needed,
       available_memory_bytes());
}

}  // namespace

TaskDrop paired_drop(std::string name, const std::vector<double>& source,
                     const std::vector<double>& result) {
  CHECK(source.size() == result.size() && !source.empty(), "{} and {} items", source.size(),
        result.size());
  TaskDrop drop;
  drop.name = std::move(name);
  drop.num_items = static_cast<int64_t>(source.size());
  double lost = 0, won = 0;
  for (size_t i = 0; i < source.size(); ++i) {
    drop.source += source[i];
    drop.result += result[i];
    lost += source[i] > result[i] ? 1 : 0;
    won += source[i] < result[i] ? 1 : 0;
  }
  const auto n = static_cast<double>(source.size());
  drop.source /= n;
  drop.result /= n;
  drop.drop = (lost - won) / n;
  const double m = n + 2, b = lost + 0.5, c = won + 0.5;
  const double variance = (b + c - (b - c) * (b - c) / m) / (m * m);
  drop.upper = std::min(1.0, (b - c) / m + kTwoSided95 * std::sqrt(variance));
  return drop;
}

GateFigures measure_gate(const Checkpoint& source, const Checkpoint& result, const GatePlan& plan,
                         ThreadPool& pool, const EvalProgress& progress) {
  check_pair(source, result, plan);
  const Tokenizer tokenizer(source.tokenizer);
  std::vector<ScoredSpan> windows;
  if (!plan.text.empty()) windows = windows_of(source, tokenizer, plan);
  const int64_t V = source.config.vocab_size;
  const int64_t task_tokens = std::min(kMaxTaskTokens, source.config.max_context);
  const int64_t longest = plan.tasks.empty() ? protocol_of("B").window : task_tokens;
  Scored before(source, plan, pool, longest), after(result, plan, pool, longest);

  size_t total = windows.size(), done = 0;
  for (const GateTask& task : plan.tasks) total += 2 * task.items.size();
  const EvalProgress advance = [&](size_t, size_t) {
    if (progress) progress(++done, total);
  };
  GateFigures figures;
  if (!windows.empty()) {
    figures.text = evaluate_text(after.source(), before.source(), windows, V, advance, &pool);
  }
  for (const GateTask& task : plan.tasks) {
    const auto right = [&](Scored& model) {
      return evaluate_task(model.source(), tokenizer, task.items, source.tokenizer.add_bos,
                           task_tokens, V, advance)
          .headline;
    };
    const std::vector<double> source_right = right(before);
    figures.tasks.push_back(paired_drop(task.name, source_right, right(after)));
  }
  return figures;
}

int64_t num_shared_lines(std::string_view text, std::string_view other) {
  const auto each_line = [](std::string_view all, const auto& visit) {
    while (!all.empty()) {
      const size_t end = std::min(all.find('\n'), all.size());
      if (end >= kLeastLineBytes) visit(all.substr(0, end));
      all.remove_prefix(std::min(end + 1, all.size()));
    }
  };
  std::unordered_set<std::string_view> lines;
  each_line(other, [&](std::string_view line) { lines.insert(line); });
  int64_t shared = 0;
  each_line(text, [&](std::string_view line) { shared += lines.contains(line) ? 1 : 0; });
  return shared;
}

}  // namespace tandem
