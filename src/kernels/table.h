// The kernels there are, as rows. The loader picks from them, tests walk them for parity, the bench
// walks them for speed: a new kernel is one new file and one new row.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops.h"

namespace tandem {

std::span<const LinearKernel> linear_kernels();
std::span<const OpSet> op_sets();

// "avx512", "avx2" or "ref": the fastest set this processor runs.
std::string_view best_isa();
// The names a user may give, best first, that run here.
std::vector<std::string_view> runnable_isas();
// Throws no_device when `isa` is unknown or this processor lacks it; the message lists what runs. "cuda" and
// "cuda:N" name a GPU.
void require_isa(std::string_view isa);

// The row for this packing on this instruction set. Throws no_device naming both when there is none.
const LinearKernel& find_linear(std::string_view isa, Packing packing);
const OpSet& find_ops(std::string_view isa);

}  // namespace tandem
