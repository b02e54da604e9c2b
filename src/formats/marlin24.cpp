#include "formats/marlin24.h"

#include <array>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "formats/byte_weights.h"
#include "tensor/dtype.h"
#include "tensor/sparse.h"

namespace tandem {
namespace {

constexpr int64_t kTile = 16;
constexpr int64_t kTilesTogether = 4;
constexpr int64_t kPermuted = kTilesTogether * kTile * kTile;
constexpr int64_t kMinRows = kTilesTogether * kTile;

// Where among 1024 nibbles the one of tile column t, row k and column n of its tile stands, by
// 256 t + 16 k + n.
std::array<uint16_t, kPermuted> make_places() {
  constexpr int kInterleave[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  std::array<uint16_t, kPermuted> places{};
  for (int i = 0; i < 32; ++i) {
    int run[8];
    for (int r = 0; r < 8; ++r) {
      const int row = r % 4 < 2 ? 2 * (i % 4) + r % 2 : 2 * (i % 4 + 4) + r % 2;
      run[r] = 16 * row + 256 * (i / 8) + 8 * (i / 4 % 2) + 4 * (r / 4);
    }
    for (int j = 0; j < 4; ++j) {
      for (int r = 0; r < 8; ++r) {
        places[static_cast<size_t>(run[kInterleave[r]] + j)] =
            static_cast<uint16_t>(32 * i + 8 * j + r);
      }
    }
  }
  return places;
}

// Where CUTLASS for SM80 keeps element (row, column) of a matrix of words, `rows` a multiple of 64.
int64_t meta_place(int64_t row, int64_t column, int64_t rows) {
  int64_t to = row / 64 * 64 + row % 2 * 2 + row % 8 / 4 + row % 4 / 2 * 32 + row % 64 / 8 * 4;
  if (to % 2 == 0 && column % 2 == 1) {
    ++to, --column;
  } else if (to % 2 == 1 && column % 2 == 0) {
    --to, ++column;
  }
  return column / 2 * rows * 2 + to * 2 + column % 2;
}

struct Marlin24 {
  int64_t N, K, group;
  size_t scale_size;
  std::span<const std::byte> packed, meta, scales;

  void read(int64_t first, int64_t count, uint8_t* codes, std::byte* out_scales) const {
    std::memset(codes, kPrunedCode, static_cast<size_t>(count * K));
    for (int64_t n = first; n < first + count; ++n) {
      for (int64_t g = 0; g < K / 4; ++g) {
        const int places = places_at(n, g);
        if (!are_places(places)) continue;
        uint8_t* four = codes + (n - first) * K + 4 * g;
        four[places & 3] = code_at(n, 2 * g);
        four[places >> 2] = code_at(n, 2 * g + 1);
      }
      for (int64_t g = 0; g < K / group; ++g) {
        std::memcpy(out_scales,
                    scales.data() + static_cast<size_t>(g * N + scale_row(n)) * scale_size,
                    scale_size);
        out_scales += scale_size;
      }
    }
  }

  int places_at(int64_t n, int64_t g) const {
    const auto word = load_unaligned<uint16_t>(meta.data() + 2 * meta_place(n, g / 4, N));
    return word >> (g % 4 * 4) & 15;
  }

  // Of the k-th value kept in row n.
  uint8_t code_at(int64_t n, int64_t k) const {
    static const std::array<uint16_t, kPermuted> places = make_places();
    const int64_t column = n / kTile * kTile * kTile + k % kTile * kTile + n % kTile;
    const int64_t at = k / kTile * N * kTile + column / kPermuted * kPermuted +
                       places[static_cast<size_t>(column % kPermuted)];
    return static_cast<uint8_t>(packed[static_cast<size_t>(at / 2)]) >> (at % 2 * 4) & 15;
  }

  // The library permutes the scales of groups, and those of groups alone: where there are more of
  // them than one to the values that are kept.
  int64_t scale_row(int64_t n) const {
    if (group >= K / 2) return n;
    constexpr int kPlaces[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    return n / 8 * 8 + kPlaces[n % 8];
  }
};

void expect(const SafetensorsEntry& entry, std::string_view dtype,
            const std::vector<int64_t>& shape, const std::string& where) {
  if ((dtype.empty() || entry.dtype == dtype) && entry.shape == shape) return;
  fail(ErrorKind::bad_file, "{}: {} is {} [{}], expected {} [{}]", where, quote(entry.name),
       entry.dtype, fmt::join(entry.shape, ", "), dtype.empty() ? "scales" : dtype,
       fmt::join(shape, ", "));
}

}  // namespace

IntegerSource marlin24_source(const SafetensorsEntry& packed, const SafetensorsEntry& meta,
                              const SafetensorsEntry& scale, int64_t group,
                              const std::string& where) {
  if (packed.shape.size() != 2 || packed.shape[0] < 1 || packed.shape[1] % (2 * kMinRows) != 0 ||
      packed.shape[1] < 1) {
    fail(ErrorKind::bad_file, "{}: is [{}], expected [K/32, 2 N] with N a multiple of {}", where,
         fmt::join(packed.shape, ", "), kMinRows);
  }
  const int64_t N = packed.shape[1] / 2, K = packed.shape[0] * 32;
  if (group == 0) group = K;
  if (K % group != 0) {
    fail(ErrorKind::bad_file, "{}: groups of {} do not divide a width of {}", where, group, K);
  }
  expect(packed, "I32", packed.shape, where);
  expect(meta, "I16", packed.shape, where);
  expect(scale, "", {K / group, N}, where);
  const ScaleType type = scale_type_of(scale, where);
  const Marlin24 file{N, K, group, scale_bytes(type), packed.bytes, meta.bytes, scale.bytes};
  IntegerSource source{
      .N = N, .K = K, .bits = 4, .group = group, .scale_type = type, .symmetric = true};
  source.is_sparse = true;
  source.read = [file](int64_t first, int64_t count, uint8_t* codes, std::byte* scales, uint8_t*) {
    file.read(first, count, codes, scales);
  };
  return source;
}

}  // namespace tandem
