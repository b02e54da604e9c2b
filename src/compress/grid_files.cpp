#include "compress/grid_files.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "base/error.h"
#include "base/json.h"
#include "formats/qweight.h"

namespace tandem {
namespace {

bool is_gptq(GridLayout layout) {
  return layout == GridLayout::gptq || layout == GridLayout::gptq_v2;
}
bool is_compressed_tensors(GridLayout layout) {
  return layout == GridLayout::pack_quantized || layout == GridLayout::int_quantized;
}

const char* dtype_name(ScaleType type) {
  return type == ScaleType::f16 ? "F16" : type == ScaleType::bf16 ? "BF16" : "F32";
}

// Little endian words of fields, set one by one.
class Words {
 public:
  explicit Words(int64_t count) : words_(static_cast<size_t>(count)) {}
  // `bits` of `value` from bit `at` of the stream of words `begin`, begin + stride, ...
  void put(int64_t begin, int64_t stride, int64_t at, int bits, uint32_t value) {
    const uint64_t two = static_cast<uint64_t>(value) << (at % 32);
    words_[static_cast<size_t>(begin + at / 32 * stride)] |= static_cast<uint32_t>(two);
    if (at % 32 + bits > 32)
      words_[static_cast<size_t>(begin + (at / 32 + 1) * stride)] |=
          static_cast<uint32_t>(two >> 32);
  }
  std::vector<uint32_t>& values() { return words_; }

 private:
  std::vector<uint32_t> words_;
};

template <typename T>
void send(const std::vector<T>& values, const ByteSink& sink) {
  sink(std::as_bytes(std::span(values)));
}

int64_t channel_of(const GridMatrix& m, int64_t k) {
  return m.columns.empty() ? k : m.columns[static_cast<size_t>(k)];
}

constexpr int64_t kPieceBytes = 4 << 20;

// compressed-tensors: a row's fields one after another.
void write_rows(const GridMatrix& m, ThreadPool& pool, const ByteSink& sink) {
  const int64_t row_bytes = m.K * m.grid.bits / 8;
  const int64_t piece_rows = std::clamp<int64_t>(kPieceBytes / row_bytes, 1, m.N);
  std::vector<std::byte> packed(static_cast<size_t>(piece_rows * row_bytes));
  for (int64_t from = 0; from < m.N; from += piece_rows) {
    const int64_t count = std::min(piece_rows, m.N - from);
    pool.parallel_for(count, 8, [&](int64_t begin, int64_t end, int) {
      std::vector<uint8_t> row(static_cast<size_t>(m.columns.empty() ? 0 : m.K));
      for (int64_t i = begin; i < end; ++i) {
        const uint8_t* codes = m.codes.data() + (from + i) * m.K;
        if (!m.columns.empty()) {
          for (int64_t k = 0; k < m.K; ++k) row[static_cast<size_t>(channel_of(m, k))] = codes[k];
          codes = row.data();
        }
        pack_codes(codes, m.K, m.grid.bits, packed.data() + i * row_bytes);
      }
    });
    sink(std::span(packed).first(static_cast<size_t>(count * row_bytes)));
  }
}

void write_signed(const std::vector<uint8_t>& codes, int middle, const ByteSink& sink) {
  std::vector<int8_t> out(codes.size());
  for (size_t i = 0; i < codes.size(); ++i) out[i] = static_cast<int8_t>(codes[i] - middle);
  send(out, sink);
}

void write_signed_rows(const GridMatrix& m, const ByteSink& sink) {
  std::vector<uint8_t> in_order(m.codes.size());
  for (int64_t n = 0; n < m.N; ++n) {
    for (int64_t k = 0; k < m.K; ++k) {
      in_order[static_cast<size_t>(n * m.K + channel_of(m, k))] =
          m.codes[static_cast<size_t>(n * m.K + k)];
    }
  }
  write_signed(in_order, m.grid.middle(), sink);
}

// [rows, N] or its transpose, as numbers of the scales' type.
void write_scales(const GridMatrix& m, bool by_group, const ByteSink& sink) {
  const size_t size = scale_bytes(m.grid.scale_type);
  std::vector<std::byte> out(m.scales.size() * size);
  for (int64_t n = 0; n < m.N; ++n) {
    for (int64_t g = 0; g < m.groups(); ++g) {
      const int64_t at = by_group ? g * m.N + n : n * m.groups() + g;
      store_scale(out.data() + static_cast<size_t>(at) * size, m.grid.scale_type,
                  m.fit(n, g).scale);
    }
  }
  send(out, sink);
}

// compressed-tensors: fields along N, a column of words for each group.
void write_packed_zeros(const GridMatrix& m, const ByteSink& sink) {
  const int bits = m.grid.bits;
  const int64_t groups = m.groups();
  Words words((m.N * bits + 31) / 32 * groups);
  for (int64_t n = 0; n < m.N; ++n) {
    for (int64_t g = 0; g < groups; ++g) words.put(g, groups, n * bits, bits, m.fit(n, g).zero);
  }
  send(words.values(), sink);
}

void write_gptq_codes(const GridMatrix& m, ThreadPool& pool, const ByteSink& sink) {
  const int bits = m.grid.bits;
  Words words(m.K * bits / 32 * m.N);
  pool.parallel_for(m.N, 64, [&](int64_t begin, int64_t end, int) {  // a word is of one row
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t k = 0; k < m.K; ++k) {
        words.put(n, m.N, channel_of(m, k) * bits, bits,
                  m.codes[static_cast<size_t>(n * m.K + k)]);
      }
    }
  });
  send(words.values(), sink);
}

