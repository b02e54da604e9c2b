// AWQ as a step: the scales of a layer's four groups, folded into the norms and linears before
// them, then clipping; and rounding at each set's turn.
#include "base/error.h"
#include "compress/awq.h"
#include "compress/fold.h"
#include "compress/methods.h"
#include "compress/output_error.h"
#include "kernels/table.h"

namespace tandem {
namespace {

struct Options {
  AwqOptions awq;
  bool rounds = true;  // false: a later step gives the result

  bool operator==(const Options&) const = default;
};

class AwqStep final : public Step {
 public:
  explicit AwqStep(PerMatrix<Options> options) : options_(std::move(options)) {}

  StepNeeds needs() const override {
    return {.inputs = false, .gram = true, .layer_inputs = true, .search = true};
  }
  bool gives_result(int64_t layer, Linear linear) const override {
    const std::optional<Options>& options = options_.at(layer, linear);
    return options && options->rounds;
  }
  void prepare_layer(LayerWork& work) override;
  void run_set(SetWork& work) override;

 private:
  // The set's matrices that this step takes; their common options, none where it takes none.
  std::optional<AwqOptions> taken(LayerWork& work, LinearSet set, std::vector<Matrix*>& out) const;
  // Finds and folds the scales of a set's inputs, which the norm and, where it is not null, the
  // linear `before` make.
  void scale_set(LayerWork& work, LinearSet set, std::vector<float>* norm, LinearWork* before);
  void clip_set(LayerWork& work, LinearSet set);

  PerMatrix<Options> options_;
  const Multiply multiply_ = find_multiply(best_isa());
};

std::optional<AwqOptions> AwqStep::taken(LayerWork& work, LinearSet set,
                                         std::vector<Matrix*>& out) const {
  std::optional<AwqOptions> common;
  for (const Linear linear : linears_of(set)) {
    const std::optional<Options>& options = options_.at(work.layer, linear);
    if (!options) continue;
    if (common && !(*common == options->awq)) {
      fail(ErrorKind::usage,
           "awq: {} and {} share their scales, expected the same options for both",
           module_name(work.layer, linears_of(set).front()), module_name(work.layer, linear));
    }
    common = options->awq;
    out.push_back(&work.weights[linear].weight);
  }
  return common;
}

// What the layer's attention or MLP puts out, of the first T search tokens.
Matrix module_output(const LayerWork& work, LinearSet set, int64_t T) {
  return set == LinearSet::qkv ? work.search->attention_output(work.weights, T)
                               : work.search->mlp_output(work.weights, T);
}

void AwqStep::scale_set(LayerWork& work, LinearSet set, std::vector<float>* norm,
                        LinearWork* before) {
  std::vector<Matrix*> linears;
  const std::optional<AwqOptions> options = taken(work, set, linears);
  if (!options) return;
  InputStatistics& inputs = work.inputs_of(set);

  ScaleChoice choice;
  if (norm != nullptr) {
    const Matrix expected = module_output(work, set, work.search->num_tokens());
    // The mean square of what comes out otherwise.
    const auto loss = [&](int64_t T) {
      const Matrix output = module_output(work, set, T);
      const std::span<const float> wanted(expected.values.data(), output.values.size());
      return squared_distance(output.values, wanted) / static_cast<double>(output.values.size());
    };
    choice = search_scales(linears, inputs.mean_magnitude, *options, work.pool,
                           {[&] { return loss(work.search->num_tokens()); },
                            [&] { return loss(work.search->num_rough_tokens()); }});
  } else {
    const Matrix expected = *linears.front();
    choice = search_scales(linears, inputs.mean_magnitude, *options, work.pool, {[&] {
      return output_error(*linears.front(), expected, inputs.gram, multiply_, work.pool);
    }});
  }

  // All linears that read the inputs, those too that the step else leaves alone.
  for (const Linear linear : linears_of(set)) {
    scale_columns(work.weights[linear].weight, choice.scales);
  }
  if (norm != nullptr) divide(*norm, choice.scales);
  if (before != nullptr) {
    divide_rows(before->weight, choice.scales);
    divide(before->bias, choice.scales);
  }
  for (float& scale : choice.scales) scale = 1.0f / scale;
  scale_inputs(&inputs, choice.scales);
}

void AwqStep::clip_set(LayerWork& work, LinearSet set) {
  for (const Linear linear : linears_of(set)) {
    const std::optional<Options>& options = options_.at(work.layer, linear);
    // What q and k put out meets in a product: a bound for one says nothing of the other.
    if (!options || linear == Linear::q || linear == Linear::k) continue;
    clip_weights(work.weights[linear].weight, work.inputs_of(set).gram, options->awq, work.pool);
  }
}

void AwqStep::prepare_layer(LayerWork& work) {
  LayerWeights& weights = work.weights;
  scale_set(work, LinearSet::qkv, &weights.attn_norm, nullptr);
  // A KV head that several query heads share cannot take up the scales of each.
  if (weights[Linear::v].weight.N == weights[Linear::o].weight.K) {
    scale_set(work, LinearSet::o, nullptr, &weights[Linear::v]);
  }
  scale_set(work, LinearSet::gate_up, &weights.ffn_norm, nullptr);
  scale_set(work, LinearSet::down, nullptr, &weights[Linear::up]);
  for (const LinearSet set : kLinearSets) clip_set(work, set);
}

void AwqStep::run_set(SetWork& work) {
  for (const Linear linear : linears_of(work.set)) {
    const std::optional<Options>& options = options_.at(work.layer, linear);
    LinearWork& target = work.weights[linear];
    if (!options || !options->rounds || target.has_result()) continue;
    target.result = round_to_nearest(target.weight, options->awq.grid, work.pool);
  }
}

}  // namespace

std::unique_ptr<Step> make_awq(const StepSpec& spec, const ModelConfig& config) {
  return std::make_unique<AwqStep>(read_options<Options>(spec, config, [&](OptionReader& reader) {
    Options options;
    options.awq.grid = read_grid(reader, spec.scale_type, /*symmetric=*/false);
    options.awq.num_ratios = static_cast<int>(reader.integer("ratios", 20, 1, 1000));
    const std::string duo = reader.word("duo-scaling", "on", {"on", "off", "both"});
    options.awq.duo_scaling = duo == "on"    ? DuoScaling::on
                              : duo == "off" ? DuoScaling::off
                                             : DuoScaling::both;
    options.awq.num_clips = reader.boolean("clip", true) ? AwqOptions{}.num_clips : 1;
    options.rounds = reader.boolean("round", true);
    return options;
  }));
}

}  // namespace tandem
