#include "formats/compressed_tensors.h"

#include <cstring>
#include <map>

#include "base/error.h"
#include "formats/marlin24.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::string_view kPacked = ".weight_packed";
constexpr std::string_view kScale = ".weight_scale";
constexpr std::string_view kShape = ".weight_shape";
constexpr std::string_view kZero = ".weight_zero_point";
constexpr std::string_view kGroups = ".weight_g_idx";
constexpr std::string_view kInputScale = ".input_scale";
constexpr std::string_view kMarlinScale = ".scale_packed";
constexpr std::string_view kMarlinPlaces = ".meta";
// sparse-24-bitmask: of NAME, not of NAME.weight
constexpr std::string_view kValues = ".compressed";
constexpr std::string_view kMask = ".bitmask";
constexpr std::string_view kMaskShape = ".shape";

using Kind = WeightScheme::Kind;

void expect_tensor(const SafetensorsEntry& entry, std::string_view dtype,
                   const std::vector<int64_t>& shape, const std::string& where) {
  if ((dtype.empty() || entry.dtype == dtype) && entry.shape == shape) return;
  fail(ErrorKind::bad_file, "{}: {} is {} [{}], expected {} [{}]", where, quote(entry.name),
       entry.dtype, fmt::join(entry.shape, ", "), dtype.empty() ? "scales" : dtype,
       fmt::join(shape, ", "));
}

// The tensors of integers in groups, held to each other; views into the file.
struct IntegerTensors {
  bool in_words;
  bool one_scale;  // of the whole matrix
  int bits;
  int64_t N, K, groups;
  int64_t scale_size;
  std::span<const std::byte> codes, scales, zeros;  // zeros empty: symmetric

  // code = q + 2^(bits - 1), as unsigned fields and bytes.
  void read(int64_t first, int64_t count, uint8_t* out, std::byte* out_scales,
            uint8_t* out_zeros) const {
    for (int64_t n = 0; n < count; ++n) {
      if (in_words) {
        const int64_t row_bytes = (K * bits + 31) / 32 * 4;
        unpack_codes(codes.data() + (first + n) * row_bytes, K, bits, out + n * K);
      } else {
        const std::byte* from = codes.data() + (first + n) * K;
        for (int64_t k = 0; k < K; ++k) out[n * K + k] = static_cast<uint8_t>(from[k]) ^ 0x80;
      }
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t at = (first + n) * groups + g;
        std::memcpy(out_scales + (n * groups + g) * scale_size,
                    scales.data() + (one_scale ? 0 : at) * scale_size,
                    static_cast<size_t>(scale_size));
        out_zeros[n * groups + g] = zero(first + n, g);
      }
    }
  }

  uint8_t zero(int64_t n, int64_t g) const {
    if (zeros.empty()) return static_cast<uint8_t>(1 << (bits - 1));
    if (!in_words) {
      return static_cast<uint8_t>(zeros[static_cast<size_t>(one_scale ? 0 : n * groups + g)]) ^
             0x80;
    }
    // Fields along N, those of a group in a column of words: one may lie across two.
    const int64_t bit = n * bits, last_word = (N * bits - 1) / 32;
    const auto word = [&](int64_t i) -> uint64_t {
      return i > last_word ? 0 : load_unaligned<uint32_t>(zeros.data() + 4 * (i * groups + g));
    };
    const uint64_t two = word(bit / 32) | word(bit / 32 + 1) << 32;
    return static_cast<uint8_t>(two >> (bit % 32) & ((1u << bits) - 1));
  }
};

class WeightReader {
 public:
  WeightReader(const SafetensorsFile& file, const std::optional<QuantizationConfig>& quantization,
               const std::string& where, RepackedPlanes* planes,
               std::vector<std::shared_ptr<const Buffer>>* memory)
      : quantization_(quantization), where_(where), planes_(planes), memory_(memory) {
    for (const auto& entry : file.tensors) entries_.emplace(entry.name, &entry);
  }

  // Nothing when the entry belongs to another one.
  std::optional<NamedTensor> read(const SafetensorsEntry& entry) const {
    const std::string_view name = entry.name;
    if (name.ends_with(kPacked)) return read_packed(entry);
    if (name.ends_with(kWeight) && is_bytes(entry)) return read_bytes(entry);
    if (name.ends_with(kValues) && quantization_ && quantization_->has_masks) return read_masked(entry);
    for (const std::string_view suffix : {kMask, kMaskShape}) {
      if (name.ends_with(suffix) && find(entry, suffix, kValues) != nullptr) return std::nullopt;
    }
    for (const std::string_view suffix :
         {kScale, kShape, kZero, kGroups, kInputScale, kMarlinScale, kMarlinPlaces}) {
      if (!name.ends_with(suffix)) continue;
      if (find(entry, suffix, kPacked) != nullptr) return std::nullopt;
      if (suffix == kScale && find(entry, suffix, kValues) != nullptr) return std::nullopt;
      const SafetensorsEntry* owner = suffix == kShape ? nullptr : find(entry, suffix, kWeight);
      if (owner != nullptr && is_bytes(*owner)) return std::nullopt;
    }
    return read_plain(entry);
  }

