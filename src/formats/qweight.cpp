#include "formats/qweight.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "base/error.h"
#include "formats/compressed_tensors.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr std::string_view kCodes = ".qweight", kZeros = ".qzeros", kScales = ".scales",
                           kGroups = ".g_idx";

uint32_t word_at(const SafetensorsEntry& entry, int64_t i) {
  return load_unaligned<uint32_t>(entry.bytes.data() + 4 * i);
}

// One in each field of a word; 3 bits have none, their fields lie across words.
constexpr uint32_t ones(int bits) {
  return bits == 2 ? 0x55555555 : bits == 4 ? 0x11111111 : bits == 8 ? 0x01010101 : 0;
}

// The tensors of one module; views into the file.
struct Module {
  std::string name;
  SafetensorsEntry codes, zeros, scales;
  std::optional<SafetensorsEntry> groups;  // g_idx; may be missing
  int64_t N = 0, K = 0, G = 0, group = 0;
};

// Zero points of the rows [first, first + count) of GPTQ, out[n * G + g]. v1: the library adds one
// to all fields of a word at once, carries included, which undoes exactly what it subtracts.
void read_gptq_zeros(const Module& m, int bits, bool less_one, int64_t first, int64_t count,
                     uint8_t* out) {
  const int64_t words_a_row = m.N * bits / 32, begin = first * bits / 32;
  const int64_t num_words = (count * bits + 31) / 32, padded = num_words * 32 / bits / 8 * 8;
  std::vector<uint32_t> words(static_cast<size_t>(num_words));
  std::vector<uint8_t> row(static_cast<size_t>(padded));
  for (int64_t g = 0; g < m.G; ++g) {
    for (int64_t i = 0; i < num_words; ++i) {
      words[static_cast<size_t>(i)] =
          word_at(m.zeros, g * words_a_row + begin + i) + (less_one ? ones(bits) : 0);
    }
    unpack_codes(reinterpret_cast<const std::byte*>(words.data()), padded, bits, row.data());
    for (int64_t n = 0; n < count; ++n) {
      const int zero = row[static_cast<size_t>(n)] + (less_one && bits == 3 ? 1 : 0);
      out[n * m.G + g] = static_cast<uint8_t>(zero & ((1 << bits) - 1));
    }
  }
}

void read_gptq_codes(const Module& m, int bits, int64_t first, int64_t count, uint8_t* codes) {
  for (int64_t k = 0; k < m.K; k += 32) {
    for (int64_t n = 0; n < count; ++n) {
      uint32_t words[8];  // 32 channels of a row
      for (int i = 0; i < bits; ++i)
        words[i] = word_at(m.codes, (k / 32 * bits + i) * m.N + first + n);
      unpack_codes(reinterpret_cast<const std::byte*>(words), 32, bits, codes + n * m.K + k);
    }
  }
}

// AWQ's words of eight columns: rows [0, rows) of a [rows, N/8] tensor, out[(n - first) * stride +
// row].
void read_awq_words(const SafetensorsEntry& entry, int64_t rows, int64_t N, int64_t first,
                    int64_t count, int64_t stride, uint8_t* out) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t n = 0; n < count; n += 8) {
      const uint32_t word = word_at(entry, row * (N / 8) + (first + n) / 8);
      for (int i = 0; i < 8; ++i) out[(n + kAwqOrder[i]) * stride + row] = word >> (4 * i) & 15;
    }
  }
}

// [rows, columns] of AWQ's GEMV: words of a row one after another, `wanted` fields of it.
void read_gemv_words(const SafetensorsEntry& entry, int64_t words_a_row, int64_t wanted,
                     int64_t first, int64_t count, uint8_t* out) {
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t i = 0; i < wanted; ++i) {
      out[n * wanted + i] = word_at(entry, (first + n) * words_a_row + i / 8) >> (i % 8 * 4) & 15;
    }
  }
}

class Reader {
 public:
  Reader(const SafetensorsFile& file, const QweightConfig& config, const std::string& where,
         RepackedPlanes* planes, std::vector<std::string>* warnings)
      : config_(config), where_(where), planes_(planes), warnings_(warnings) {
    for (const auto& entry : file.tensors) entries_.emplace(entry.name, &entry);
  }

  // Nothing when the entry belongs to another one.
  std::optional<NamedTensor> read(const SafetensorsEntry& entry) {
    const std::string_view name = entry.name;
    if (name.ends_with(kCodes)) return read_module(entry);
    for (const std::string_view suffix : {kZeros, kScales, kGroups}) {
      if (!name.ends_with(suffix)) continue;
      const std::string module(name.substr(0, name.size() - suffix.size()));
      if (entries_.contains(module + std::string(kCodes))) return std::nullopt;
    }
    return read_one_plain(entry);
  }

 private:
  std::string tensor(const SafetensorsEntry& entry) const {
    return fmt::format("{}: tensor {}", where_, quote(entry.name));
  }

  bool is_plain(std::string_view module) const {
    const auto in_name = [&](const std::string& part) {
      return module.find(part) != std::string_view::npos;
    };
    if (std::ranges::any_of(config_.plain, in_name)) return true;
    const auto at_end = [&](const std::string& end) { return module.ends_with(end); };
    return !config_.quantized.empty() && !std::ranges::any_of(config_.quantized, at_end);
  }

