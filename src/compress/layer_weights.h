// One decoder layer in float while the steps of a recipe work on it, and what its matrices become.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "compress/integer_grid.h"
#include "compress/matrix.h"
#include "formats/checkpoint.h"

namespace tandem {

enum class Linear : uint8_t { q, k, v, o, gate, up, down };
inline constexpr int kNumLinears = 7;

// Linears that share their inputs, in the order in which they are compressed: each set sees the
// compressed ones before it.
enum class LinearSet : uint8_t { qkv, o, gate_up, down };
inline constexpr int kNumSets = 4;
inline constexpr LinearSet kLinearSets[] = {LinearSet::qkv, LinearSet::o, LinearSet::gate_up,
                                            LinearSet::down};
std::span<const Linear> linears_of(LinearSet set);
const char* set_name(LinearSet set);  // "gate_up"

// K, the input channels of a linear.
int64_t width_of(const ModelConfig& config, Linear linear);

// "model.layers.3.self_attn.q_proj", what globs match; with ".weight" behind it the tensor's name.
std::string module_name(int64_t layer, Linear linear);

// A matrix in bytes of one of tensor/encoding.h's encodings, for results that are no integer grid.
struct EncodedMatrix {
  Encoding encoding;
  int64_t N = 0;
  int64_t K = 0;
  std::vector<std::byte> data;    // [N, encoding.row_bytes(K)]
  std::vector<std::byte> scales;  // as Weight::scales; empty when inside data
  // Consecutive rows whose scales are the same, which a file stores once: 1, kFp8Block or N.
  int64_t scale_rows = 1;

  // Points into this matrix.
  Weight weight() const;
};

struct LinearWork {
  Matrix weight;             // as the steps have left it; once there is a result, its decoded numbers
  std::vector<float> bias;   // [N]; empty: none
  // [N, K] 1: kept, 0: pruned, whose weight is 0 and whose code must decode to 0; empty: dense.
  std::vector<uint8_t> keep;
  // What the matrix is written as; none: its floats, as bf16.
  std::variant<std::monostate, GridMatrix, EncodedMatrix> result;
  // Static scale of the inputs, x = code * scale; 0: none.
  float input_scale = 0;

  bool has_result() const { return !std::holds_alternative<std::monostate>(result); }
};

struct LayerWeights {
  std::array<LinearWork, kNumLinears> linears;
  std::vector<float> attn_norm;  // [C], feeds qkv
  std::vector<float> ffn_norm;   // [C], feeds gate_up
  std::vector<float> q_norm;     // [D]; empty: none
  std::vector<float> k_norm;     // [D]; empty: none

  LinearWork& operator[](Linear linear) { return linears[static_cast<size_t>(linear)]; }
  const LinearWork& operator[](Linear linear) const {
    return linears[static_cast<size_t>(linear)];
  }
};

// Decodes layer l; rows in logical order. Throws bad_file naming a tensor that holds NaN or
// infinity.
LayerWeights load_layer(const Checkpoint& source, int64_t layer, ThreadPool& pool);
// The same into the memory of a layer that is no longer needed.
void load_layer(const Checkpoint& source, int64_t layer, ThreadPool& pool, LayerWeights* weights);

}  // namespace tandem