 private:
  static bool is_bytes(const SafetensorsEntry& entry) {
    return entry.dtype == "I8" || entry.dtype == "F8_E4M3";
  }

  // The entry's name with another ending.
  static std::string with(const SafetensorsEntry& entry, std::string_view suffix,
                          std::string_view replacement) {
    return entry.name.substr(0, entry.name.size() - suffix.size()) + std::string(replacement);
  }

  std::string tensor(const SafetensorsEntry& entry) const {
    return fmt::format("{}: tensor {}", where_, quote(entry.name));
  }

  const SafetensorsEntry* find(const SafetensorsEntry& entry, std::string_view suffix,
                               std::string_view replacement) const {
    const auto it = entries_.find(with(entry, suffix, replacement));
    return it == entries_.end() ? nullptr : it->second;
  }
  const SafetensorsEntry& companion(const SafetensorsEntry& entry, std::string_view suffix,
                                    std::string_view replacement) const {
    const SafetensorsEntry* found = find(entry, suffix, replacement);
    if (found == nullptr) {
      fail(ErrorKind::bad_file, "{}: its companion {} is missing", tensor(entry),
           quote(with(entry, suffix, replacement)));
    }
    return *found;
  }

  const WeightScheme* scheme_of(const SafetensorsEntry& entry) const {
    return quantization_ ? quantization_->scheme_of(entry.name.substr(0, entry.name.rfind('.')))
                         : nullptr;
  }

  // The scheme of a quantized tensor, which must be one that `fits`.
  template <typename Fits>
  const WeightScheme& require(const SafetensorsEntry& entry, Fits fits) const {
    const WeightScheme* scheme = scheme_of(entry);
    if (scheme == nullptr || !fits(*scheme)) {
      fail(ErrorKind::bad_file,
           "{}: quantized, but quantization_config in config.json does not say so", tensor(entry));
    }
    return *scheme;
  }

  NamedTensor read_bytes(const SafetensorsEntry& entry) const {
    const bool is_int8 = entry.dtype == "I8";
    const WeightScheme& scheme = require(entry, [&](const WeightScheme& s) {
      if (s.kind == Kind::integers) return is_int8 && !s.in_words;
      return s.bytes.is_float != is_int8;
    });
    if (entry.shape.size() != 2) fail(ErrorKind::bad_file, "{}: not a matrix", tensor(entry));
    if (scheme.kind == Kind::integers) {
      return read_integers(entry, kWeight, scheme, entry.shape[0], entry.shape[1]);
    }
    return {entry.name,
            read_byte_weight(scheme.bytes, entry, companion(entry, kWeight, kScale),
                             find(entry, kWeight, kInputScale), tensor(entry), memory_)};
  }

  // 2:4, its values beside a mask of the places.
  NamedTensor read_masked(const SafetensorsEntry& entry) const {
    const std::string where = tensor(entry);
    const auto& shape = companion(entry, kValues, kMaskShape);
    if (shape.shape != std::vector<int64_t>{2}) expect_tensor(shape, "I64", {2, 1}, where);
    expect_tensor(shape, "I64", shape.shape, where);
    int64_t dims[2];
    std::memcpy(dims, shape.bytes.data(), sizeof dims);
    const auto [N, K] = dims;
    if (N < 1 || K < 8 || K % 8 != 0 || static_cast<uint64_t>(K) / 4 > entry.bytes.size()) {
      fail(ErrorKind::bad_file, "{}: its shape is [{}, {}], expected a width that 8 divides", where, N, K);
    }
    const bool is_nibbles = entry.dtype == "I32";  // eight of them a word
    expect_tensor(entry, entry.dtype, {N, is_nibbles ? K / 16 : K / 2}, where);
    const auto& mask = companion(entry, kValues, kMask);
    expect_tensor(mask, "U8", {N, K / 8}, where);
    Weight weight = is_nibbles                                         ? masked_nibbles(entry, N, K)
                    : entry.dtype == "I8" || entry.dtype == "F8_E4M3" ? masked_bytes(entry)
                                                                       : masked_numbers(entry);
    weight.N = N;
    weight.K = K;
    weight.data = entry.bytes.data();
    weight.mask = mask.bytes.data();
    return {with(entry, kValues, kWeight), weight};
  }

