// bitsandbytes' double quantization: the absmax of blocks, less their mean, in turn as bytes.
//   absmax = map[code] * nested_absmax[i / 256] + offset
// Bit for bit what the library's CPU code does, which looks a value up among 65536 points of [-1, 1]
// and takes the number of the map that is nearest to the point.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace tandem {

inline constexpr int64_t kNestedBlock = 256;

// The library's signed dynamic map: 7 decades, each twice as fine as the one below; rising.
const std::array<float, 256>& dynamic_map();

// The mean, added in the library's order on one thread (torch.mean).
float absmax_offset(std::span<const float> absmax);

struct NestedAbsmax {
  std::vector<uint8_t> codes;  // one for each absmax
  std::vector<float> absmax;   // one for each kNestedBlock of them
};
NestedAbsmax quantize_absmax(std::span<const float> absmax, float offset);

}  // namespace tandem
