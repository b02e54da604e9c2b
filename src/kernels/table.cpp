#include "kernels/table.h"

#include <fmt/ranges.h>

#include "base/cpu.h"
#include "base/error.h"
#include "kernels/device.h"
#include "kernels/rows.h"

namespace tandem {
namespace {

// Instruction sets, fastest first.
struct IsaRow {
  const char* name;
  bool (*runs_here)();
};

constexpr IsaRow kIsas[] = {
    {"avx512", [] { return cpu_features().avx512_vnni; }},
    {"avx2", [] { return cpu_features().avx2; }},
    {"ref", [] { return true; }},
};

}  // namespace

std::span<const LinearKernel> linear_kernels() {
  static const std::vector<LinearKernel> rows = [] {
    std::vector<LinearKernel> all;
    for (const auto kernels : {avx512_linear_kernels(), avx2_linear_kernels(), ref_linear_kernels(),
                               cuda_linear_kernels(), older_cuda_linear_kernels()}) {
      all.insert(all.end(), kernels.begin(), kernels.end());
    }
    return all;
  }();
  return rows;
}

std::span<const OpSet> op_sets() {
  static const std::vector<OpSet> sets = [] {
    std::vector<OpSet> all = {avx512_ops(), avx2_ops(), ref_ops()};
    if (cuda_ops() != nullptr) all.push_back(*cuda_ops());
    all.insert(all.end(), older_cuda_ops().begin(), older_cuda_ops().end());
    return all;
  }();
  return sets;
}

std::vector<std::string_view> runnable_isas() {
  std::vector<std::string_view> names;
  for (const IsaRow& row : kIsas) {
    if (row.runs_here()) names.emplace_back(row.name);
  }
  return names;
}

std::string_view best_isa() { return runnable_isas().front(); }

void require_isa(std::string_view isa) {
  if (names_device(isa)) {
    describe_device(isa);
    return;
  }
  const auto names = runnable_isas();
  for (const auto name : names) {
    if (name == isa) return;
  }
  fail(ErrorKind::no_device, "instruction set {} cannot run on this processor; these can: {}",
       quote(isa), fmt::join(names, ", "));
}

const LinearKernel& find_linear(std::string_view isa, Packing packing) {
  std::vector<std::string> others;
  for (const LinearKernel& row : linear_kernels()) {
    if (isa != row.isa) continue;
    if (row.packing == packing) return row;
    others.push_back(Encoding{row.packing}.name());
  }
  fail(ErrorKind::no_device, "no kernel runs {} weights on {}{}, which runs {}", Encoding{packing}.name(), isa,
       cuda_reason(isa, packing), others.empty() ? "none" : fmt::format("{}", fmt::join(others, ", ")));
}

Multiply find_multiply(std::string_view isa) {
  if (isa == "avx512") return avx512_multiply();
  if (isa == "avx2") return avx2_multiply();
  if (isa == "ref") return ref_multiply;
  fail(ErrorKind::no_device, "no matrix product for instruction set {}", quote(isa));
}

const OpSet& find_ops(std::string_view isa) {
  for (const OpSet& set : op_sets()) {
    if (isa == set.isa) return set;
  }
  fail(ErrorKind::no_device, "no kernels for instruction set {}", quote(isa));
}

}  // namespace tandem