void write_gptq_zeros(const GridMatrix& m, int less, const std::string& module,
                      const ByteSink& sink) {
  const int bits = m.grid.bits;
  const int64_t row_words = m.N * bits / 32;
  Words words(m.groups() * row_words);
  for (int64_t g = 0; g < m.groups(); ++g) {
    for (int64_t n = 0; n < m.N; ++n) {
      const int zero = m.fit(n, g).zero - less;
      if (zero < 0) {
        fail(ErrorKind::usage,
             "{}: row {} has a zero point of 0, which GPTQ v1 cannot say: choose gptq_v2", module,
             n);
      }
      words.put(g * row_words, 1, n * bits, bits, static_cast<uint32_t>(zero));
    }
  }
  send(words.values(), sink);
}

void write_group_of_channel(const GridMatrix& m, const ByteSink& sink) {
  std::vector<int32_t> group(static_cast<size_t>(m.K));
  for (int64_t k = 0; k < m.K; ++k) {
    group[static_cast<size_t>(channel_of(m, k))] = static_cast<int32_t>(k / m.grid.group_size(m.K));
  }
  send(group, sink);
}

// Words of eight columns in AutoAWQ's order: [rows, N/8], value(row, n).
template <typename Value>
void write_awq_words(int64_t rows, int64_t N, ThreadPool& pool, const ByteSink& sink,
                     Value value) {
  Words words(rows * N / 8);
  pool.parallel_for(rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t c = 0; c < N / 8; ++c) {
        for (int i = 0; i < 8; ++i)
          words.put(row * N / 8 + c, 0, 4 * i, 4, value(row, 8 * c + kAwqOrder[i]));
      }
    }
  });
  send(words.values(), sink);
}

using Write = std::function<void(const GridMatrix&, const ByteSink&)>;
enum class Reads : uint8_t { codes, fits };  // what of the matrix a tensor is made of
using MakeTensor = std::function<TensorSource(std::string suffix, const char* dtype,
                                              std::vector<int64_t> shape, size_t element_bytes,
                                              Reads reads, Write write)>;

std::vector<TensorSource> compressed_tensors(
    GridLayout layout, const std::string& module, const GridShape& s, ThreadPool& pool,
    const MakeTensor& tensor) {
  const int bits = s.grid.bits;
  const int64_t groups = s.grid.groups_per_row(s.K);
  std::vector<TensorSource> out;
  if (layout == GridLayout::pack_quantized) {
    const std::vector<int64_t> dims = {s.N, s.K};
    out.push_back(
        {module + ".weight_shape", "I64", {2}, 2 * sizeof(int64_t), [dims](const ByteSink& sink) {
           send(dims, sink);
         }});
    out.push_back(tensor(".weight_packed", "I32", {s.N, s.K * bits / 32}, 4, Reads::codes,
                         [&pool](const GridMatrix& m, const ByteSink& sink) {
                           write_rows(m, pool, sink);
                         }));
    if (!s.grid.symmetric) {
      out.push_back(tensor(".weight_zero_point", "I32", {(s.N * bits + 31) / 32, groups}, 4,
                           Reads::fits, write_packed_zeros));
    }
  } else {
    out.push_back(tensor(".weight", "I8", {s.N, s.K}, 1, Reads::codes, write_signed_rows));
    if (!s.grid.symmetric) {
      out.push_back(tensor(".weight_zero_point", "I8", {s.N, groups}, 1, Reads::fits,
                           [](const GridMatrix& m, const ByteSink& sink) {
                             write_signed(m.zeros, m.grid.middle(), sink);
                           }));
    }
  }
  if (s.act_order) out.push_back(tensor(".weight_g_idx", "I32", {s.K}, 4, Reads::fits, write_group_of_channel));
  out.push_back(tensor(
      ".weight_scale", dtype_name(s.grid.scale_type), {s.N, groups}, scale_bytes(s.grid.scale_type),
      Reads::fits, [](const GridMatrix& m, const ByteSink& sink) { write_scales(m, false, sink); }));
  return out;
}