  NamedTensor read_one_plain(const SafetensorsEntry& entry) const {
    const std::string_view name = entry.name;
    if (name.ends_with("_proj.weight") && !is_plain(name.substr(0, name.rfind('.')))) {
      fail(ErrorKind::bad_file,
           "{}: {}, but quantization_config in config.json says it is quantized", tensor(entry),
           entry.dtype);
    }
    SafetensorsFile one;
    one.tensors.push_back(entry);
    return read_weights(one, std::nullopt, where_).front();
  }

  const SafetensorsEntry* find(const Module& m, std::string_view suffix) const {
    const auto it = entries_.find(m.name + std::string(suffix));
    return it == entries_.end() ? nullptr : it->second;
  }
  const SafetensorsEntry& need(const Module& m, std::string_view suffix) const {
    const SafetensorsEntry* found = find(m, suffix);
    if (found == nullptr) {
      fail(ErrorKind::bad_file, "{}: its companion {} is missing", tensor(m.codes),
           quote(m.name + std::string(suffix)));
    }
    return *found;
  }
  void expect(const SafetensorsEntry& entry, const std::vector<int64_t>& shape) const {
    if (entry.dtype == "I32" && entry.shape == shape) return;
    fail(ErrorKind::bad_file, "{}: {} [{}], expected I32 [{}]", tensor(entry), entry.dtype,
         fmt::join(entry.shape, ", "), fmt::join(shape, ", "));
  }

  // Sizes from the codes and scales at hand, every other tensor held to them.
  Module open_module(const SafetensorsEntry& entry) const {
    Module m;
    m.name = entry.name.substr(0, entry.name.size() - kCodes.size());
    m.codes = entry;
    m.zeros = need(m, kZeros);
    m.scales = need(m, kScales);
    if (const auto* groups = find(m, kGroups)) m.groups = *groups;
    if (entry.shape.size() != 2 || m.scales.shape.size() != 2 || entry.dtype != "I32") {
      fail(ErrorKind::bad_file, "{}: {} [{}], scales [{}]; expected I32 and two matrices",
           tensor(entry), entry.dtype, fmt::join(entry.shape, ", "),
           fmt::join(m.scales.shape, ", "));
    }
    const bool gemv = config_.layout == QweightConfig::Layout::awq_gemv;
    const bool gptq = config_.layout == QweightConfig::Layout::gptq;
    m.N = gptq ? entry.shape[1] : gemv ? entry.shape[0] : entry.shape[1] * 8;
    m.K = gptq ? entry.shape[0] * 32 / config_.bits : gemv ? entry.shape[1] * 8 : entry.shape[0];
    m.group = config_.group == 0 ? m.K : config_.group;
    if (m.N < 1 || m.K < 1 || m.N % 8 != 0 || m.K % 32 != 0 || m.K % m.group != 0 ||
        m.group % 32 != 0 || m.N * config_.bits % 32 != 0) {
      fail(ErrorKind::bad_file,
           "{}: a matrix [{}, {}] in groups of {}; supported are groups of a multiple of 32 that "
           "divides the width "
           "and a multiple of 8 rows",
           tensor(entry), m.N, m.K, m.group);
    }
    m.G = m.K / m.group;
    check_shapes(m);
    return m;
  }

  void check_shapes(const Module& m) const {
    const int bits = config_.bits;
    std::vector<int64_t> scales = {m.G, m.N};
    switch (config_.layout) {
      case QweightConfig::Layout::gptq:
        expect(m.codes, {m.K * bits / 32, m.N});
        expect(m.zeros, {m.G, m.N * bits / 32});
        break;
      case QweightConfig::Layout::awq_gemm:
        expect(m.codes, {m.K, m.N / 8});
        expect(m.zeros, {m.G, m.N / 8});
        break;
      case QweightConfig::Layout::awq_gemv: {
        const int64_t unit = m.group >= 128 ? 1 : m.group == 64 ? 2 : 4;
        const int64_t words = ((m.G + 7) / 8 + unit - 1) / unit * unit;
        expect(m.codes, {m.N, m.K / 8});
        expect(m.zeros, {m.N, words});
        scales = {m.N, 8 * words};
        break;
      }
    }
    if (m.scales.shape != scales) {
      fail(ErrorKind::bad_file, "{}: [{}], expected [{}]", tensor(m.scales),
           fmt::join(m.scales.shape, ", "), fmt::join(scales, ", "));
    }
    if (m.groups) expect(*m.groups, {m.K});
  }

  // Channels in the order of their groups; empty when that is their own order.
  std::vector<int32_t> columns_of(const Module& m) const {
    if (!m.groups) return {};
    std::vector<int32_t> of_channel(static_cast<size_t>(m.K));
    std::memcpy(of_channel.data(), m.groups->bytes.data(), m.groups->bytes.size());
    std::vector<int32_t> columns = columns_by_group(of_channel, m.group, tensor(*m.groups));
    if (!columns.empty() && !config_.reorders) {
      fail(ErrorKind::bad_file,
           "{}: groups are not in order, but quantization_config says 'desc_act' is false",
           tensor(*m.groups));
    }
    return columns;
  }

