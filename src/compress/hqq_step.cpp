// HQQ as a step: needs no calibration rows. Folders store zeros as codes; GGUF files of HQQ, which
// hold real ones, are compress_to_gguf's.
#include "base/error.h"
#include "compress/hqq.h"
#include "compress/methods.h"

namespace tandem {
namespace {

struct Options {
  IntegerGrid grid;
  HqqOptions hqq;
};

class HqqStep final : public Step {
 public:
  explicit HqqStep(PerMatrix<Options> options) : options_(std::move(options)) {}

  StepNeeds needs() const override { return {}; }
  bool gives_result(int64_t layer, Linear linear) const override {
    return options_.at(layer, linear).has_value();
  }
  void run_set(SetWork& work) override {
    for (const Linear linear : linears_of(work.set)) {
      const std::optional<Options>& options = options_.at(work.layer, linear);
      LinearWork& target = work.weights[linear];
      if (!options || target.has_result()) continue;
      target.result = work.device != nullptr
                          ? device_hqq_integer_zeros(target.weight, options->grid, options->hqq,
                                                     *work.device)
                          : hqq_integer_zeros(target.weight, options->grid, options->hqq,
                                              work.pool);
    }
  }

 private:
  PerMatrix<Options> options_;
};

Options read(OptionReader& reader, ScaleType scale_type) {
  Options options;
  options.grid = read_grid(reader, scale_type, /*symmetric=*/false);
  if (options.grid.symmetric) reader.refuse("symmetric", "true, HQQ moves zeros, expected false");
  options.hqq.max_iterations = static_cast<int>(reader.integer("iterations", 20, 0, 1000));
  options.hqq.p = static_cast<float>(reader.number("p", 0.7, 0.05, 1.0));
  options.hqq.beta = static_cast<float>(reader.number("beta", 10.0, 1e-3, 1e6));
  return options;
}

}  // namespace

std::unique_ptr<Step> make_hqq(const StepSpec& spec, const ModelConfig& config) {
  return std::make_unique<HqqStep>(read_options<Options>(
      spec, config, [&](OptionReader& reader) { return read(reader, spec.scale_type); }));
}

}  // namespace tandem
