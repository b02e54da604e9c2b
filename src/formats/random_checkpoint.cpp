#include "formats/random_checkpoint.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "formats/validate.h"

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

// Where the maker makes rows, or here.
Sheet make_sheet(const Encoding& encoding, int64_t K, int64_t N, uint64_t seed, ThreadPool& pool,
                 const RowMaker* maker) {
  if (K % encoding.block() != 0) {
    fail(ErrorKind::usage, "{} in rows of {} elements; expected a multiple of {}", encoding.name(),
         K, encoding.block());
  }
  RandomRows rows;
  CHECK(random_rows_of(encoding, K, seed, rows), "{}", encoding.name());
  Sheet sheet{encoding, K, N, nullptr, nullptr};
  DeviceMemory* memory = maker != nullptr ? maker->memory : nullptr;
  const int64_t scales_each = rows.groups * rows.scale_bytes;
  sheet.data = std::make_shared<Buffer>(static_cast<size_t>(N * rows.row_bytes), memory);
  if (scales_each > 0) {
    sheet.scales = std::make_shared<Buffer>(static_cast<size_t>(N * scales_each), memory);
  }
  std::byte* scales = scales_each > 0 ? sheet.scales->data() : nullptr;
  if (maker != nullptr) {
    maker->make(rows, N, sheet.data->data(), scales);
    return sheet;
  }
  pool.parallel_for(N, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      make_random_row(rows, n, sheet.data->data() + n * rows.row_bytes,
                      scales != nullptr ? scales + n * scales_each : nullptr);
    }
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
      "llm-int8", "int8-2:4", "fp8-2:4"};
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
                                kLlmInt8,
                                int8_channel_24(ScaleType::bf16),
                                fp8_channel_24(ScaleType::bf16)};
  const auto* found = std::ranges::find(kNames, name);
  if (found == std::end(kNames)) {
    fail(ErrorKind::usage, "encoding {}; expected one of {}", quote(name), fmt::join(kNames, ", "));
  }
  return encodings[found - std::begin(kNames)];
}

TokenizerSpec byte_tokenizer(int64_t vocab_size) {
  constexpr const char* kPieces[] = {"a", "b", "ab"};
  if (vocab_size < 260) {
    fail(ErrorKind::usage, "vocabulary of {} tokens, expected 260 for every byte to have one",
         vocab_size);
  }
  TokenizerSpec spec;
  spec.kind = TokenizerKind::sentencepiece;
  spec.unk_id = 0;
  for (int64_t id = 0; id < vocab_size; ++id) {
    const bool is_byte = id > 0 && id <= 256;
    spec.tokens.push_back(id == 0   ? "<unk>"
                          : is_byte ? fmt::format("<0x{:02X}>", id - 1)
                          : id < 260 ? kPieces[id - 257]
                                    : fmt::format("<token{}>", id));
    spec.types.push_back(id == 0   ? TokenType::unknown
                         : is_byte ? TokenType::byte
                                   : TokenType::normal);
    spec.scores.push_back(0.0f);
  }
  return spec;
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
