#include "cli/explain.h"

#include <fmt/format.h>

#include "cli/terminal.h"
#include "kernels/device.h"

namespace tandem {

void add_kernel_options(CLI::App& verb, KernelOptions& options) {
  verb.add_flag("--explain", options.explain, "Print which kernel runs which matrices");
  verb.add_flag("--require-sparse", options.require_sparse,
                "Fail when 2:4 weights would run dense");
}

void explain_kernels(const Model& model, const KernelOptions& options) {
  if (!options.explain) return;
  if (const Device* device = model.device()) {
    write_stderr(device->name() + ": " + device->description() + "\n");
  }
  for (const KernelUse& use : model.kernel_uses()) {
    std::string line = fmt::format(
        "{:<9} {:>3} x [{}, {}] {}, {:.2f} MB each: {}, {} activations", use.layers, use.count,
        use.N, use.K, use.encoding.name(), static_cast<double>(use.read_bytes) * 1e-6,
        use.kernel->name, act_type_name(use.kernel->act_type));
    if (use.kernel->many_tokens != nullptr && !options.require_sparse) {
      line += fmt::format("; many tokens at once: {}", use.kernel->many_tokens);
    }
    write_stderr(line + "\n");
  }
}

}  // namespace tandem
