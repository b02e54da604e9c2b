#include "compress/methods.h"

#include <string>
#include <vector>

#include "base/error.h"

namespace tandem {
namespace {

constexpr Method kMethods[] = {
    {"rtn", make_rtn},
    {"gptq", make_gptq},
    {"random-24", make_prune},
    {"magnitude-24", make_prune},
    {"wanda", make_prune},
    {"sparsegpt", make_prune},
    {"mask-file", make_prune},
    {"learned-mask", make_prune},
    {"awq", make_awq},
    {"hqq", make_hqq},
    {"fp8", make_fp8},
    {"smoothquant", make_smooth_quant},
    {"static-inputs", make_static_inputs},
};
constexpr int64_t kDefaultGroup = 64;

}  // namespace

std::span<const Method> methods() { return kMethods; }

std::unique_ptr<Step> make_step(const StepSpec& spec, const ModelConfig& config) {
  std::vector<std::string> names;
  for (const Method& method : kMethods) {
    if (method.name == spec.method) return method.make(spec, config);
    names.emplace_back(method.name);
  }
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
  fail(ErrorKind::usage, "{}: unknown method {}{}, expected one of {}", spec.options.where,
       quote(spec.method), nearest_hint(spec.method, names), all);
}

IntegerGrid read_grid(OptionReader& options, ScaleType scale_type, bool symmetric) {
  IntegerGrid grid;
  grid.bits = static_cast<int>(options.integer("bits", 4, 2, 8));
  grid.group = options.integer("group", kDefaultGroup, 0, 1 << 20);
  const int64_t width = options.width();
  if (grid.group != 0 && width % grid.group != 0) {
    options.refuse("group", fmt::format("{}, which does not divide the {} input channels of {}",
                                        grid.group, width, options.module()));
  }
  grid.symmetric = options.boolean("symmetric", symmetric);
  grid.scale_type = scale_type;
  return grid;
}

}  // namespace tandem
