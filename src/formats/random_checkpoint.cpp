#include "formats/random_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "formats/validate.h"
#include "tensor/dtype.h"
#include "tensor/sparse.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxShapeBytes = 1 << 16;
constexpr int64_t kPlaces = 1021;  // a tensor begins at one of so many rows of its sheet

// Rows of one encoding and width.
struct Sheet {
  Encoding encoding;
  int64_t K = 0, N = 0;
  std::shared_ptr<Buffer> data, scales;
};

void fill_plain(Packing packing, int64_t count, Random& random, std::byte* row, float deviation) {
  for (int64_t k = 0; k < count; ++k) {
    const float value = near_normal(random.next()) * deviation;
    const uint16_t half = packing == Packing::f16 ? float_to_f16(value) : float_to_bf16(value);
    std::memcpy(row + 2 * k, &half, 2);
  }
}

void fill_random_bytes(Random& random, std::byte* row, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 8) {
    const uint64_t word = random.next();
    std::memcpy(row + i, &word, std::min<size_t>(8, bytes - i));
  }
}

// Codes of about normal numbers, as a row has whose largest is 448.
constexpr float kFp8Deviation = 110;

void fill_fp8(const Sheet& sheet, Random& random, std::byte* row) {
  for (int64_t k = 0; k < sheet.K; ++k) {
    row[k] = static_cast<std::byte>(float_to_e4m3(near_normal(random.next()) * kFp8Deviation));
  }
}

// Blocks of GGUF: random codes under a constant scale and minimum.
void fill_blocks(const Sheet& sheet, Random& random, std::byte* row, float scale, float min) {
  const size_t bytes = sheet.encoding.row_bytes(sheet.K), block = sheet.encoding.row_bytes(32);
  fill_random_bytes(random, row, bytes);
  for (size_t at = 0; at < bytes; at += block) {
    store_scale(row + at, ScaleType::f16, scale);
    if (sheet.encoding.packing == Packing::q4_1) store_scale(row + at + 2, ScaleType::f16, min);
  }
}

// Random codes under scales and minimums that are all alike.
void fill_super_blocks(const Sheet& sheet, Random& random, std::byte* row, float deviation) {
  const size_t bytes = sheet.encoding.row_bytes(sheet.K), block = sheet.encoding.row_bytes(256);
  fill_random_bytes(random, row, bytes);
  for (std::byte* p = row; p < row + bytes; p += block) {
    if (sheet.encoding.packing == Packing::q4_k) {
      const float d = deviation / 4.61f / 32;  // of all scales 32, of all minimums 30
      store_scale(p, ScaleType::f16, d);
      store_scale(p + 2, ScaleType::f16, 8 * d);
      std::memset(p + 4, 0xA0, 4);
      std::memset(p + 8, 0x5E, 4);
      std::memset(p + 12, 0xE0, 4);
    } else {
      std::memset(p + 192, 32, 16);
      store_scale(p + 208, ScaleType::f16, deviation / 18.5f / 32);
    }
  }
}

// The six pairs of places, equally often.
void fill_places(const Sheet& sheet, Random& random, std::byte* row) {
  std::byte* places = row + sheet.encoding.row_bytes(sheet.K) - static_cast<size_t>(sheet.K / 8);
  for (int64_t i = 0; i < sheet.K / 8; ++i) {
    const uint64_t pair = random.below(36);
    places[i] = static_cast<std::byte>(kPlaces24[pair % 6] | kPlaces24[pair / 6] << 4);
  }
}

