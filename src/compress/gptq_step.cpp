// GPTQ as a step: one factorization for all matrices of a set whose options agree.
#include <optional>

#include "compress/device_gptq.h"
#include "compress/gptq.h"
#include "compress/methods.h"

namespace tandem {
namespace {

GptqOptions read(OptionReader& options, ScaleType scale_type) {
  GptqOptions out;
  out.grid = read_grid(options, scale_type);
  const std::string order =
      options.word("order", "group-aware", {"natural", "group-aware", "act"});
  out.order = order == "act"           ? ColumnOrder::act
              : order == "group-aware" ? ColumnOrder::group_aware
                                       : ColumnOrder::natural;
  out.static_groups = options.boolean("static-groups", false);
  out.search = options.boolean("search", false);
  out.damping = options.number("damping", 0.01, 0, 1);
  return out;
}

// Whether one factor serves both.
bool share_factor(const GptqOptions& a, const GptqOptions& b) {
  const bool same_groups =
      a.grid.group == b.grid.group || a.order != ColumnOrder::group_aware;
  return a.order == b.order && a.damping == b.damping && same_groups;
}

class GptqStep : public Step {
 public:
  explicit GptqStep(PerMatrix<GptqOptions> options) : options_(std::move(options)) {}

  StepNeeds needs() const override {
    return {.inputs = true, .gram = true, .device_gram = true};
  }
  bool gives_result(int64_t layer, Linear linear) const override {
    return options_.at(layer, linear).has_value();
  }
  void run_set(SetWork& work) override {
    if (work.device != nullptr) {
      run<DeviceFactor>(
          work,
          [&](const GptqOptions& options) {
            return device_inverse_factor(work.inputs, options.damping,
                                         column_order(options, work.inputs), *work.device);
          },
          [&](const LinearWork& matrix, const DeviceFactor& factor, const GptqOptions& options) {
            return device_gptq(matrix.weight, matrix.keep, factor, options, *work.device);
          });
      return;
    }
    run<InverseFactor>(
        work,
        [&](const GptqOptions& options) {
          return inverse_factor(work.inputs, options.damping, column_order(options, work.inputs),
                                work.pool);
        },
        [&](const LinearWork& matrix, const InverseFactor& factor, const GptqOptions& options) {
          return gptq(matrix.weight, matrix.keep, factor, options, work.pool);
        });
  }

 private:
  template <typename Factor, typename MakeFactor, typename Round>
  void run(SetWork& work, const MakeFactor& make_factor, const Round& round) {
    std::optional<Factor> factor;
    const GptqOptions* factor_options = nullptr;
    for (const Linear linear : linears_of(work.set)) {
      const auto& options = options_.at(work.layer, linear);
      if (!options) continue;
      if (!factor || !share_factor(*factor_options, *options)) {
        factor.reset();
        factor = make_factor(*options);
        factor_options = &*options;
      }
      LinearWork& matrix = work.weights[linear];
      matrix.result = round(matrix, *factor, *options);
    }
  }

  PerMatrix<GptqOptions> options_;
};

}  // namespace

std::unique_ptr<Step> make_gptq(const StepSpec& spec, const ModelConfig& config) {
  return std::make_unique<GptqStep>(
      read_options<GptqOptions>(spec, config, [&](OptionReader& options) {
        return read(options, spec.scale_type);
      }));
}

}  // namespace tandem
