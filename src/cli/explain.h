// --explain and --require-sparse: which kernels run a model, and that 2:4 weights run as such.
#pragma once

#include <CLI/CLI.hpp>

#include "model/model.h"

namespace tandem {

struct KernelOptions {
  bool explain = false;
  bool require_sparse = false;
};

void add_kernel_options(CLI::App& verb, KernelOptions& options);

// With --explain, one line on standard error for each kind of layer: its matrices, their encoding,
// kernel, activations and bytes.
void explain_kernels(const Model& model, const KernelOptions& options);

}  // namespace tandem