void fill_row(const Sheet& sheet, uint64_t seed, int64_t n) {
  const Encoding& encoding = sheet.encoding;
  Random random(random_row_key(seed, sheet.K, n));
  std::byte* row = sheet.data->data() + static_cast<size_t>(n) * encoding.row_bytes(sheet.K);
  const auto kept = encoding.is_sparse() ? sheet.K / 2 : sheet.K;
  const float deviation = 1.0f / std::sqrt(static_cast<float>(kept));
  // Uniform codes of 4 and of 8 bits deviate by 4.61 and 73.9, of nf4 and fp4 by 0.517 and 0.487.
  const float nibble = deviation / 4.61f, byte = deviation / 73.9f;
  switch (encoding.packing) {
    case Packing::bf16:
    case Packing::f16:
      fill_plain(encoding.packing, sheet.K, random, row, deviation);
      return;
    case Packing::bf16_24:
    case Packing::f16_24:
      fill_plain(encoding.packing == Packing::f16_24 ? Packing::f16 : Packing::bf16, kept, random,
                 row, deviation);
      fill_places(sheet, random, row);
      return;
    case Packing::q4_k:
    case Packing::q6_k:
      fill_super_blocks(sheet, random, row, deviation);
      return;
    case Packing::q8_0:
      fill_blocks(sheet, random, row, byte, 0);
      return;
    case Packing::q4_0:
    case Packing::q4_1:
      fill_blocks(sheet, random, row, nibble, -7.5f * nibble);
      return;
    default:
      break;
  }
  if (encoding.is_fp8()) {
    fill_fp8(sheet, random, row);
  } else {
    fill_random_bytes(random, row, encoding.row_bytes(sheet.K));
  }
  if (encoding.is_sparse()) fill_places(sheet, random, row);
  const int64_t groups = encoding.groups_per_row(sheet.K);
  const size_t step = scale_bytes(encoding.scale_type);
  const float scale = encoding.is_fp8() ? deviation / kFp8Deviation
                      : encoding.is_lookup()
                          ? deviation / (encoding.packing == Packing::nf4 ? 0.517f : 0.487f)
                      : encoding.bits() == 8 ? byte
                                             : nibble;
  for (int64_t g = 0; g < groups; ++g) {
    store_scale(sheet.scales->data() + static_cast<size_t>(n * groups + g) * step,
                encoding.scale_type, scale);
  }
}

// The same rows where the maker makes them; false when it does not make this encoding's.
bool make_elsewhere(const RowMaker& maker, uint64_t seed, Sheet& sheet) {
  RandomRows rows;
  if (!random_rows_of(sheet.encoding, sheet.K, seed, rows)) return false;
  sheet.data =
      std::make_shared<Buffer>(static_cast<size_t>(sheet.N * rows.row_bytes), maker.memory);
  const int64_t scales_each = rows.groups * rows.scale_bytes;
  if (scales_each > 0) {
    sheet.scales =
        std::make_shared<Buffer>(static_cast<size_t>(sheet.N * scales_each), maker.memory);
  }
  maker.make(rows, sheet.N, sheet.data->data(),
             sheet.scales != nullptr ? sheet.scales->data() : nullptr);
  return true;
}

Sheet make_sheet(const Encoding& encoding, int64_t K, int64_t N, uint64_t seed, ThreadPool& pool,
                 const RowMaker* maker) {
  if (K % encoding.block() != 0) {
    fail(ErrorKind::usage, "{} in rows of {} elements; expected a multiple of {}", encoding.name(),
         K, encoding.block());
  }
  Sheet sheet{encoding, K, N, nullptr, nullptr};
  if (maker != nullptr && make_elsewhere(*maker, seed, sheet)) return sheet;
  sheet.data = std::make_shared<Buffer>(static_cast<size_t>(N) * encoding.row_bytes(K));
  const bool has_scales =
      encoding.packing == Packing::int8_channel || encoding.packing == Packing::llm_int8 ||
      encoding.packing == Packing::int4_group ||
      encoding.packing == Packing::int4_group_24 || encoding.is_fp8() || encoding.is_lookup();
  if (has_scales) {
    sheet.scales = std::make_shared<Buffer>(static_cast<size_t>(N * encoding.groups_per_row(K)) *
                                            scale_bytes(encoding.scale_type));
  }
  pool.parallel_for(N, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) fill_row(sheet, seed, n);
  });
  return sheet;
}

Weight view_of(const Sheet& sheet, int64_t first, int64_t N) {
  Weight all;
  all.encoding = sheet.encoding;
  all.N = sheet.N;
  all.K = sheet.K;
  all.data = sheet.data->data();
  all.scales = sheet.scales != nullptr ? sheet.scales->data() : nullptr;
  return row_range(all, first, N);
}

Weight ones(int64_t K, std::vector<std::shared_ptr<const Buffer>>& memory) {
  auto buffer = std::make_shared<Buffer>(static_cast<size_t>(K) * sizeof(float));
  std::fill_n(buffer->as<float>(), K, 1.0f);
  Weight weight;
  weight.encoding = kF32;
  weight.N = 1;
  weight.K = K;
  weight.data = buffer->data();
  memory.push_back(std::move(buffer));
  return weight;
}

}  // namespace