  Weight masked_numbers(const SafetensorsEntry& entry) const {
    if (entry.dtype != "BF16" && entry.dtype != "F16") {
      fail(ErrorKind::bad_file, "{}: 2:4 values of type {}, expected BF16, F16, F8_E4M3, I8 or I32",
           tensor(entry), entry.dtype);
    }
    return {.encoding = entry.dtype == "F16" ? kF16_24 : kBF16_24};
  }

  Weight masked_bytes(const SafetensorsEntry& entry) const {
    const bool is_int8 = entry.dtype == "I8";
    const WeightScheme& scheme = require(entry, [&](const WeightScheme& s) {
      return s.kind == Kind::bytes && s.bytes.is_float != is_int8;
    });
    const std::string where = tensor(entry);
    const Packing dense = scheme.bytes.packing(where);
    if (dense != Packing::int8_channel && dense != Packing::fp8_channel) {
      fail(ErrorKind::bad_file,
           "{}: 2:4 {} weights in blocks or with activations of no dynamic scale are not supported "
           "by this version",
           where, is_int8 ? "INT8" : "FP8");
    }
    Weight weight = read_byte_weight(scheme.bytes, entry, companion(entry, kValues, kScale), nullptr,
                                     where, memory_);
    const ScaleType type = weight.encoding.scale_type;
    weight.encoding = is_int8 ? int8_channel_24(type) : fp8_channel_24(type);
    return weight;
  }

  // This project's own: the nibbles that pack-quantized has for the values kept.
  Weight masked_nibbles(const SafetensorsEntry& entry, int64_t N, int64_t K) const {
    const WeightScheme& scheme = require(
        entry, [](const WeightScheme& s) { return s.kind == Kind::integers && s.in_words; });
    if (scheme.bits != 4 || !scheme.symmetric || scheme.reorders) {
      fail(ErrorKind::bad_file, "{}: 2:4 of {} bits{}{}, expected 4 bits, symmetric, columns in order",
           tensor(entry), scheme.bits, scheme.symmetric ? "" : " with zero points",
           scheme.reorders ? " in act-order" : "");
    }
    const int64_t group = group_of(entry, scheme, K);
    const auto& scale = companion(entry, kValues, kScale);
    expect_tensor(scale, "", {N, K / group}, tensor(entry));
    Weight weight;
    weight.encoding = int4_group_24(group, scale_type_of(scale, tensor(entry)));
    weight.scales = scale.bytes.data();
    return weight;
  }

  NamedTensor read_packed(const SafetensorsEntry& entry) const {
    const WeightScheme& scheme = require(
        entry, [](const WeightScheme& s) { return s.kind == Kind::integers && s.in_words; });
    const std::string where = tensor(entry);
    if (scheme.is_marlin24) {
      return {with(entry, kPacked, kWeight),
              add_planes(marlin24_source(entry, companion(entry, kPacked, kMarlinPlaces),
                                         companion(entry, kPacked, kMarlinScale), scheme.group, where),
                         planes_)};
    }
    const auto& shape = companion(entry, kPacked, kShape);
    expect_tensor(shape, "I64", {2}, where);
    int64_t dims[2];
    std::memcpy(dims, shape.bytes.data(), sizeof dims);
    const auto [N, K] = dims;
    // Bounded by the bytes at hand before anything is computed from it.
    if (N < 1 || K < 1 || static_cast<uint64_t>(K) / 8 > entry.bytes.size()) {
      fail(ErrorKind::bad_file, "{}: weight_shape is [{}, {}]", where, N, K);
    }
    expect_tensor(entry, "I32", {N, (K * scheme.bits + 31) / 32}, where);
    return read_integers(entry, kPacked, scheme, N, K);
  }

  int64_t group_of(const SafetensorsEntry& entry, const WeightScheme& scheme, int64_t K) const {
    const int64_t group = scheme.scales == WeightScheme::Scales::group ? scheme.group : K;
    if (K % group != 0) {
      fail(ErrorKind::bad_file, "{}: groups of {} do not divide a width of {}", tensor(entry),
           group, K);
    }
    if (group % 32 != 0) {
      fail(ErrorKind::bad_file, "{}: a width of {}, expected a multiple of 32", tensor(entry), K);
    }
    return group;
  }

  // The zero points; symmetric codes have none.
  std::span<const std::byte> zeros_of(const SafetensorsEntry& entry, std::string_view suffix,
                                      const WeightScheme& scheme, int64_t N, int64_t G) const {
    if (scheme.symmetric) return {};
    const auto& zero = companion(entry, suffix, kZero);
    if (scheme.in_words) {
      expect_tensor(zero, "I32", {(N * scheme.bits + 31) / 32, G}, tensor(entry));
    } else if (scheme.scales == WeightScheme::Scales::tensor) {
      expect_tensor(zero, "I8", {1}, tensor(entry));
    } else {
      expect_tensor(zero, "I8", {N, G}, tensor(entry));
    }
    return zero.bytes;
  }

