// The steps that prune a model to 2:4: random-24, magnitude-24, wanda, sparsegpt, mask-file and
// learned-mask. They mark what is pruned in LinearWork::keep and give no result, so that a step
// behind them may quantize the survivors; without one the matrices are written in bf16 with zeros.

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "compress/inverse_factor.h"
#include "compress/mask24.h"
#include "compress/mask_annealing.h"
#include "compress/mask_file.h"
#include "compress/mask_learning.h"
#include "compress/masked_refit.h"
#include "compress/methods.h"
#include "compress/prune.h"
#include "compress/sparse_gpt.h"

namespace tandem {
namespace {

enum class MaskChoice : uint8_t { random, magnitude, wanda, sparse_gpt, file, learned };

struct PruneOptions {
  double damping = 0.01;
  bool refit = false;  // least squares of the survivors, behind the mask
  MaskLearning learning;    // learned-mask without refit
  MaskAnnealing annealing;  // and with it
};

// Survivors that annealing leaves are nearly the least squares solution.
constexpr int64_t kIterationsAfterAnnealing = 16;

struct MaskMethod {
  const char* name;
  MaskChoice choice;
};
constexpr MaskMethod kMaskMethods[] = {
    {"random-24", MaskChoice::random},     {"magnitude-24", MaskChoice::magnitude},
    {"wanda", MaskChoice::wanda},          {"sparsegpt", MaskChoice::sparse_gpt},
    {"mask-file", MaskChoice::file},       {"learned-mask", MaskChoice::learned}};

MaskChoice choice_of(std::string_view method) {
  for (const MaskMethod& row : kMaskMethods) {
    if (method == row.name) return row.choice;
  }
  CHECK(false, "method {}", method);
  return {};
}

bool wants_factor(MaskChoice choice) {
  return choice == MaskChoice::sparse_gpt || choice == MaskChoice::learned;
}

// A row's bytes of Mask24 as one byte an element.
void expand_row(std::span<const uint8_t> kept, uint8_t* keep) {
  for (size_t k = 0; k < 4 * kept.size(); ++k) keep[k] = kept[k / 4] >> (k % 4) & 1;
}

class PruneStep : public Step {
 public:
  PruneStep(const StepSpec& spec, const ModelConfig& config)
      : method_(spec.method),
        choice_(choice_of(spec.method)),
        options_(read_options<PruneOptions>(
            spec, config, [this](OptionReader& reader) { return read(reader); })) {
    if (choice_ == MaskChoice::file) file_.emplace(path_);
  }

  StepNeeds needs() const override {
    const bool calibrated = choice_ != MaskChoice::random && choice_ != MaskChoice::magnitude &&
                            choice_ != MaskChoice::file;
    // Wanda alone looks at the layer as it came, over the search's rows.
    return {.inputs = (calibrated && choice_ != MaskChoice::wanda) || refits_,
            .gram = calibrated || refits_,
            .layer_inputs = choice_ == MaskChoice::wanda};
  }
  bool gives_result(int64_t, Linear) const override { return false; }

  // Wanda's norms are of the layer as it came, as in the paper: those behind pruned sets of the same
  // layer choose worse.
  void prepare_layer(LayerWork& work) override {
    if (choice_ != MaskChoice::wanda) return;
    for (const LinearSet set : kLinearSets) {
      for (const Linear linear : linears_of(set)) {
        if (!options_.at(work.layer, linear)) continue;
        wanda_masks_[static_cast<size_t>(linear)] =
            wanda_mask(work.weights[linear].weight, work.inputs_of(set), work.pool);
      }
    }
  }

  void run_set(SetWork& set) override {
    std::optional<InverseFactor> factor;
    for (const Linear linear : linears_of(set.set)) {
      const auto& options = options_.at(set.layer, linear);
      if (!options) continue;
      const std::string module = module_name(set.layer, linear);
      LinearWork& work = set.weights[linear];
      if (work.has_result() || !work.keep.empty()) {
        fail(ErrorKind::usage, "{}: {} is {} already, expected {} to come first", method_,
             quote(module), work.has_result() ? "quantized" : "pruned", method_);
      }
      if (wants_factor(choice_) && !factor) {
        factor = inverse_factor(set.inputs, options->damping, {}, set.pool);
      }
      prune(module, linear, &work, set, *options, factor ? &*factor : nullptr);
    }
  }