ModelConfig read_model_shape(const std::filesystem::path& path) {
  const std::string where = path.string();
  const Json json = parse_json(read_text_file(path, kMaxShapeBytes), where);
  ModelConfig config;
  try {
    config.name = json.at("name").get<std::string>();
    config.family = json.at("family").get<std::string>();
    config.num_layers = json.at("num_layers").get<int64_t>();
    config.width = json.at("width").get<int64_t>();
    config.num_heads = json.at("num_heads").get<int64_t>();
    config.num_kv_heads = json.at("num_kv_heads").get<int64_t>();
    config.head_dim = json.at("head_dim").get<int64_t>();
    config.ffn_width = json.at("ffn_width").get<int64_t>();
    config.vocab_size = json.at("vocab_size").get<int64_t>();
    config.max_context = json.at("max_context").get<int64_t>();
    config.rope_theta = json.at("rope_theta").get<double>();
    config.rms_eps = json.at("rms_eps").get<double>();
    config.tied_embedding = json.at("tied_embedding").get<bool>();
    config.qkv_bias = json.value("qkv_bias", false);
  } catch (const Json::exception& error) {
    fail(ErrorKind::bad_file, "{}: {}", where, error.what());
  }
  validate_config(config, where);
  return config;
}

Encoding encoding_of(std::string_view name) {
  constexpr std::string_view kNames[] = {
      "bf16", "f16",      "int8",    "int4-g32",        "int4-g64",     "int4-g128",    "q4_0",
      "q4_1", "q8_0",     "fp8",     "fp8-weight-only", "nf4",          "fp4",          "q4_k",
      "q6_k", "bf16-2:4", "f16-2:4", "int4-g32-2:4",    "int4-g64-2:4", "int4-g128-2:4",
      "llm-int8"};
  const Encoding encodings[] = {kBF16,
                                kF16,
                                int8_channel(ScaleType::bf16),
                                int4_group(32, ScaleType::f16),
                                int4_group(64, ScaleType::f16),
                                int4_group(128, ScaleType::f16),
                                kQ4_0,
                                kQ4_1,
                                kQ8_0,
                                fp8_channel(ScaleType::bf16),
                                fp8_weight(ScaleType::bf16),
                                kNF4,
                                kFP4,
                                kQ4_K,
                                kQ6_K,
                                kBF16_24,
                                kF16_24,
                                int4_group_24(32, ScaleType::f16),
                                int4_group_24(64, ScaleType::f16),
                                int4_group_24(128, ScaleType::f16),
                                kLlmInt8};
  const auto* found = std::ranges::find(kNames, name);
  if (found == std::end(kNames)) {
    fail(ErrorKind::usage, "encoding {}; expected one of {}", quote(name), fmt::join(kNames, ", "));
  }
  return encodings[found - std::begin(kNames)];
}

Checkpoint random_checkpoint(const ModelConfig& config, const Encoding& layers,
                             const Encoding& lm_head, uint64_t seed, ThreadPool& pool,
                             const RowMaker* maker) {
  const auto encoding_for = [&](const std::string& name) {
    if (name == "lm_head.weight") return lm_head;
    if (name != "model.embed_tokens.weight") return layers;
    return config.tied_embedding ? lm_head : kBF16;
  };
  Checkpoint checkpoint;
  checkpoint.path = config.name;
  checkpoint.format = "random weights";
  checkpoint.is_random = true;
  checkpoint.config = config;
  std::vector<Sheet> sheets;
  const auto expected = expected_tensors(config);
  const auto same = [](const Encoding& encoding, int64_t K) {
    return
        [&encoding, K](const Sheet& sheet) { return sheet.encoding == encoding && sheet.K == K; };
  };
  for (const ExpectedTensor& want : expected) {
    if (want.N == 1) continue;
    const Encoding encoding = encoding_for(want.name);
    const auto it = std::ranges::find_if(sheets, same(encoding, want.K));
    if (it == sheets.end()) {
      sheets.push_back({encoding, want.K, want.N, nullptr, nullptr});
    } else {
      it->N = std::max(it->N, want.N);
    }
  }
  for (Sheet& sheet : sheets) {
    sheet = make_sheet(sheet.encoding, sheet.K, sheet.N + kPlaces, seed, pool, maker);
    checkpoint.memory.push_back(sheet.data);
    if (sheet.scales != nullptr) checkpoint.memory.push_back(sheet.scales);
  }
  Random places(seed);
  for (const ExpectedTensor& want : expected) {
    if (want.N == 1) {
      checkpoint.tensors.push_back({want.name, ones(want.K, checkpoint.memory)});
      continue;
    }
    const Encoding encoding = encoding_for(want.name);
    const Sheet& sheet = *std::ranges::find_if(sheets, same(encoding, want.K));
    checkpoint.tensors.push_back(
        {want.name, view_of(sheet, static_cast<int64_t>(places.below(kPlaces)), want.N)});
    checkpoint.file_bytes += checkpoint.tensors.back().weight.total_bytes();
  }
  checkpoint.index_tensors();
  return checkpoint;
}

}  // namespace tandem
