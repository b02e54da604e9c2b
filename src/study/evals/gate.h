// A model before and after its compression -> what the compression cost, on a text and on tasks,
// both models in this process and every difference paired.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "kernels/ops.h"
#include "study/evals/evaluate.h"

namespace tandem {

struct GateTask {
  std::string name;
  std::vector<TaskItem> items;
};

struct GatePlan {
  std::string text;  // empty: no text is read
  int64_t num_windows = 0;  // of protocol B
  std::vector<GateTask> tasks;
  std::string isa;
  KvType kv_type = KvType::bf16;
};

// Right answers of two models to the same items.
struct TaskDrop {
  std::string name;
  int64_t num_items = 0;
  double source = 0, result = 0;  // shares that are right
  double drop = 0;                // source - result
  double upper = 0;               // end of the drop's 95 % interval
};

struct GateFigures {
  std::optional<TextResult> text;  // the result's, with the source as baseline
  std::vector<TaskDrop> tasks;
};

// Wald's interval of a paired difference with half an item added to each of the four cells (Agresti
// and Min, 2005): without it no disagreement in ten items would look like certainty.
TaskDrop paired_drop(std::string name, const std::vector<double>& source,
                     const std::vector<double>& result);

// At most this many windows of protocol B that the text has; throws usage when it has none, when
// the models' vocabularies differ or their context is shorter than a window. Both models are in
// memory at once: throws no_memory when they do not fit, no_device when one cannot be run here.
GateFigures measure_gate(const Checkpoint& source, const Checkpoint& result, const GatePlan& plan,
                         ThreadPool& pool, const EvalProgress& progress);

// Lines of 40 bytes and more that two texts share, counted in the first: what makes a text no judge
// of a model that was calibrated on the other.
int64_t num_shared_lines(std::string_view text, std::string_view other);

}  // namespace tandem
