// The methods that a recipe's steps may name.
#pragma once

#include <memory>
#include <span>

#include "compress/step.h"

namespace tandem {

std::span<const Method> methods();

// Throws usage for an unknown method, naming the nearest.
std::unique_ptr<Step> make_step(const StepSpec& spec, const ModelConfig& config);

// The rows' makers, one a file.
std::unique_ptr<Step> make_rtn(const StepSpec& spec, const ModelConfig& config);
std::unique_ptr<Step> make_gptq(const StepSpec& spec, const ModelConfig& config);
std::unique_ptr<Step> make_prune(const StepSpec& spec, const ModelConfig& config);  // all of 2:4
std::unique_ptr<Step> make_awq(const StepSpec& spec, const ModelConfig& config);
std::unique_ptr<Step> make_fp8(const StepSpec& spec, const ModelConfig& config);
std::unique_ptr<Step> make_hqq(const StepSpec& spec, const ModelConfig& config);
std::unique_ptr<Step> make_smooth_quant(const StepSpec& spec, const ModelConfig& config);
std::unique_ptr<Step> make_static_inputs(const StepSpec& spec, const ModelConfig& config);

// "bits", "group" (0: the whole row) and "symmetric", with scales in the type of the recipe's
// format. Throws usage for a group that does not divide the matrix's width.
IntegerGrid read_grid(OptionReader& options, ScaleType scale_type, bool symmetric = true);

}  // namespace tandem
