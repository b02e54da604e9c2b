// Random weights in any packing, for parity tests and benches.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "kernels/ops.h"
#include "tensor/dtype.h"
#include "tensor/sparse.h"
#include "tensor/weight.h"

namespace tandem {

// Where a GGUF block keeps its f16 numbers.
struct BlockFields {
  size_t bytes;  // of a block; 0: the packing has no blocks
  size_t scale;
  int min;       // -1: none
};

inline BlockFields block_fields(Packing packing) {
  switch (packing) {
    case Packing::q4_0:
    case Packing::iq4_nl: return {18, 0, -1};
    case Packing::q4_1: return {20, 0, 2};
    case Packing::q5_0: return {22, 0, -1};
    case Packing::q5_1: return {24, 0, 2};
    case Packing::q8_0: return {34, 0, -1};
    case Packing::q2_k: return {84, 80, 82};
    case Packing::q3_k: return {110, 108, -1};
    case Packing::q4_k: return {144, 0, 2};
    case Packing::q5_k: return {176, 0, 2};
    case Packing::q6_k: return {210, 208, -1};
    default: return {0, 0, -1};
  }
}

struct RandomWeight {
  Weight weight;
  std::vector<std::byte> data, scales;
  std::vector<float> table;
  std::vector<uint8_t> zeros;

  RandomWeight(Encoding encoding, int64_t N, int64_t K, uint64_t seed) {
    Random random(seed);
    weight.encoding = encoding;
    weight.N = N;
    weight.K = K;
    data.resize(static_cast<size_t>(N) * encoding.row_bytes(K));
    for (auto& b : data) {
      b = static_cast<std::byte>(random.next());
      const bool is_nan = encoding.has_e4m3_codes() && (b & std::byte{0x7F}) == std::byte{0x7F};
      if (is_nan) b ^= std::byte{1};
    }
    const auto put = [&](std::byte* p, ScaleType type) {
      store_scale(p, type, static_cast<float>(0.002 + 0.01 * random.uniform()));
    };
    if (encoding.is_sparse()) {
      const size_t bytes = encoding.row_bytes(K), places = static_cast<size_t>(K / 8);
      const bool is_f16 = encoding.packing == Packing::f16_24;
      for (size_t row = 0; row < data.size(); row += bytes) {
        for (size_t i = 0; encoding.bits() == 16 && i < static_cast<size_t>(K / 2); ++i) {
          const float value = static_cast<float>(0.05 * random.normal());
          const uint16_t h = is_f16 ? float_to_f16(value) : float_to_bf16(value);
          std::memcpy(&data[row + 2 * i], &h, 2);
        }
        for (size_t i = bytes - places; i < bytes; ++i) {
          data[row + i] = static_cast<std::byte>(kPlaces24[random.below(6)] |
                                                 kPlaces24[random.below(6)] << 4);
        }
      }
    }
    if (encoding.is_plain()) {
      for (size_t i = 0; i < static_cast<size_t>(N * K); ++i) {
        const float value = static_cast<float>(0.05 * random.normal());
        if (encoding.packing == Packing::f32) {
          std::memcpy(&data[i * 4], &value, 4);
        } else {
          const uint16_t h = encoding.packing == Packing::f16 ? float_to_f16(value) : float_to_bf16(value);
          std::memcpy(&data[i * 2], &h, 2);
        }
      }
    } else if (const BlockFields fields = block_fields(encoding.packing); fields.bytes != 0) {
      // A K-quant's minimum is subtracted, and the integers beside reach 63.
      const double unit = encoding.is_super() ? -0.1 : 1.0;
      for (size_t at = 0; at < data.size(); at += fields.bytes) {
        put(&data[at + fields.scale], ScaleType::f16);
        if (fields.min >= 0) {
          store_scale(&data[at + static_cast<size_t>(fields.min)], ScaleType::f16,
                      static_cast<float>(unit * (-0.05 + 0.02 * random.normal())));
        }
      }
    } else if (encoding.scale_type != ScaleType::none) {
      const size_t step = scale_bytes(encoding.scale_type);
      scales.resize(static_cast<size_t>(N * encoding.groups_per_row(K)) * step);
      for (size_t at = 0; at < scales.size(); at += step) put(&scales[at], encoding.scale_type);
    }
    if (encoding.packing == Packing::codebook) {
      for (int i = 0; i < 16; ++i) table.push_back(std::sin(static_cast<float>(5 * i)));
      weight.table = table.data();
    }
    if (encoding.has_zeros()) {
      zeros.resize(weight.zeros_bytes());
      for (uint8_t& zero : zeros) zero = static_cast<uint8_t>(random.below(1u << encoding.bits()));
      weight.zeros = zeros.data();
    }
    weight.data = data.data();
    weight.scales = scales.empty() ? nullptr : scales.data();
  }
};

// Activations in buffers of their own.
struct OwnedActivations {
  std::vector<float> f32, scales, sums;
  std::vector<int8_t> codes;
  Activations view;

