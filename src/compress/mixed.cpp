#include "compress/mixed.h"

#include "base/error.h"

namespace tandem {
namespace {

struct Shape {
  int64_t N = 0;
  int64_t K = 0;
};

Shape shape_of(const ModelConfig& config, Linear linear) {
  const int64_t C = config.width, F = config.ffn_width, D = config.head_dim;
  switch (linear) {
    case Linear::q:
      return {config.num_heads * D, C};
    case Linear::k:
    case Linear::v:
      return {config.num_kv_heads * D, C};
    case Linear::o:
      return {C, config.num_heads * D};
    case Linear::gate:
    case Linear::up:
      return {F, C};
    case Linear::down:
      return {C, F};
  }
  return {};
}

double file_bytes(const IntegerGrid& grid, const Shape& shape) {
  const auto weights = static_cast<double>(shape.N * shape.K);
  const auto groups = static_cast<double>(shape.N * grid.groups_per_row(shape.K));
  const double zero_bits = grid.symmetric ? 0.0 : grid.bits;
  return (weights * grid.bits + groups * zero_bits) / 8 +
         groups * static_cast<double>(scale_bytes(grid.scale_type));
}

Encoding encoding_of(const IntegerGrid& grid) {
  if (grid.bits == 8 && grid.group == 0 && grid.symmetric) return int8_channel(grid.scale_type);
  if (grid.bits == 4 && grid.symmetric) return int4_group(grid.group, grid.scale_type);
  return int_zero(grid.bits, grid.group, grid.scale_type);
}

}  // namespace

const char* unit_name(BudgetUnit unit) {
  return unit == BudgetUnit::bytes         ? "bytes"
         : unit == BudgetUnit::nanoseconds ? "nanoseconds"
                                           : "microjoules";
}

int64_t num_layer_weights(const ModelConfig& config) {
  int64_t each = 0;
  for (const LinearSet set : kLinearSets) {
    for (const Linear linear : linears_of(set)) {
      const Shape shape = shape_of(config, linear);
      each += shape.N * shape.K;
    }
  }
  return each * config.num_layers;
}

std::vector<std::vector<double>> set_sizes(const ModelConfig& config,
                                           const std::vector<IntegerGrid>& grids, BudgetUnit unit,
                                           std::string_view isa, ThreadPool& pool,
                                           const JoulesOf& joules_of) {
  CHECK(unit != BudgetUnit::microjoules || joules_of, "no meter");
  std::vector<std::vector<double>> layer(kNumSets, std::vector<double>(grids.size()));
  for (const LinearSet set : kLinearSets) {
    for (size_t f = 0; f < grids.size(); ++f) {
      double& size = layer[static_cast<size_t>(set)][f];
      Shape whole;
      for (const Linear linear : linears_of(set)) {
        const Shape shape = shape_of(config, linear);
        if (unit == BudgetUnit::bytes) size += file_bytes(grids[f], shape);
        whole = {whole.N + shape.N, shape.K};
      }
      // A decode step runs a set's matrices as one.
      const Encoding encoding = encoding_of(grids[f]);
      if (unit == BudgetUnit::nanoseconds) {
        size = linear_nanoseconds(encoding, whole.N, whole.K, isa, pool);
      } else if (unit == BudgetUnit::microjoules) {
        size = linear_microjoules(encoding, whole.N, whole.K, isa, pool, joules_of);
      }
    }
  }
  std::vector<std::vector<double>> sizes;
  for (int64_t l = 0; l < config.num_layers; ++l)
    sizes.insert(sizes.end(), layer.begin(), layer.end());
  return sizes;
}

std::vector<Allocation> mixed_curve(const std::vector<std::vector<double>>& sizes,
                                    const std::vector<std::vector<double>>& costs) {
  CHECK(sizes.size() == costs.size(), "{} and {} sets", sizes.size(), costs.size());
  std::vector<std::vector<Form>> choices(sizes.size());
  for (size_t s = 0; s < sizes.size(); ++s) {
    CHECK(sizes[s].size() == costs[s].size(), "{} and {} grids", sizes[s].size(), costs[s].size());
    for (size_t f = 0; f < sizes[s].size(); ++f) choices[s].push_back({sizes[s][f], costs[s][f]});
  }
  return pareto_curve(choices);
}

StepSpec with_allocation(const StepSpec& step, const std::vector<IntegerGrid>& grids,
                         const Allocation& allocation) {
  // Before the step's own: of several overrides the later wins, and what a user writes stays.
  std::vector<StepOverride> overrides;
  for (size_t s = 0; s < allocation.forms.size(); ++s) {
    const IntegerGrid& grid = grids[static_cast<size_t>(allocation.forms[s])];
    const auto layer = static_cast<int64_t>(s) / kNumSets;
    for (const Linear linear : linears_of(kLinearSets[s % kNumSets])) {
      StepOverride chosen;
      chosen.glob = module_name(layer, linear);
      chosen.options.where = step.options.where;
      const auto put = [&](const char* key, auto value) {
        chosen.options.values.insert_or_assign(key, OptionValue{value, step.options.where});
      };
      put("bits", static_cast<int64_t>(grid.bits));
      put("group", grid.group);
      put("symmetric", grid.symmetric);
      overrides.push_back(std::move(chosen));
    }
  }
  StepSpec mixed = step;
  mixed.overrides.insert(mixed.overrides.begin(), overrides.begin(), overrides.end());
  return mixed;
}

}  // namespace tandem
