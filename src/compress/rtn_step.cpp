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
      work.pool.parallel_for(matrix.weight.N, 16, [&](int64_t begin, int64_t end, int) {
        float* values = matrix.weight.row(begin);
        for (int64_t i = 0; i < (end - begin) * matrix.weight.K; ++i) {
          values[i] = round_to_type(values[i], grid->scale_type);
        }
      });
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