 private:
  PruneOptions read(OptionReader& reader) {
    check_prunable(reader.module(), reader.width());
    PruneOptions options;
    options.refit = reader.boolean("refit", choice_ == MaskChoice::learned);
    refits_ |= options.refit;
    if (wants_factor(choice_) || options.refit) {
      options.damping = reader.number("damping", options.damping, 0, 1);
    }
    MaskLearning& learning = options.learning;
    if (choice_ == MaskChoice::random || choice_ == MaskChoice::learned) {
      learning.seed = static_cast<uint64_t>(reader.integer("seed", 0, 0, int64_t{1} << 53));
    }
    if (choice_ == MaskChoice::learned && options.refit) {
      MaskAnnealing& annealing = options.annealing;
      annealing.sweeps = reader.integer("sweeps", annealing.sweeps, 1, 100000);
      annealing.heat = reader.number("heat", annealing.heat, 0, 1000);
      annealing.damping = options.damping;
      annealing.seed = learning.seed;
    } else if (choice_ == MaskChoice::learned) {
      learning.iterations = reader.integer("iterations", learning.iterations, 1, 100000);
      learning.rate = reader.number("rate", learning.rate, 0, 10);
      learning.prior_strength = reader.number("prior", learning.prior_strength, 0, 100);
    }
    if (choice_ == MaskChoice::file) {
      path_ = reader.text("path", path_);
      if (path_.empty()) reader.refuse("path", "missing, expected an .npz file of masks");
    }
    return options;
  }

  std::vector<uint8_t> simple_mask(const std::string& module, const Matrix& w, uint64_t seed,
                                   ThreadPool& pool) const {
    std::vector<uint8_t> keep(w.values.size());
    const uint64_t tensor_seed = mask_seed(seed, module + ".weight");
    pool.parallel_for(w.N, 16, [&](int64_t first, int64_t last, int) {
      std::vector<uint8_t> kept(static_cast<size_t>(w.K / 4));
      for (int64_t n = first; n < last; ++n) {
        if (choice_ == MaskChoice::random) {
          keep_random_of_row(tensor_seed, n, kept);
        } else {
          keep_largest_of_row({w.row(n), static_cast<size_t>(w.K)}, kept);
        }
        expand_row(kept, keep.data() + n * w.K);
      }
    });
    return keep;
  }

  void prune(const std::string& module, Linear linear, LinearWork* work, SetWork& set,
             const PruneOptions& options, const InverseFactor* factor) const {
    Matrix& w = work->weight;
    const Matrix original = options.refit ? w : Matrix();
    switch (choice_) {
      case MaskChoice::random:
      case MaskChoice::magnitude:
        work->keep = simple_mask(module, w, options.learning.seed, set.pool);
        break;
      case MaskChoice::wanda: work->keep = wanda_masks_[static_cast<size_t>(linear)]; break;
      case MaskChoice::file: work->keep = read_mask(*file_, module, w.N, w.K); break;
      case MaskChoice::sparse_gpt: work->keep = sparse_gpt(&w, *factor, set.pool); break;
      case MaskChoice::learned: work->keep = learned_mask(module, &w, set, options, *factor); break;
    }
    for (size_t i = 0; i < work->keep.size(); ++i) {
      if (work->keep[i] == 0) w.values[i] = 0.0f;
    }
    if (!options.refit) return;
    RefitOptions refit{.damping = options.damping};
    if (choice_ == MaskChoice::learned) refit.max_iterations = kIterationsAfterAnnealing;
    refit_survivors(&w, original, work->keep, set.inputs, refit, set.pool);
  }

  // From SparseGPT's mask. With a refit the survivors are near their best already; without, w stays.
  static std::vector<uint8_t> learned_mask(const std::string& module, Matrix* w, SetWork& set,
                                           const PruneOptions& options,
                                           const InverseFactor& factor) {
    Matrix pruned = *w;
    std::vector<uint8_t> keep = sparse_gpt(&pruned, factor, set.pool);
    if (!options.refit) {
      MaskLearning learning = options.learning;
      learning.seed = mask_seed(learning.seed, module);
      return learn_mask(*w, keep, set.inputs, learning, set.pool);
    }
    MaskAnnealing annealing = options.annealing;
    annealing.seed = mask_seed(annealing.seed, module);
    anneal_mask(&pruned, &keep, *w, set.inputs, annealing, set.pool);
    *w = std::move(pruned);
    return keep;
  }

  const std::string method_;
  const MaskChoice choice_;
  bool refits_ = false;
  std::string path_;
  std::array<std::vector<uint8_t>, kNumLinears> wanda_masks_;  // of the layer at hand
  const PerMatrix<PruneOptions> options_;
  std::optional<NpzFile> file_;
};

}  // namespace

std::unique_ptr<Step> make_prune(const StepSpec& spec, const ModelConfig& config) {
  return std::make_unique<PruneStep>(spec, config);
}

}  // namespace tandem