  OwnedActivations(ActType type, int64_t T, int64_t K) {
    view.type = type;
    view.T = T;
    view.K = K;
    view.static_scale = 0.05f;
    f32.resize(static_cast<size_t>(T * K), NAN);
    codes.resize(static_cast<size_t>(view.num_codes()), 99);
    scales.resize(static_cast<size_t>(view.num_scales()), NAN);
    sums.resize(static_cast<size_t>(T * view.groups()), NAN);
    view.f32 = f32.data();
    view.codes = codes.data();
    view.scales = scales.data();
    view.sums = sums.data();
  }

  // The value that stands for x[t, k].
  double value(int64_t t, int64_t k) const {
    if (view.type == ActType::f32) return f32[static_cast<size_t>(t * view.K + k)];
    if (view.type == ActType::int8_outlier) {
      const int8_t* planes = &codes[static_cast<size_t>(t * 3 * view.K_padded() + k)];
      return static_cast<double>(planes[0]) * scales[static_cast<size_t>(t)] +
             static_cast<double>(outlier_code(t, k)) * scales[static_cast<size_t>(view.T + t)];
    }
    const int8_t code = codes[static_cast<size_t>(t * view.K_padded() + k)];
    if (is_fp8(view.type)) return static_cast<double>(e4m3_to_float(static_cast<uint8_t>(code))) * scale(t, k);
    return static_cast<double>(code) * step(t, k);
  }
  // int8_outlier: of 16 bits, 0 where x[t, k] is none.
  int outlier_code(int64_t t, int64_t k) const {
    const int8_t* planes = &codes[static_cast<size_t>(t * 3 * view.K_padded() + k)];
    return kOutlierRadix * planes[view.K_padded()] + planes[2 * view.K_padded()];
  }
  // The distance of two codes at x[t, k], of the larger two neighbours; 0 for f32.
  double step(int64_t t, int64_t k) const {
    if (view.type == ActType::f32) return 0;
    if (is_fp8(view.type)) {
      const double code = std::fabs(value(t, k)) / scale(t, k);
      return scale(t, k) * std::exp2(std::max(-9.0, std::floor(std::log2(code)) - 3));
    }
    if (view.type == ActType::int8_outlier && outlier_code(t, k) != 0) return scales[static_cast<size_t>(view.T + t)];
    return scale(t, k);
  }
  float scale(int64_t t, int64_t k) const {
    return scales[static_cast<size_t>(k / view.group() * view.T + t)];
  }
};

inline std::vector<float> random_floats(int64_t n, uint64_t seed, double scale = 1.0) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = static_cast<float>(scale * random.normal());
  return values;
}

// What a linear of this type is to be tested with: outliers, where they are treated apart.
inline std::vector<float> random_inputs(ActType type, int64_t n, uint64_t seed) {
  std::vector<float> values = random_floats(n, seed);
  for (size_t i = 5; type == ActType::int8_outlier && i < values.size(); i += 97) values[i] *= 25;
  return values;
}

}  // namespace tandem
