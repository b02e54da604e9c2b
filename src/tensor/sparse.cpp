#include "tensor/sparse.h"

#include <algorithm>
#include <bit>
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
  CHECK(w.encoding.is_sparse() && w.mask == nullptr && n >= 0 && n < w.N, "{} row {} of {}",
        w.encoding.name(), n, w.N);
  const size_t bytes = w.encoding.row_bytes(w.K);
  const auto* row =
      reinterpret_cast<const uint8_t*>(w.data) + static_cast<size_t>(w.stored_row(n)) * bytes;
  return row + bytes - static_cast<size_t>(w.K / 8);
}

RowPlaces::RowPlaces(const Weight& w, int64_t n) : is_mask_(w.mask != nullptr) {
  bytes_ = is_mask_ ? reinterpret_cast<const uint8_t*>(w.mask) + n * w.K / 8 : row_places(w, n);
}

int RowPlaces::of(int64_t g) const {
  const auto nibble = static_cast<unsigned>(places_of(bytes_, g));  // a mask's lie alike
  if (!is_mask_) return static_cast<int>(nibble);
  if (std::popcount(nibble) != 2) return 0;
  return std::countr_zero(nibble) | (static_cast<int>(std::bit_width(nibble)) - 1) << 2;
}

void mask_of_places(const std::byte* places, int64_t K, std::byte* mask) {
  const auto* nibbles = reinterpret_cast<const uint8_t*>(places);
  const auto four = [&](int64_t g) {
    const int two = places_of(nibbles, g);
    return 1 << (two & 3) | 1 << (two >> 2);
  };
  for (int64_t g = 0; g < K / 4; g += 2) mask[g / 2] = static_cast<std::byte>(four(g) | four(g + 1) << 4);
}

int64_t first_bad_places(const Weight& w, int64_t n) {
  const RowPlaces places(w, n);
  for (int64_t g = 0; g < w.K / 4; ++g) {
    if (!are_places(places.of(g))) return g;
  }
  return -1;
}

Weight with_places(const Weight& w, std::byte* out) {
  CHECK(w.encoding.is_sparse() && w.mask != nullptr, "{}", w.encoding.name());
  const size_t from = w.row_bytes(), to = w.encoding.row_bytes(w.K);
  for (int64_t n = 0; n < w.N; ++n) {
    std::byte* row = out + static_cast<size_t>(n) * to;
    std::memcpy(row, w.data + static_cast<size_t>(n) * from, from);
    const RowPlaces places(w, n);
    for (int64_t g = 0; g < w.K / 4; g += 2) {
      row[from + static_cast<size_t>(g / 2)] =
          static_cast<std::byte>(places.of(g) | places.of(g + 1) << 4);
    }
  }
  Weight result = w;
  result.data = out;
  result.mask = nullptr;
  return result;
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
