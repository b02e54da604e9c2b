#include "compress/convert_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

bool is_four_bit(const Encoding& encoding) {
  return encoding.packing == Packing::int4_group || encoding.packing == Packing::int4_zero;
}

}  // namespace

bool has_four_bit_integers(const Checkpoint& source) {
  return std::ranges::any_of(source.tensors, [](const NamedTensor& tensor) {
    return is_four_bit(tensor.weight.encoding);
  });
}

void check_converts(const Checkpoint& source, const Encoding& to) {
  for (const auto& [name, weight] : source.tensors) {
    const Encoding& from = weight.encoding;
    if (from.is_plain()) continue;
    const std::string what =
        fmt::format("{}: {} is {}", source.path.string(), quote(name), from.name());
    if (!is_four_bit(from))
      fail(ErrorKind::usage, "{}, expected plain numbers or integers of 4 bits", what);
    if (weight.columns != nullptr) {
      fail(ErrorKind::usage,
           "{} with its columns in another order (act-order), which GGUF cannot say", what);
    }
    const bool zeros = from.has_zeros();
    if (to == kQ4_1 || (to == kQ4_0 && !zeros)) continue;
    fail(ErrorKind::usage, "{}, which {} cannot hold as it is: expected --recipe {}", what,
         to.name(), zeros ? "q4_1" : "q4_0");
  }
}

bool convert_row(const Weight& w, int64_t n, const Encoding& to, std::byte* out) {
  CHECK(is_four_bit(w.encoding) && (to == kQ4_0 || to == kQ4_1) && w.columns == nullptr, "{} to {}",
        w.encoding.name(), to.name());
  const auto groups = static_cast<size_t>(w.encoding.groups_per_row(w.K));
  thread_local std::vector<uint8_t> codes;
  thread_local std::vector<float> scales, mins;
  codes.resize(static_cast<size_t>(w.K));
  scales.resize(groups);
  mins.resize(groups);
  decode_row_codes(w, n, codes.data(), scales.data(), mins.data());
  for (int64_t k = 0; k < w.K; k += 32) {
    const auto g = static_cast<size_t>(k / w.encoding.group);
    const uint16_t scale = float_to_f16(scales[g]), min = float_to_f16(mins[g]);
    if (!std::isfinite(f16_to_float(scale)) || !std::isfinite(f16_to_float(min))) return false;
    std::memcpy(out, &scale, 2);
    out += 2;
    if (to == kQ4_1) {
      std::memcpy(out, &min, 2);
      out += 2;
    }
    for (int64_t j = k; j < k + 16; ++j) {
      *out++ = static_cast<std::byte>(codes[static_cast<size_t>(j)] |
                                      codes[static_cast<size_t>(j + 16)] << 4);
    }
  }
  return true;
}

}  // namespace tandem
