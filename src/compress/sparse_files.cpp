#include "compress/sparse_files.h"

#include <span>

#include "base/error.h"
#include "compress/rtn.h"

namespace tandem {
namespace {

const GridMatrix& grid_of(const LinearWork& work) { return std::get<GridMatrix>(work.result); }

void check_mask(const std::string& module, const std::vector<uint8_t>& keep, int64_t K) {
  if (K % 8 != 0) {
    fail(ErrorKind::usage, "{}: width {}, expected a multiple of 8 to be stored with a mask",
         module, K);
  }
  for (size_t i = 0; i < keep.size(); i += 4) {
    CHECK(keep[i] + keep[i + 1] + keep[i + 2] + keep[i + 3] == 2, "{}: element {}", module, i);
  }
}

Encoding encoding_of_grid(const std::string& module, const GridMatrix& m, bool quantizes_inputs) {
  const IntegerGrid& grid = m.grid;
  const char* order = m.columns.empty() ? "in order" : "in act-order";
  if (grid.symmetric && m.columns.empty()) {
    if (grid.bits == 8 && grid.group == 0 && quantizes_inputs)
      return int8_channel_24(grid.scale_type);
    const int64_t group = grid.group_size(m.K);
    if (grid.bits == 4 && group % 32 == 0 && !quantizes_inputs) {
      return int4_group_24(group, grid.scale_type);
    }
  }
  fail(ErrorKind::usage,
       "{}: 2:4 holds 4 bits in groups of a multiple of 32, or 8 bits a row with activations "
       "\"dynamic\", symmetric, columns in order; found {} bits, group {}, {}, columns {}, "
       "activations {}",
       module, grid.bits, grid.group, grid.symmetric ? "symmetric" : "with zero points", order,
       quantizes_inputs ? "in 8 bits" : "\"none\"");
}

// value(i, n, k) for each element that is kept, in the file's order; i counts those of the matrix.
template <typename Value>
void for_kept(const LinearWork& work, Value value) {
  const int64_t K = work.weight.K;
  for (int64_t n = 0, i = 0; n < work.weight.N; ++n) {
    for (int64_t k = 0; k < K; ++k) {
      if (work.keep[static_cast<size_t>(n * K + k)] != 0) value(static_cast<size_t>(i++), n, k);
    }
  }
}

std::vector<std::byte> values_of(const LinearWork& work, const Encoding& encoding) {
  const int64_t N = work.weight.N, K = work.weight.K;
  const auto at = [K](int64_t n, int64_t k) { return static_cast<size_t>(n * K + k); };
  std::vector<std::byte> out(static_cast<size_t>(N) *
                             (encoding.row_bytes(K) - static_cast<size_t>(K / 8)));
  if (encoding == kBF16_24) {
    std::vector<float> kept(static_cast<size_t>(N * K / 2));
    for_kept(work, [&](size_t i, int64_t n, int64_t k) { kept[i] = work.weight.row(n)[k]; });
    store_row_bf16(kept.data(), N * K / 2, out.data());
  } else if (encoding.bits() == 4) {
    for_kept(work, [&](size_t i, int64_t n, int64_t k) {
      out[i / 2] |= static_cast<std::byte>(grid_of(work).codes[at(n, k)] << (i % 2 * 4));
    });
  } else if (encoding.has_e4m3_codes()) {
    const auto& dense = std::get<EncodedMatrix>(work.result).data;
    for_kept(work, [&](size_t i, int64_t n, int64_t k) { out[i] = dense[at(n, k)]; });
  } else {
    for_kept(work, [&](size_t i, int64_t n, int64_t k) {
      out[i] = static_cast<std::byte>(grid_of(work).codes[at(n, k)] ^ 0x80);
    });
  }
  return out;
}

std::vector<std::byte> scales_of(const LinearWork& work) {
  if (const auto* encoded = std::get_if<EncodedMatrix>(&work.result)) return encoded->scales;
  const GridMatrix& grid = grid_of(work);
  const size_t step = scale_bytes(grid.grid.scale_type);
  std::vector<std::byte> out(grid.scales.size() * step);
  for (size_t i = 0; i < grid.scales.size(); ++i) {
    store_scale(out.data() + i * step, grid.grid.scale_type, grid.scales[i]);
  }
  return out;
}

// Bit k % 8 of byte k / 8, the lowest first.
std::vector<std::byte> mask_of(const LinearWork& work) {
  std::vector<std::byte> out(work.keep.size() / 8);
  for (size_t i = 0; i < work.keep.size(); ++i) {
    out[i / 8] |= static_cast<std::byte>(work.keep[i] << (i % 8));
  }
  return out;
}

}  // namespace

Encoding sparse_encoding(const std::string& module, const LinearWork& work, bool quantizes_inputs) {
  if (work.keep.empty()) {
    fail(ErrorKind::usage, "{}: is quantized but not pruned, which a 2:4 folder cannot hold",
         module);
  }
  check_mask(module, work.keep, work.weight.K);
  if (const auto* grid = std::get_if<GridMatrix>(&work.result)) {
    return encoding_of_grid(module, *grid, quantizes_inputs);
  }
  if (!work.has_result()) return kBF16_24;
  const Encoding& dense = std::get<EncodedMatrix>(work.result).encoding;
  if (dense.packing == Packing::fp8_channel && quantizes_inputs)
    return fp8_channel_24(dense.scale_type);
  fail(ErrorKind::usage,
       "{}: {} with activations {} has no 2:4 form, expected fp8 per channel with activations "
       "\"dynamic\"",
       module, dense.name(), quantizes_inputs ? "\"dynamic\"" : "\"none\"");
}

std::vector<TensorSource> sparse_tensors(const std::string& module, const Encoding& encoding,
                                         int64_t N, int64_t K,
                                         std::function<const LinearWork&()> work) {
  const auto tensor = [&](const char* suffix, const char* dtype, std::vector<int64_t> shape,
                          size_t size_bytes, std::function<std::vector<std::byte>()> bytes) {
    return TensorSource{module + suffix, dtype, std::move(shape), size_bytes,
                        [bytes = std::move(bytes)](const ByteSink& sink) { sink(bytes()); }};
  };
  const bool is_nibbles = encoding.bits() == 4;
  const char* dtype = encoding == kBF16_24        ? "BF16"
                      : is_nibbles                ? "I32"
                      : encoding.has_e4m3_codes() ? "F8_E4M3"
                                                  : "I8";
  const auto size = static_cast<size_t>(N);
  const size_t mask_row = static_cast<size_t>(K / 8);
  std::vector<TensorSource> out;
  out.push_back(tensor(".shape", "I64", {2, 1}, 2 * sizeof(int64_t), [N, K] {
    const int64_t dims[] = {N, K};
    const auto bytes = std::as_bytes(std::span(dims));
    return std::vector(bytes.begin(), bytes.end());
  }));
  out.push_back(tensor(".compressed", dtype, {N, is_nibbles ? K / 16 : K / 2},
                       size * (encoding.row_bytes(K) - mask_row),
                       [work, encoding] { return values_of(work(), encoding); }));
  out.push_back(
      tensor(".bitmask", "U8", {N, K / 8}, size * mask_row, [work] { return mask_of(work()); }));
  if (encoding.scale_type != ScaleType::none) {
    const int64_t groups = encoding.groups_per_row(K);
    const char* type = encoding.scale_type == ScaleType::bf16  ? "BF16"
                       : encoding.scale_type == ScaleType::f16 ? "F16"
                                                               : "F32";
    out.push_back(tensor(".weight_scale", type, {N, groups},
                         static_cast<size_t>(N * groups) * scale_bytes(encoding.scale_type),
                         [work] { return scales_of(work()); }));
  }
  return out;
}

Json sparsity_config_json(const std::vector<std::string>& ignored) {
  return {{"format", "sparse-24-bitmask"},
          {"global_sparsity", 0.5},
          {"ignore", ignored},
          {"sparsity_structure", "2:4"},
          {"targets", Json::array({"Linear"})}};
}

}  // namespace tandem
