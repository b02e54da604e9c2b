#include "compress/quantize_k.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr int kSuper = 256;

// The nearest integer, half to even, of |x| below 2^22: adding 1.5 * 2^23 leaves no bits below 1.
int nearest(float x) {
  return static_cast<int>(std::bit_cast<uint32_t>(x + 12582912.0f) & 0x7FFFFF) - 0x400000;
}

int nearest_within(float x, int low, int high) { return std::clamp(nearest(x), low, high); }

float store_f16(float value, uint8_t* out) {
  const uint16_t h = float_to_f16(value);
  std::memcpy(out, &h, sizeof h);
  return f16_to_float(h);
}

// A group as x ~ scale * code + min, min <= 0, codes 0..steps.
struct Range {
  float scale = 0;
  float min = 0;
};

// Sums over a group with its weights, w.
struct Sums {
  float w = 0, x = 0, code = 0, code2 = 0, x_code = 0;
};

// The scale and the minimum of least weighted squared error for given codes; nothing when they
// determine none (all codes equal).
bool least_squares(const Sums& sums, Range* range) {
  const float determinant = sums.w * sums.code2 - sums.code * sums.code;
  if (!(determinant > 0)) return false;
  range->scale = (sums.w * sums.x_code - sums.x * sums.code) / determinant;
  range->min = (sums.code2 * sums.x - sums.code * sums.x_code) / determinant;
  if (range->min > 0) *range = {sums.x_code / sums.code2, 0};
  return true;
}

constexpr int kRangeGroup = 32;
constexpr int kRangeSteps = 15;

float weighted_error(const float* x, const float* w, const int* codes, const Range& range) {
  float error = 0;
  for (int i = 0; i < kRangeGroup; ++i) {
    const float diff = range.scale * static_cast<float>(codes[i]) + range.min - x[i];
    error += w[i] * diff * diff;
  }
  return error;
}

// Weights are |x| plus the group's root mean square: large numbers count more.
Range best_range(const float* x) {
  float sum_x2 = 0, w[kRangeGroup];
  for (int i = 0; i < kRangeGroup; ++i) sum_x2 += x[i] * x[i];
  const float rms = std::sqrt(sum_x2 / kRangeGroup);
  Sums fixed;
  for (int i = 0; i < kRangeGroup; ++i) {
    w[i] = rms + std::fabs(x[i]);
    fixed.w += w[i];
    fixed.x += w[i] * x[i];
  }
  const auto [least, largest] = std::minmax_element(x, x + kRangeGroup);
  const float min = std::min(*least, 0.0f), width = *largest - min;
  if (width == 0) return {0, min};

  int codes[kRangeGroup];
  const auto set_codes = [&](float steps) {
    const float inverse = steps / width;
    for (int i = 0; i < kRangeGroup; ++i) {
      codes[i] = nearest_within(inverse * (x[i] - min), 0, kRangeSteps);
    }
  };
  set_codes(kRangeSteps);
  Range best{width / kRangeSteps, min};
  float best_error = weighted_error(x, w, codes, best);
  for (int attempt = 0; attempt <= 20; ++attempt) {
    set_codes(kRangeSteps - 1 + 0.1f * static_cast<float>(attempt));
    Sums sums = fixed;
    for (int i = 0; i < kRangeGroup; ++i) {
      const float code = static_cast<float>(codes[i]);
      sums.code += w[i] * code;
      sums.code2 += w[i] * code * code;
      sums.x_code += w[i] * code * x[i];
    }
    Range range;
    if (!least_squares(sums, &range)) continue;
    const float error = weighted_error(x, w, codes, range);
    if (error < best_error) {
      best_error = error;
      best = range;
    }
  }
  return best;
}

// Eight 6-bit scales and eight 6-bit minimums in 12 bytes, as super_block.cpp reads them.
void store_six_bit_pairs(const uint8_t* scales, const uint8_t* mins, uint8_t* out) {
  for (int g = 0; g < 4; ++g) {
    out[g] = static_cast<uint8_t>(scales[g] | (scales[g + 4] >> 4) << 6);
    out[g + 4] = static_cast<uint8_t>(mins[g] | (mins[g + 4] >> 4) << 6);
    out[g + 8] = static_cast<uint8_t>((scales[g + 4] & 15) | (mins[g + 4] & 15) << 4);
  }
}

constexpr int kSignedGroup = 16;
constexpr int kSignedZero = 32;

