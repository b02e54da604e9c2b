#include "compress/double_quantization.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace tandem {
namespace {

constexpr int kPoints = 65536;
constexpr int kLanes = 8, kChains = 4, kLevels = 4;  // of torch's sum

// The code of each of kPoints evenly spaced numbers from -1 to 1.
std::vector<uint8_t> make_point_codes() {
  const auto& map = dynamic_map();
  std::vector<uint8_t> codes(kPoints);
  size_t code = 0;
  for (int i = 0; i < kPoints; ++i) {
    const float point = static_cast<float>(i) / (0.5f * (kPoints - 1)) - 1.0f;
    while (code < 255 && point > (map[code] + map[code + 1]) / 2) ++code;
    codes[static_cast<size_t>(i)] = static_cast<uint8_t>(code);
  }
  return codes;
}

using Vector = std::array<float, kLanes>;

void add(Vector& to, const float* from) {
  for (size_t i = 0; i < kLanes; ++i) to[i] += from[i];
}

// Sums of sums: kChains chains of vectors at each of kLevels levels, so that errors stay small.
float cascade_sum(std::span<const float> x) {
  const size_t vectors = x.size() / kLanes, steps = vectors / kChains;
  const size_t power = std::max<size_t>(4, static_cast<size_t>(std::bit_width(steps > 0 ? steps - 1 : 0)) / kLevels);
  const size_t step = size_t{1} << power;
  Vector sums[kLevels][kChains] = {};
  size_t i = 0;
  const auto add_step = [&] {
    for (size_t c = 0; c < kChains; ++c) add(sums[0][c], &x[(i * kChains + c) * kLanes]);
    ++i;
  };
  while (i + step <= steps) {
    for (size_t j = 0; j < step; ++j) add_step();
    for (size_t level = 1; level < kLevels; ++level) {
      for (size_t c = 0; c < kChains; ++c) {
        add(sums[level][c], sums[level - 1][c].data());
        sums[level - 1][c] = {};
      }
      if ((i & ((step - 1) << (level * power))) != 0) break;
    }
  }
  while (i < steps) add_step();
  for (size_t level = 1; level < kLevels; ++level) {
    for (size_t c = 0; c < kChains; ++c) add(sums[0][c], sums[level][c].data());
  }
  for (size_t v = steps * kChains; v < vectors; ++v) add(sums[0][0], &x[v * kLanes]);
  for (size_t c = 1; c < kChains; ++c) add(sums[0][0], sums[0][c].data());
  float total = 0;
  for (size_t k = vectors * kLanes; k < x.size(); ++k) total += x[k];
  for (const float lane : sums[0][0]) total += lane;
  return total;
}

}  // namespace

const std::array<float, 256>& dynamic_map() {
  static const std::array<float, 256> map = [] {
    std::array<float, 256> values{};
    size_t count = 0;
    for (int decade = 0; decade < 7; ++decade) {
      const int pieces = 1 << decade;
      const float step = 0.9f / static_cast<float>(pieces);
      const auto scale = static_cast<float>(std::pow(10.0, decade - 6));
      // torch.linspace(0.1, 1): from the nearer end, a product and a sum rounded once.
      const auto bound = [&](int i) {
        return i < (pieces + 1) / 2 ? std::fma(step, static_cast<float>(i), 0.1f)
                                    : std::fma(-step, static_cast<float>(pieces - i), 1.0f);
      };
      for (int i = 0; i < pieces; ++i) {
        const float middle = (bound(i) + bound(i + 1)) / 2;
        values[count++] = scale * middle;
        values[count++] = -scale * middle;
      }
    }
    values[count++] = 0;
    values[count] = 1;
    std::ranges::sort(values);
    return values;
  }();
  return map;
}

float absmax_offset(std::span<const float> absmax) {
  return cascade_sum(absmax) / static_cast<float>(absmax.size());
}

NestedAbsmax quantize_absmax(std::span<const float> absmax, float offset) {
  static const std::vector<uint8_t> point_codes = make_point_codes();
  NestedAbsmax nested;
  nested.codes.resize(absmax.size());
  for (size_t begin = 0; begin < absmax.size(); begin += kNestedBlock) {
    const size_t end = std::min(begin + kNestedBlock, absmax.size());
    float largest = 0;
    for (size_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(absmax[i] - offset));
    nested.absmax.push_back(largest);
    if (largest == 0) continue;  // codes of 0
    const float inverse = 1.0f / largest;
    for (size_t i = begin; i < end; ++i) {
      const float v = std::clamp((absmax[i] - offset) * inverse, -1.0f, 1.0f);
      const auto point = static_cast<size_t>(std::floor((v + 1.0f) * (0.5f * (kPoints - 1)) + 0.5f));
      nested.codes[i] = point_codes[std::min<size_t>(point, kPoints - 1)];
    }
  }
  return nested;
}

}  // namespace tandem