Json weights_json(const IntegerGrid& grid, bool act_order) {
  const bool rows = grid.group == 0;
  return {{"num_bits", grid.bits},
          {"type", "int"},
          {"symmetric", grid.symmetric},
          {"strategy", rows ? "channel" : "group"},
          {"group_size", rows ? Json(nullptr) : Json(grid.group)},
          {"actorder", act_order ? Json("group") : Json(nullptr)},
          {"dynamic", false}};
}

}  // namespace

std::string_view grid_layout_name(GridLayout layout) {
  switch (layout) {
    case GridLayout::pack_quantized:
      return "compressed-tensors pack-quantized";
    case GridLayout::int_quantized:
      return "compressed-tensors int-quantized";
    case GridLayout::gptq:
      return "GPTQ v1";
    case GridLayout::gptq_v2:
      return "GPTQ v2";
    case GridLayout::awq:
      return "AWQ";
  }
  return "?";
}

void check_layout(GridLayout layout, const std::string& module, const GridShape& s) {
  const auto refuse = [&](const std::string& found, const std::string& expected) {
    fail(ErrorKind::usage, "{}: {} holds {}, found {}", module, grid_layout_name(layout), expected,
         found);
  };
  const int bits = s.grid.bits;
  const bool known_bits = layout == GridLayout::awq ? bits == 4
                          : layout == GridLayout::int_quantized
                              ? bits == 8
                              : bits == 2 || bits == 3 || bits == 4 || bits == 8;
  if (!known_bits) {
    refuse(fmt::format("{}", bits), layout == GridLayout::awq             ? "4 bits"
                                    : layout == GridLayout::int_quantized ? "8 bits"
                                                                          : "2, 3, 4 or 8 bits");
  }
  const int64_t group = s.grid.group_size(s.K);
  if (s.K % group != 0 || group % 32 != 0) {
    refuse(fmt::format("groups of {} in a width of {}", group, s.K),
           "groups of a multiple of 32 that divides the width");
  }
  if (!is_compressed_tensors(layout)) {
    CHECK(s.grid.scale_type == ScaleType::f16, "{}", grid_layout_name(layout));
    // Words of 32 bits along N; the library wants whole ones of 32 fields.
    const int64_t rows = is_gptq(layout) ? 32 : 8;
    if (s.N % rows != 0)
      refuse(fmt::format("{} rows", s.N), fmt::format("rows in multiples of {}", rows));
  }
  if (s.act_order && layout == GridLayout::awq) refuse("act-order", "columns in order");
}