  // Whether all words of qzeros are this one.
  static bool all_words(const SafetensorsEntry& entry, uint32_t word) {
    for (size_t i = 0; i < entry.bytes.size() / 4; ++i) {
      if (word_at(entry, static_cast<int64_t>(i)) != word) return false;
    }
    return true;
  }

  // GPTQ: whether this module's qzeros are one less. A symmetric model's are known, whatever its
  // config says.
  bool zeros_less_one(const Module& m) {
    if (config_.bits == 3 || !config_.symmetric) return config_.zeros_less_one;
    const uint32_t middle = ones(config_.bits) << (config_.bits - 1);
    const bool other =
        all_words(m.zeros, config_.zeros_less_one ? middle : middle - ones(config_.bits));
    if (other && !warned_) {
      warned_ = true;
      warnings_->push_back(
          fmt::format("qzeros are those of GPTQ {}, whatever checkpoint_format says",
                      config_.zeros_less_one ? "v2" : "v1"));
    }
    return config_.zeros_less_one != other;
  }

  ScaleType scale_type(const Module& m) const {
    const std::string& dtype = m.scales.dtype;
    if (dtype == "F16") return ScaleType::f16;
    if (dtype == "BF16") return ScaleType::bf16;
    if (dtype == "F32") return ScaleType::f32;
    fail(ErrorKind::bad_file, "{}: {}, expected F16, BF16 or F32", tensor(m.scales), dtype);
  }

  // Rows [first, first + count) of everything, in the order that Weight wants.
  static void read_rows(const Module& m, QweightConfig::Layout layout, int bits, bool less_one,
                        int64_t scale_size, int64_t first, int64_t count, uint8_t* codes,
                        std::byte* scales, uint8_t* zeros) {
    const std::byte* from = m.scales.bytes.data();
    const bool by_row = layout == QweightConfig::Layout::awq_gemv;
    const int64_t width = m.scales.shape[1];
    for (int64_t n = 0; n < count; ++n) {
      for (int64_t g = 0; g < m.G; ++g) {
        const int64_t at = by_row ? (first + n) * width + g : g * width + first + n;
        std::memcpy(scales + (n * m.G + g) * scale_size, from + at * scale_size,
                    static_cast<size_t>(scale_size));
      }
    }
    switch (layout) {
      case QweightConfig::Layout::gptq:
        read_gptq_codes(m, bits, first, count, codes);
        read_gptq_zeros(m, bits, less_one, first, count, zeros);
        return;
      case QweightConfig::Layout::awq_gemm:
        read_awq_words(m.codes, m.K, m.N, first, count, m.K, codes);
        read_awq_words(m.zeros, m.G, m.N, first, count, m.G, zeros);
        return;
      case QweightConfig::Layout::awq_gemv:
        read_gemv_words(m.codes, m.K / 8, m.K, first, count, codes);
        read_gemv_words(m.zeros, m.zeros.shape[1], m.G, first, count, zeros);
        return;
    }
  }

  NamedTensor read_module(const SafetensorsEntry& entry) {
    const Module m = open_module(entry);
    if (is_plain(m.name)) {
      fail(ErrorKind::bad_file,
           "{}: quantized, but quantization_config in config.json says it is not", tensor(entry));
    }
    const bool less_one = config_.layout == QweightConfig::Layout::gptq && zeros_less_one(m);
    IntegerSource source{
        .N = m.N, .K = m.K, .bits = config_.bits, .group = m.group, .scale_type = scale_type(m)};
    source.columns = columns_of(m);
    const int bits = config_.bits;
    if (bits == 4) {  // the middle of AWQ's symmetric codes too is 8
      source.symmetric = all_words(m.zeros, less_one ? 0x77777777 : 0x88888888);
    }
    const auto scale_size = static_cast<int64_t>(scale_bytes(source.scale_type));
    source.read = [m, layout = config_.layout, bits, less_one, scale_size](
                      int64_t first, int64_t count, uint8_t* codes, std::byte* scales,
                      uint8_t* zeros) {
      read_rows(m, layout, bits, less_one, scale_size, first, count, codes, scales, zeros);
    };
    return {m.name + ".weight", add_planes(std::move(source), planes_)};
  }

  const QweightConfig& config_;
  const std::string& where_;
  RepackedPlanes* planes_;
  std::vector<std::string>* warnings_;
  bool warned_ = false;
  std::map<std::string, const SafetensorsEntry*, std::less<>> entries_;
};

}  // namespace

std::vector<NamedTensor> read_qweights(const SafetensorsFile& file, const QweightConfig& config,
                                       const std::string& where, RepackedPlanes* planes,
                                       std::vector<std::string>* warnings) {
  Reader reader(file, config, where, planes, warnings);
  std::vector<NamedTensor> tensors;
  for (const auto& entry : file.tensors) {
    if (auto tensor = reader.read(entry)) tensors.push_back(std::move(*tensor));
  }
  return tensors;
}

}  // namespace tandem
