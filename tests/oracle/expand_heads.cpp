// expand_heads MODEL OUT [NOISE [SEED]]: an MHA model that is known to be GQA in disguise, in f32. Every
// KV head of MODEL is copied for each of its query heads; then each is turned with its query head
// (planes of q and k that commute with RoPE, any orthogonal matrix on v and o) and all are put out of
// order. The function stays; NOISE times a head's root mean square is added to the elements of each
// copy. Prints, a line a layer, which KV head of MODEL each head of OUT was.
#include <Eigen/Dense>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numbers>
#include <span>

#include "base/error.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "compress/attention_heads.h"
#include "compress/layer_weights.h"

namespace tandem {
namespace {

using Square = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Matrix copied(const Matrix& m, int64_t D, int64_t copies) {
  Matrix out(m.N * copies, m.K);
  for (int64_t n = 0; n < out.N; ++n) {
    std::copy_n(m.row(n / D / copies * D + n % D), m.K, out.row(n));
  }
  return out;
}

void add_noise(Matrix* m, int64_t D, double noise, Random* random) {
  for (int64_t head = 0; head < m->N / D; ++head) {
    const std::span<float> values(m->row(head * D), static_cast<size_t>(D * m->K));
    double power = 0;
    for (const float w : values) power += double{w} * w;
    const double rms = std::sqrt(power / static_cast<double>(values.size()));
    for (float& w : values) w += static_cast<float>(noise * rms * random->normal());
  }
}

HeadRotations random_rotations(int64_t heads, int64_t D, Random* random) {
  HeadRotations out;
  for (int64_t i = 0; i < heads * D / 2; ++i) {
    out.angles.push_back(2 * std::numbers::pi * random->uniform());
  }
  for (int64_t head = 0; head < heads; ++head) {
    Square m(D, D);
    for (double& x : m.reshaped()) x = random->normal();
    const Square Q = Eigen::HouseholderQR<Square>(m).householderQ();
    out.orthogonal.insert(out.orthogonal.end(), Q.data(), Q.data() + D * D);
  }
  return out;
}

// KV heads of before, at their places in the layer of after.
std::vector<int64_t> expand_layer(LayerWeights* weights, const ModelConfig& config, double noise,
                                  Random* random) {
  const int64_t H = config.num_heads, D = config.head_dim, copies = H / config.num_kv_heads;
  AttentionHeads heads;
  heads.num_heads = heads.num_kv_heads = H;
  heads.head_dim = D;
  heads.q = (*weights)[Linear::q].weight;
  heads.k = copied((*weights)[Linear::k].weight, D, copies);
  heads.v = copied((*weights)[Linear::v].weight, D, copies);
  heads.o = (*weights)[Linear::o].weight;
  if (noise > 0) {
    add_noise(&heads.k, D, noise, random);
    add_noise(&heads.v, D, noise, random);
  }
  rotate_heads(&heads, random_rotations(H, D, random));
  std::vector<int64_t> order(static_cast<size_t>(H)), origin;
  for (size_t j = 0; j < order.size(); ++j) order[j] = static_cast<int64_t>(j);
  for (size_t j = order.size() - 1; j > 0; --j) std::swap(order[j], order[random->below(j + 1)]);
  reorder_heads(&heads, order);
  for (const int64_t head : order) origin.push_back(head / copies);
  (*weights)[Linear::q].weight = heads.q;
  (*weights)[Linear::k].weight = heads.k;
  (*weights)[Linear::v].weight = heads.v;
  (*weights)[Linear::o].weight = heads.o;
  return origin;
}

TensorSource f32_source(const std::string& name, const Weight& w) {
  std::vector<int64_t> shape = {w.N, w.K};
  if (w.N == 1) shape = {w.K};
  return {name, "F32", shape, static_cast<uint64_t>(w.N * w.K) * sizeof(float),
          [w](const ByteSink& sink) {
            std::vector<float> row(static_cast<size_t>(w.K));
            for (int64_t n = 0; n < w.N; ++n) {
              decode_row(w, n, row.data());
              sink(std::as_bytes(std::span(row)));
            }
          }};
}

Weight f32_weight(const Matrix& m) {
  return {.encoding = kF32,
          .N = m.N,
          .K = m.K,
          .data = reinterpret_cast<const std::byte*>(m.values.data())};
}

void expand(const char* model, const char* out, double noise, uint64_t seed) {
  const Checkpoint source = load_checkpoint(model);
  if (source.config.qkv_bias || source.config.qk_norm) {
    fail(ErrorKind::usage, "{}: expected a model whose q and k have neither bias nor norm", model);
  }
  ThreadPool pool(2, /*pin=*/false);
  Random random(seed);
  ModelConfig config = source.config;
  config.num_kv_heads = config.num_heads;
  std::vector<LayerWeights> layers;
  for (int64_t l = 0; l < config.num_layers; ++l) {
    layers.push_back(load_layer(source, l, pool));
    for (const int64_t head : expand_layer(&layers.back(), source.config, noise, &random)) {
      std::printf("%d ", static_cast<int>(head));
    }
    std::printf("\n");
  }
  std::vector<TensorSource> tensors;
  for (const NamedTensor& tensor : source.tensors) {
    Weight weight = tensor.weight;
    for (int64_t l = 0; l < config.num_layers; ++l) {
      for (const Linear linear : {Linear::q, Linear::k, Linear::v, Linear::o}) {
        if (tensor.name != module_name(l, linear) + ".weight") continue;
        weight = f32_weight(layers[static_cast<size_t>(l)][linear].weight);
      }
    }
    tensors.push_back(f32_source(tensor.name, weight));
  }
  write_hf_folder(out, config, source.tokenizer, tensors, "", "",
                  std::filesystem::is_directory(source.path) ? source.path
                                                             : std::filesystem::path());
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) {
    std::fprintf(stderr, "usage: expand_heads MODEL OUT [NOISE [SEED]]\n");
    return 2;
  }
  try {
    tandem::expand(argv[1], argv[2], argc > 3 ? std::atof(argv[3]) : 0.0,
                   argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 1);
  } catch (const tandem::Error& error) {
    std::fprintf(stderr, "expand_heads: %s\n", error.what());
    return tandem::exit_code(error.kind);
  }
  return 0;
}
