// The steps that prune a model to 2:4: random-24, magnitude-24, wanda, sparsegpt, mask-file and
// learned-mask. They mark what is pruned in LinearWork::keep and give no result, so that a step
// behind them may quantize the survivors; without one the matrices are written in bf16 with zeros.
#pragma once

#include <span>

#include "compress/step.h"

namespace tandem {

std::span<const Method> prune_methods();

}  // namespace tandem
