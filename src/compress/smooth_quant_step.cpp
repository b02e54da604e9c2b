// SmoothQuant as a step, and the static scales of activations.
#include "base/error.h"
#include "compress/fold.h"
#include "compress/methods.h"
#include "compress/smooth_quant.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

// Scales q, k, v and gate, up; o and down have no norm before them. A set is smoothed where the
// step takes any of its matrices.
class SmoothQuantStep final : public Step {
 public:
  explicit SmoothQuantStep(PerMatrix<float> alphas) : alphas_(std::move(alphas)) {}

  StepNeeds needs() const override { return {.layer_inputs = true}; }
  bool gives_result(int64_t, Linear) const override { return false; }
  void prepare_layer(LayerWork& work) override {
    smooth(work, LinearSet::qkv, work.weights.attn_norm);
    smooth(work, LinearSet::gate_up, work.weights.ffn_norm);
  }

 private:
  void smooth(LayerWork& work, LinearSet set, std::vector<float>& norm) {
    std::optional<float> alpha;
    std::vector<const Matrix*> linears;
    for (const Linear linear : linears_of(set)) {
      linears.push_back(&work.weights[linear].weight);
      if (!alpha) alpha = alphas_.at(work.layer, linear);
    }
    if (!alpha) return;
    std::vector<float> scales = smooth_scales(work.inputs_of(set).max_magnitude, linears, *alpha);
    for (const Linear linear : linears_of(set)) scale_columns(work.weights[linear].weight, scales);
    divide(norm, scales);
    for (float& scale : scales) scale = 1.0f / scale;
    scale_inputs(&work.inputs_of(set), scales);
  }

  PerMatrix<float> alphas_;
};

// The type that inputs take.
enum class InputType : uint8_t { as_weights, int8, fp8 };

// Half its range: 127.5 as compressed-tensors has int8, 448 for E4M3.
float half_range(InputType type, const LinearWork& linear) {
  const auto* encoded = std::get_if<EncodedMatrix>(&linear.result);
  const bool is_fp8 = encoded != nullptr && encoded->encoding.has_e4m3_codes();
  return type == InputType::fp8 || (type == InputType::as_weights && is_fp8) ? kMaxE4M3 : 127.5f;
}

// Gives each matrix one scale for all its inputs, from the largest magnitude that its calibration
// inputs reach, once the sets before it are compressed.
class StaticInputsStep final : public Step {
 public:
  explicit StaticInputsStep(PerMatrix<InputType> types) : types_(std::move(types)) {}

  StepNeeds needs() const override { return {.inputs = true}; }
  bool gives_result(int64_t, Linear) const override { return false; }
  void run_set(SetWork& work) override {
    float largest = 0.0f;
    for (const float magnitude : work.inputs.max_magnitude) largest = std::max(largest, magnitude);
    for (const Linear linear : linears_of(work.set)) {
      const std::optional<InputType>& type = types_.at(work.layer, linear);
      if (!type) continue;
      LinearWork& target = work.weights[linear];
      target.input_scale = stored_scale(largest / half_range(*type, target), ScaleType::bf16);
    }
  }

 private:
  PerMatrix<InputType> types_;
};

}  // namespace

std::unique_ptr<Step> make_smooth_quant(const StepSpec& spec, const ModelConfig& config) {
  return std::make_unique<SmoothQuantStep>(
      read_options<float>(spec, config, [](OptionReader& reader) {
        return static_cast<float>(reader.number("alpha", 0.5, 0.0, 1.0));
      }));
}

std::unique_ptr<Step> make_static_inputs(const StepSpec& spec, const ModelConfig& config) {
  return std::make_unique<StaticInputsStep>(
      read_options<InputType>(spec, config, [](OptionReader& reader) {
        const std::string type = reader.word("type", "as-weights", {"as-weights", "int8", "fp8"});
        return type == "int8"  ? InputType::int8
               : type == "fp8" ? InputType::fp8
                               : InputType::as_weights;
      }));
}

}  // namespace tandem
