#include "tensor/sparse.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

uint8_t largest_two(const float* group) {
  int first = 2, second = 3;  // places, of ascending magnitude: the higher place wins a tie
  if (std::fabs(group[first]) > std::fabs(group[second])) std::swap(first, second);
  for (const int i : {1, 0}) {
    if (std::fabs(group[i]) <= std::fabs(group[first])) continue;
    first = i;
    if (std::fabs(group[first]) > std::fabs(group[second])) std::swap(first, second);
  }
  return static_cast<uint8_t>(std::min(first, second) | std::max(first, second) << 2);
}

}  // namespace

const uint8_t* row_places(const Weight& w, int64_t n) {
  CHECK(w.encoding.is_sparse() && n >= 0 && n < w.N, "{} row {} of {}", w.encoding.name(), n, w.N);
  const size_t bytes = w.encoding.row_bytes(w.K);
  const auto* row =
      reinterpret_cast<const uint8_t*>(w.data) + static_cast<size_t>(w.stored_row(n)) * bytes;
  return row + bytes - static_cast<size_t>(w.K / 8);
}

int64_t first_bad_places(const Weight& w, int64_t n) {
  const uint8_t* places = row_places(w, n);
  for (int64_t g = 0; g < w.K / 4; ++g) {
    if (!are_places(places_of(places, g))) return g;
  }
  return -1;
}

void prune_row(const Encoding& encoding, std::span<const float> row, std::byte* out) {
  const auto K = static_cast<int64_t>(row.size());
  const bool is_f16 = encoding.packing == Packing::f16_24;
  CHECK((is_f16 || encoding.packing == Packing::bf16_24) && K % 8 == 0, "{} K {}", encoding.name(), K);
  auto* places = reinterpret_cast<uint8_t*>(out) + K;
  std::memset(places, 0, static_cast<size_t>(K / 8));
  for (int64_t g = 0; g < K / 4; ++g) {
    const float* group = row.data() + 4 * g;
    const uint8_t two = largest_two(group);
    places[g / 2] = static_cast<uint8_t>(places[g / 2] | two << (g % 2 * 4));
    const uint16_t kept[] = {
        is_f16 ? float_to_f16(group[two & 3]) : float_to_bf16(group[two & 3]),
        is_f16 ? float_to_f16(group[two >> 2]) : float_to_bf16(group[two >> 2])};
    std::memcpy(out + 4 * g, kept, sizeof kept);
  }
}

}  // namespace tandem
