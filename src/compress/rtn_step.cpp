// Round to nearest as a step: no inputs are needed.
#include "compress/methods.h"
#include "compress/rtn_grid.h"

namespace tandem {
namespace {

class RtnStep : public Step {
 public:
  explicit RtnStep(PerMatrix<IntegerGrid> grids) : grids_(std::move(grids)) {}

  StepNeeds needs() const override { return {}; }
  bool gives_result(int64_t layer, Linear linear) const override {
    return grids_.at(layer, linear).has_value();
  }
  void run_set(SetWork& work) override {
    for (const Linear linear : linears_of(work.set)) {
      const auto& grid = grids_.at(work.layer, linear);
      if (!grid) continue;
      LinearWork& matrix = work.weights[linear];
      for (float& value : matrix.weight.values) value = round_to_type(value, grid->scale_type);
      matrix.result = round_to_grid(matrix.weight, *grid, work.pool);
    }
  }

 private:
  PerMatrix<IntegerGrid> grids_;
};

}  // namespace

std::unique_ptr<Step> make_rtn(const StepSpec& spec, const ModelConfig& config) {
  return std::make_unique<RtnStep>(
      read_options<IntegerGrid>(spec, config, [&](OptionReader& options) {
        return read_grid(options, spec.scale_type);
      }));
}

}  // namespace tandem
