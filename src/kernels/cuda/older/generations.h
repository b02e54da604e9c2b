// The generations of GPUs, and what each leaves to a kernel. Hopper's kernels are the files beside
// this folder; for other GPUs the kernels here are compiled once a generation.
#pragma once

#include <span>
#include <string_view>

#include "kernels/ops.h"

namespace tandem {

struct Generation {
  const char* name;  // as --arch-cap has it
  const char* isa;   // of its rows in the kernel table
  int capability;    // 10 major + minor: the least that runs it
  int shared_bytes;  // of a multiprocessor, at most for one block
  int threads;       // that a multiprocessor holds

  constexpr bool has_bf16() const { return capability >= 80; }
};

// Newest first.
inline constexpr Generation kGenerations[] = {
    {"sm_90a", "cuda", 90, 227 << 10, 2048},
    {"sm_89", "sm_89", 89, 99 << 10, 1536},
    {"sm_80", "sm_80", 80, 163 << 10, 2048},
    {"sm_75", "sm_75", 75, 64 << 10, 1024},
};

// Those that this build has kernels for.
std::span<const Generation> built_generations();

constexpr const Generation& generation_of(int capability) {
  const Generation* found = kGenerations;
  while (found->capability != capability) ++found;
  return *found;
}

// What a generation contributes to the kernel table: older/unit.cu, compiled for it alone.
struct OlderKernels {
  std::span<const LinearKernel> linears;
  OpSet ops;
};
namespace sm_75 {
const OlderKernels& kernels();
}
namespace sm_80 {
const OlderKernels& kernels();
}
namespace sm_89 {
const OlderKernels& kernels();
}

}  // namespace tandem