// A group as x ~ scale * code, codes -32..31, with weights x^2. The best scale for given codes is
// sum(x^3 code) / sum(x^2 code^2); what it leaves is least where scale * sum(x^3 code) is largest.
float best_signed_scale(const float* x) {
  float largest = 0;
  for (int i = 0; i < kSignedGroup; ++i) {
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  }
  constexpr float kNothing = 1e-15f;
  if (std::fabs(largest) < kNothing) return 0;
  float scale = 0, best = 0;
  const auto attempt = [&](float steps) {
    const float inverse = -steps / largest;
    float x_code = 0, code2 = 0;
    for (int i = 0; i < kSignedGroup; ++i) {
      const auto code =
          static_cast<float>(nearest_within(inverse * x[i], -kSignedZero, kSignedZero - 1));
      const float w = x[i] * x[i];
      x_code += w * x[i] * code;
      code2 += w * code * code;
    }
    if (!(code2 > 0 && x_code * x_code > best * code2)) return;
    scale = x_code / code2;
    best = scale * x_code;
  };
  attempt(kSignedZero);
  for (int step = -9; step <= 9; ++step) {
    if (step != 0) attempt(static_cast<float>(kSignedZero) + 0.1f * static_cast<float>(step));
  }
  return scale;
}

}  // namespace

void quantize_q4_k(const float* x, uint8_t* out) {
  constexpr int kGroups = kSuper / kRangeGroup, kMaxInteger = 63;
  Range ranges[kGroups];
  float max_scale = 0, max_min = 0;
  for (int g = 0; g < kGroups; ++g) {
    ranges[g] = best_range(x + g * kRangeGroup);
    max_scale = std::max(max_scale, ranges[g].scale);
    max_min = std::max(max_min, -ranges[g].min);
  }
  const float inverse_scale = max_scale > 0 ? kMaxInteger / max_scale : 0;
  const float inverse_min = max_min > 0 ? kMaxInteger / max_min : 0;
  uint8_t scales[kGroups], mins[kGroups];
  for (int g = 0; g < kGroups; ++g) {
    scales[g] =
        static_cast<uint8_t>(nearest_within(inverse_scale * ranges[g].scale, 0, kMaxInteger));
    mins[g] = static_cast<uint8_t>(nearest_within(inverse_min * -ranges[g].min, 0, kMaxInteger));
  }
  const float d = store_f16(max_scale / kMaxInteger, out);
  const float dmin = store_f16(max_min / kMaxInteger, out + 2);
  store_six_bit_pairs(scales, mins, out + 4);

  // The codes that go with the scales as they are stored.
  uint8_t codes[kSuper] = {};
  for (int k = 0; k < kSuper; ++k) {
    const int g = k / kRangeGroup;
    const float scale = d * static_cast<float>(scales[g]);
    const float min = dmin * static_cast<float>(mins[g]);
    if (scale != 0) {
      codes[k] = static_cast<uint8_t>(
          std::clamp(std::nearbyint((x[k] + min) / scale), 0.0f, float{kRangeSteps}));
    }
  }
  for (int k = 0; k < kSuper; k += 64) {
    for (int i = 0; i < 32; ++i) {
      out[16 + k / 2 + i] = static_cast<uint8_t>(codes[k + i] | codes[k + 32 + i] << 4);
    }
  }
}

void quantize_q6_k(const float* x, uint8_t* out) {
  constexpr int kGroups = kSuper / kSignedGroup;
  float scales[kGroups], largest = 0;
  for (int g = 0; g < kGroups; ++g) {
    scales[g] = best_signed_scale(x + g * kSignedGroup);
    if (std::fabs(scales[g]) > std::fabs(largest)) largest = scales[g];
  }
  std::memset(out, 0, 210);
  if (largest == 0) return;
  // The largest scale becomes -128: an int8 reaches one further on that side.
  const float inverse = -128.0f / largest;
  const float d = store_f16(1.0f / inverse, out + 208);
  uint8_t codes[kSuper];
  for (int g = 0; g < kGroups; ++g) {
    const int integer = nearest_within(inverse * scales[g], -128, 127);
    out[192 + g] = static_cast<uint8_t>(integer);
    const float scale = d * static_cast<float>(integer);
    for (int k = g * kSignedGroup; k < (g + 1) * kSignedGroup; ++k) {
      const float code = scale == 0 ? 0.0f : std::nearbyint(x[k] / scale);
      codes[k] = static_cast<uint8_t>(std::clamp(code, -32.0f, 31.0f) + kSignedZero);
    }
  }
  // Four lower bits and two upper bits, each half of 128 elements apart (tensor/super_block.cpp).
  for (int k = 0; k < kSuper; ++k) {
    const int half = k / 128, i = k % 128;
    out[half * 64 + i % 64] |= static_cast<uint8_t>((codes[k] & 15) << (i / 64 * 4));
    out[128 + half * 32 + i % 32] |= static_cast<uint8_t>((codes[k] >> 4) << (i / 32 * 2));
  }
}

}  // namespace tandem