  std::vector<int32_t> columns_of(const SafetensorsEntry& entry, std::string_view suffix,
                                  const WeightScheme& scheme, int64_t K, int64_t group) const {
    const SafetensorsEntry* groups = find(entry, suffix, kGroups);
    if (groups == nullptr || !scheme.reorders) return {};
    expect_tensor(*groups, "I32", {K}, tensor(entry));
    std::vector<int32_t> of_channel(static_cast<size_t>(K));
    std::memcpy(of_channel.data(), groups->bytes.data(), groups->bytes.size());
    if (of_channel.front() == -1) return {};  // filled with -1 where it is not used
    return columns_by_group(of_channel, group, tensor(*groups));
  }

  NamedTensor read_integers(const SafetensorsEntry& entry, std::string_view suffix,
                            const WeightScheme& scheme, int64_t N, int64_t K) const {
    const int64_t group = group_of(entry, scheme, K), G = K / group;
    const bool one_scale = scheme.scales == WeightScheme::Scales::tensor;
    const auto& scale = companion(entry, suffix, kScale);
    expect_tensor(scale, "", one_scale ? std::vector<int64_t>{1} : std::vector<int64_t>{N, G},
                  tensor(entry));
    const ScaleType type = scale_type_of(scale, tensor(entry));
    const auto zeros = zeros_of(entry, suffix, scheme, N, G);
    auto columns = columns_of(entry, suffix, scheme, K, group);
    std::string name = with(entry, suffix, kWeight);
    if (scheme.in_words && scheme.bits == 4 && scheme.symmetric && !one_scale && columns.empty()) {
      Weight weight;  // the file's own bytes
      weight.encoding = int4_group(group, type);
      weight.N = N;
      weight.K = K;
      weight.data = entry.bytes.data();
      weight.scales = scale.bytes.data();
      return {std::move(name), weight};
    }
    IntegerSource source{.N = N, .K = K, .bits = scheme.bits, .group = group, .scale_type = type};
    source.symmetric = scheme.symmetric;
    source.columns = std::move(columns);
    const IntegerTensors tensors{
        scheme.in_words, one_scale,   scheme.bits, N, K, G, static_cast<int64_t>(scale_bytes(type)),
        entry.bytes,     scale.bytes, zeros};
    source.read = [tensors](int64_t first, int64_t count, uint8_t* codes, std::byte* scales,
                            uint8_t* zero_points) {
      tensors.read(first, count, codes, scales, zero_points);
    };
    return {std::move(name), add_planes(std::move(source), planes_)};
  }

  NamedTensor read_plain(const SafetensorsEntry& entry) const {
    Weight weight;
    if (entry.dtype == "F32") {
      weight.encoding = kF32;
    } else if (entry.dtype == "F16") {
      weight.encoding = kF16;
    } else if (entry.dtype == "BF16") {
      weight.encoding = kBF16;
    } else {
      fail(ErrorKind::bad_file, "{}: of type {}, not part of a model as this version knows it",
           tensor(entry), entry.dtype);
    }
    const bool linear = entry.name.ends_with("_proj.weight") || entry.name == "lm_head.weight";
    if (linear && scheme_of(entry) != nullptr) {
      fail(ErrorKind::bad_file,
           "{}: {}, but quantization_config in config.json says it is quantized", tensor(entry),
           entry.dtype);
    }
    if (entry.shape.empty() || entry.shape.size() > 2) {
      fail(ErrorKind::bad_file, "{}: {} dimensions, expected a vector or a matrix", tensor(entry),
           entry.shape.size());
    }
    weight.N = entry.shape.size() == 2 ? entry.shape[0] : 1;
    weight.K = entry.shape.back();
    weight.data = entry.bytes.data();
    return {entry.name, weight};
  }

  const std::optional<QuantizationConfig>& quantization_;
  const std::string& where_;
  RepackedPlanes* planes_;
  std::vector<std::shared_ptr<const Buffer>>* memory_;
  std::map<std::string_view, const SafetensorsEntry*> entries_;
};

}  // namespace

std::vector<NamedTensor> read_weights(const SafetensorsFile& file,
                                      const std::optional<QuantizationConfig>& quantization,
                                      const std::string& where, RepackedPlanes* planes,
                                      std::vector<std::shared_ptr<const Buffer>>* memory) {
  CHECK(!quantization || (planes != nullptr && memory != nullptr), "{}", where);
  const WeightReader reader(file, quantization, where, planes, memory);
  std::vector<NamedTensor> tensors;
  for (const auto& entry : file.tensors) {
    if (auto tensor = reader.read(entry)) tensors.push_back(std::move(*tensor));
  }
  return tensors;
}

}  // namespace tandem