std::vector<TensorSource> grid_tensors(GridLayout layout, const std::string& module,
                                       const GridShape& s, MakeGrid make, ThreadPool& pool) {
  check_layout(layout, module, s);
  const MakeTensor tensor = [&](std::string suffix, const char* dtype, std::vector<int64_t> shape,
                                size_t element_bytes, Reads reads, Write write) -> TensorSource {
    uint64_t size_bytes = element_bytes;
    for (const int64_t dim : shape) size_bytes *= static_cast<uint64_t>(dim);
    return {module + suffix, dtype, std::move(shape), size_bytes,
            [make, reads, write = std::move(write)](const ByteSink& sink) {
              write(*make(reads == Reads::codes), sink);
            }};
  };
  if (is_compressed_tensors(layout)) return compressed_tensors(layout, module, s, pool, tensor);
  const int bits = s.grid.bits;
  const int64_t N = s.N, K = s.K, groups = s.grid.groups_per_row(K);
  std::vector<TensorSource> out;
  if (layout == GridLayout::awq) {
    out.push_back(
        tensor(".qweight", "I32", {K, N / 8}, 4, Reads::codes,
               [&pool](const GridMatrix& m, const ByteSink& sink) {
                 write_awq_words(m.K, m.N, pool, sink, [&](int64_t k, int64_t n) {
                   return m.codes[static_cast<size_t>(n * m.K + k)];
                 });
               }));
    out.push_back(
        tensor(".qzeros", "I32", {groups, N / 8}, 4, Reads::fits,
               [&pool](const GridMatrix& m, const ByteSink& sink) {
                 write_awq_words(m.groups(), m.N, pool, sink,
                                 [&](int64_t g, int64_t n) { return m.fit(n, g).zero; });
               }));
  } else {
    const int less = layout == GridLayout::gptq ? 1 : 0;
    out.push_back(tensor(".qweight", "I32", {K * bits / 32, N}, 4, Reads::codes,
                         [&pool](const GridMatrix& m, const ByteSink& sink) {
                           write_gptq_codes(m, pool, sink);
                         }));
    out.push_back(tensor(".qzeros", "I32", {groups, N * bits / 32}, 4, Reads::fits,
                         [less, module](const GridMatrix& m, const ByteSink& sink) {
                           write_gptq_zeros(m, less, module, sink);
                         }));
    out.push_back(tensor(".g_idx", "I32", {K}, 4, Reads::fits, write_group_of_channel));
  }
  out.push_back(
      tensor(".scales", "F16", {groups, N}, 2, Reads::fits,
             [](const GridMatrix& m, const ByteSink& sink) { write_scales(m, true, sink); }));
  return out;
}

std::string grid_config_json(GridLayout layout, const std::vector<GridGroup>& groups,
                             const std::vector<std::string>& ignored) {
  CHECK(groups.size() == 1 || is_compressed_tensors(layout), "{} groups", groups.size());
  const auto& [grid, act_order, modules] = groups.front();
  const int64_t group = grid.group == 0 ? -1 : grid.group;
  if (layout == GridLayout::awq) {
    return dump_json({{"quant_method", "awq"},
                      {"bits", grid.bits},
                      {"group_size", group},
                      {"zero_point", !grid.symmetric},
                      {"version", "gemm"},
                      {"modules_to_not_convert", ignored}},
                     2);
  }
  if (is_gptq(layout)) {
    return dump_json({{"quant_method", "gptq"},
                      {"bits", grid.bits},
                      {"group_size", group},
                      {"desc_act", act_order},
                      {"sym", grid.symmetric},
                      {"lm_head", false},
                      {"checkpoint_format", layout == GridLayout::gptq ? "gptq" : "gptq_v2"},
                      {"pack_dtype", "int32"}},
                     2);
  }
  std::vector<Json> schemes;
  for (const GridGroup& each : groups) schemes.push_back(grid_scheme_json(layout, each));
  return compressed_tensors_json(schemes, ignored);
}

Json grid_scheme_json(GridLayout layout, const GridGroup& group) {
  const bool packed = layout == GridLayout::pack_quantized;
  const Json targets = group.modules.empty() ? Json::array({"Linear"}) : Json(group.modules);
  return {{"targets", targets},
          {"format", packed ? "pack-quantized" : "int-quantized"},  // or the library infers another
          {"weights", weights_json(group.grid, group.act_order)},
          {"input_activations", nullptr},
          {"output_activations", nullptr}};
}

std::string compressed_tensors_json(const std::vector<Json>& schemes,
                                    const std::vector<std::string>& ignored) {
  CHECK(!schemes.empty(), "no schemes");
  Json config_groups = Json::object();
  Json format = schemes.front()["format"];
  for (const Json& scheme : schemes) {
    config_groups[fmt::format("group_{}", config_groups.size())] = scheme;
    if (scheme["format"] != format) format = "mixed-precision";
  }
  return dump_json({{"quant_method", "compressed-tensors"},
                    {"format", format},
                    {"quantization_status", "compressed"},
                    {"config_groups", config_groups},
                    {"ignore", ignored},
                    {"kv_cache_scheme", nullptr},
                    {"global_compression_ratio", nullptr}},
                   2);
}

}  // namespace tandem
