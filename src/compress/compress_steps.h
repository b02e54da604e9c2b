// Checkpoint -> Hugging Face folder by a recipe of steps.
#pragma once

#include <filesystem>
#include <functional>

#include "base/thread_pool.h"
#include "compress/calibration_rows.h"
#include "compress/compress.h"
#include "compress/sequential.h"
#include "compress/step_recipe.h"

namespace tandem {

// Checks the recipe against the model and makes its steps. Throws usage.
Steps make_steps(const StepRecipe& recipe, const ModelConfig& config);

// The layers by the recipe's steps, all else in bf16. `rows` may be null where no step needs inputs.
//
// Finished layers lie in OUT.partial until out_dir appears, complete. When the same source, recipe
// and rows find an OUT.partial, its layers are kept and the rest is done. Throws what compress()
// throws, and usage when OUT.partial belongs to another compression. `progress` may throw: the
// finished layers stay. A `judge` that refuses with quality_gate leaves nothing. With `device`, what
// compress_layers can do there is done there, and the manifest names it.
CompressResult compress_by_steps(const Checkpoint& source, const StepRecipe& recipe,
                                 const CalibrationRows* rows, const std::filesystem::path& out_dir,
                                 ThreadPool& pool,
                                 const std::function<void(const SequentialProgress&)>& progress,
                                 const Judge& judge = {}, FloatWork* device = nullptr);

}  // namespace tandem
