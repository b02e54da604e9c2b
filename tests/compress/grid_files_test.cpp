// Integers in the layouts of compressed-tensors, GPTQ and AWQ: the words by hand, and folders that
// come back as the numbers they were made of, run by every instruction set.
#include "compress/grid_files.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "base/json.h"
#include "base/random.h"
#include "compress/rtn_grid.h"
#include "formats/safetensors.h"
#include "formats/temporary_folder.h"
#include "formats/validate.h"
#include "model/model.h"
#include "runtime/engine.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

std::vector<uint32_t> words_of(const std::vector<TensorSource>& tensors, const std::string& name) {
  for (const TensorSource& tensor : tensors) {
    if (tensor.name != name) continue;
    std::string bytes;
    tensor.write([&](std::span<const std::byte> piece) {
      bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    });
    EXPECT_EQ(bytes.size(), tensor.size_bytes) << name;
    std::vector<uint32_t> words(bytes.size() / 4);
    std::memcpy(words.data(), bytes.data(), words.size() * 4);
    return words;
  }
  ADD_FAILURE() << "no " << name;
  return {};
}

// [32, 32]: the code of row n, column k is (n + k) % 2^bits.
GridMatrix ramp(int bits, ScaleType type, bool symmetric = true) {
  GridMatrix m({bits, 32, symmetric, type}, 32, 32);
  for (int64_t i = 0; i < 32 * 32; ++i)
    m.codes[static_cast<size_t>(i)] = static_cast<uint8_t>((i / 32 + i % 32) & m.grid.max_code());
  for (float& scale : m.scales) scale = 1.0f;
  return m;
}

MakeGrid as_made(const GridMatrix& m) {
  return [made = std::make_shared<const GridMatrix>(m)](bool) { return made; };
}

ThreadPool& test_pool() {
  static ThreadPool pool(2);
  return pool;
}

std::vector<TensorSource> ramp_tensors(GridLayout layout, int bits, ScaleType type) {
  const GridMatrix m = ramp(bits, type);
  return grid_tensors(layout, "m", {m.grid, 32, 32}, as_made(m), test_pool());
}

TEST(GridFiles, WordsAreTheLibraries) {
  const auto awq = ramp_tensors(GridLayout::awq, 4, ScaleType::f16);
  EXPECT_EQ(words_of(awq, "m.qweight")[0], 0x75316420u);  // column codes 0 ... 7 of channel 0
  EXPECT_EQ(words_of(awq, "m.qzeros")[0], 0x88888888u);
  const auto v1 = ramp_tensors(GridLayout::gptq, 4, ScaleType::f16);
  EXPECT_EQ(words_of(v1, "m.qweight")[0], 0x76543210u);  // channels 0 ... 7 of row 0
  EXPECT_EQ(words_of(v1, "m.qzeros")[0], 0x77777777u);
  const auto v2 = ramp_tensors(GridLayout::gptq_v2, 4, ScaleType::f16);
  EXPECT_EQ(words_of(v2, "m.qzeros")[0], 0x88888888u);
  const auto three = words_of(ramp_tensors(GridLayout::gptq, 3, ScaleType::f16), "m.qweight");
  EXPECT_EQ(three[0], 0x88fac688u);  // [3, 32] words: those of row 0
  EXPECT_EQ(three[32], 0xc688fac6u);
  EXPECT_EQ(three[64], 0xfac688fau);
  const auto packed =
      words_of(ramp_tensors(GridLayout::pack_quantized, 4, ScaleType::bf16), "m.weight_packed");
  EXPECT_EQ(packed[0], 0x76543210u);  // signed -8 ... -1
  EXPECT_EQ(packed[1], 0xfedcba98u);  // 0 ... 7
}

ModelConfig small_config() {
  ModelConfig config;
  config.name = "small";
  config.num_layers = 1;
  config.width = 64;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 32;
  config.ffn_width = 96;
  config.vocab_size = 4;
  config.max_context = 64;
  config.rms_eps = 1e-5;
  config.tied_embedding = true;
  return config;
}

TokenizerSpec small_tokenizer() {
  TokenizerSpec spec;
  spec.pre_tokenizer = "smollm";
  spec.tokens = {"a", "b", "ab", "c"};
  spec.types.assign(4, TokenType::normal);
  spec.merges = {{"a", "b"}};
  return spec;
}

struct Case {
  GridLayout layout;
  int bits;
  int64_t group;
  bool symmetric;
  bool act_order;
};

// Random codes, scales and zero points; with act-order each matrix has an order of its own.
GridMatrix random_matrix(const Case& c, int64_t N, int64_t K, uint64_t seed) {
  const bool bf16 = c.layout == GridLayout::pack_quantized || c.layout == GridLayout::int_quantized;
  GridMatrix m({c.bits, c.group, c.symmetric, bf16 ? ScaleType::bf16 : ScaleType::f16}, N, K);
  Random random(seed);
  const uint64_t range = 1u << c.bits;
  for (uint8_t& code : m.codes) code = static_cast<uint8_t>(random.below(range));
  for (float& scale : m.scales) {
    scale =
        round_to_type(static_cast<float>(0.3 / static_cast<double>(range) * (1 + random.uniform())),
                      m.grid.scale_type);
  }
  const uint64_t least = c.layout == GridLayout::gptq ? 1 : 0;  // v1 has no zero point of 0
  for (uint8_t& zero : m.zeros) {
    if (!c.symmetric) zero = static_cast<uint8_t>(least + random.below(range - least));
  }
  if (!c.act_order) return m;
  m.columns.resize(static_cast<size_t>(K));
  std::iota(m.columns.begin(), m.columns.end(), 0);
  for (size_t i = m.columns.size() - 1; i > 0; --i)
    std::swap(m.columns[i], m.columns[random.below(i + 1)]);
  // Within a group the order is not kept by a file: the channels' own.
  const auto group = static_cast<int64_t>(m.grid.group_size(K));
  for (int64_t k = 0; k < K; k += group)
    std::sort(m.columns.begin() + k, m.columns.begin() + k + group);
  return m;
}

TensorSource plain_tensor(const ExpectedTensor& want, uint64_t seed) {
  Random random(seed);
  std::string bytes;
  for (int64_t i = 0; i < want.N * want.K; ++i) {
    const uint16_t h = float_to_bf16(want.N == 1 ? 1.0f : static_cast<float>(random.normal()));
    bytes.append(reinterpret_cast<const char*>(&h), 2);
  }
  return {want.name, "BF16", want.N == 1 ? std::vector{want.K} : std::vector{want.N, want.K},
          bytes.size(), [bytes](const ByteSink& sink) { sink(std::as_bytes(std::span(bytes))); }};
}

// A folder of the layout, and the matrices it was made of.
std::map<std::string, GridMatrix> write_folder(
    const std::filesystem::path& dir, const Case& c,
    const std::function<void(std::vector<TensorSource>&)>& spoil = {}) {
  std::map<std::string, GridMatrix> matrices;
  std::vector<TensorSource> tensors;
  IntegerGrid grid;
  for (const ExpectedTensor& want : expected_tensors(small_config())) {
    if (!want.name.ends_with("_proj.weight")) {
      tensors.push_back(plain_tensor(want, tensors.size()));
      continue;
    }
    const std::string module = want.name.substr(0, want.name.rfind('.'));
    const GridMatrix m = random_matrix(c, want.N, want.K, matrices.size() + 1);
    grid = m.grid;
    for (TensorSource& made :
         grid_tensors(c.layout, module, {m.grid, want.N, want.K, c.act_order}, as_made(m), test_pool())) {
      tensors.push_back(std::move(made));
    }
    matrices.emplace(want.name, m);
  }
  if (spoil) spoil(tensors);
  write_hf_folder(dir, small_config(), small_tokenizer(), tensors,
                  grid_config_json(c.layout, {{grid, c.act_order}}, {"lm_head"}), "");
  return matrices;
}

constexpr Case kCases[] = {
    {GridLayout::pack_quantized, 4, 32, true, false},
    {GridLayout::pack_quantized, 4, 32, false, false},
    {GridLayout::pack_quantized, 4, 0, true, false},
    {GridLayout::pack_quantized, 3, 32, false, false},
    {GridLayout::pack_quantized, 8, 32, false, false},
    {GridLayout::pack_quantized, 2, 32, true, false},
    {GridLayout::pack_quantized, 4, 32, false, true},
    {GridLayout::int_quantized, 8, 32, true, false},
    {GridLayout::int_quantized, 8, 0, false, false},
    {GridLayout::gptq, 4, 32, true, false},
    {GridLayout::gptq, 4, 32, false, true},
    {GridLayout::gptq, 3, 32, false, false},
    {GridLayout::gptq, 8, 0, true, false},
    {GridLayout::gptq_v2, 2, 32, false, false},
    {GridLayout::gptq_v2, 4, 32, true, true},
    {GridLayout::gptq_v2, 3, 32, false, true},
    {GridLayout::awq, 4, 32, false, false},
    {GridLayout::awq, 4, 32, true, false},
};

TEST(GridFiles, FoldersAreReadBackAsTheyWereMade) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} {} bits g{} {} {}", grid_layout_name(c.layout), c.bits, c.group,
                             c.symmetric, c.act_order));
    const TemporaryFolder folder;
    const auto matrices = write_folder(folder.path() / "m", c);
    const Checkpoint model = load_checkpoint(folder.path() / "m");
    for (const auto& [name, m] : matrices) {
      const Weight& w = model.weight(name);
      const bool four = c.bits == 4 && c.symmetric;
      EXPECT_EQ(w.encoding.packing, four          ? Packing::int4_group
                                    : c.bits == 2 ? Packing::int2_zero
                                    : c.bits == 3 ? Packing::int3_zero
                                    : c.bits == 4 ? Packing::int4_zero
                                                  : Packing::int8_zero);
      EXPECT_EQ(w.columns != nullptr, c.act_order);
      std::vector<float> ours(static_cast<size_t>(w.K)), wanted(ours.size());
      for (int64_t n = 0; n < w.N; ++n) {
        decode_row(w, n, ours.data());
        decode_row(m, n, wanted.data());
        ASSERT_EQ(ours, wanted) << name << " row " << n;
      }
    }
  }
}

std::vector<float> logits_of(const Checkpoint& checkpoint, std::string_view isa,
                             uint64_t* weight_bytes) {
  ThreadPool pool(2);
  const Model model(checkpoint, pool, isa);
  *weight_bytes = model.weight_bytes();
  const std::vector<int32_t> tokens = {0, 1, 2, 3, 1, 0};
  Scorer scorer(model, KvType::f32, static_cast<int64_t>(tokens.size()));
  std::vector<float> out;
  scorer.score(tokens, 0,
               [&](int64_t, const float* logits) { out.insert(out.end(), logits, logits + 4); });
  return out;
}

// Activations of 8 bits against fp32 ones: the same function within their rounding. Twice, since
// the planes of a checkpoint are given back once a model has packed them.
TEST(GridFiles, EveryInstructionSetRunsThem) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(fmt::format("{} {} bits g{} {} {}", grid_layout_name(c.layout), c.bits, c.group,
                             c.symmetric, c.act_order));
    const TemporaryFolder folder;
    write_folder(folder.path() / "m", c);
    const Checkpoint model = load_checkpoint(folder.path() / "m");
    uint64_t file_bytes = 0, bytes = 0;
    const std::vector<float> truth = logits_of(model, "ref", &file_bytes);
    for (const std::string_view isa : runnable_isas()) {
      if (isa == "ref") continue;
      const std::vector<float> fast = logits_of(model, isa, &bytes);
      double error = 0, power = 0;
      for (size_t i = 0; i < truth.size(); ++i) {
        error += (fast[i] - truth[i]) * static_cast<double>(fast[i] - truth[i]);
        power += truth[i] * static_cast<double>(truth[i]);
      }
      EXPECT_LT(error / power, 1e-3) << isa;
    }
  }
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// The file without, or with another, tensor NAME of one module.
std::string refusal(const Case& c, const std::string& name, std::vector<int64_t> shape,
                    std::vector<int32_t> values) {
  const TemporaryFolder folder;
  write_folder(folder.path() / "m", c, [&](std::vector<TensorSource>& tensors) {
    for (TensorSource& tensor : tensors) {
      if (tensor.name != "model.layers.0.mlp.up_proj." + name) continue;
      tensor.shape = shape;
      tensor.size_bytes = 4 * values.size();
      tensor.write = [values](const ByteSink& sink) { sink(std::as_bytes(std::span(values))); };
    }
  });
  return error_of([&] { load_checkpoint(folder.path() / "m"); });
}

TEST(GridFiles, WhatDoesNotFitIsRefusedByName) {
  const Case gptq{GridLayout::gptq, 4, 32, true, true};
  std::vector<int32_t> groups(64);
  for (int32_t k = 0; k < 64; ++k) groups[static_cast<size_t>(k)] = k / 32;
  groups[5] = 2;
  EXPECT_NE(refusal(gptq, "g_idx", {64}, groups).find("channel 5 is of group 2, expected 0 to 1"),
            std::string::npos);
  groups[5] = -1;
  EXPECT_NE(refusal(gptq, "g_idx", {64}, groups).find("channel 5 is of group -1"),
            std::string::npos);
  groups[5] = 1;
  EXPECT_NE(refusal(gptq, "g_idx", {64}, groups).find("more than 32 channels"), std::string::npos);
  std::reverse(groups.begin(), groups.end());
  const Case in_order{GridLayout::gptq, 4, 32, true, false};
  groups[58] = 0;
  EXPECT_NE(refusal(in_order, "g_idx", {64}, groups).find("'desc_act' is false"),
            std::string::npos);
  EXPECT_NE(refusal(gptq, "qzeros", {2, 11}, std::vector<int32_t>(22))
                .find("[2, 11], expected I32 [2, 12]"),
            std::string::npos);
  const Case awq{GridLayout::awq, 4, 32, false, false};
  EXPECT_NE(refusal(awq, "qzeros", {1, 12}, std::vector<int32_t>(12))
                .find("[1, 12], expected I32 [2, 12]"),
            std::string::npos);
  const Case packed{GridLayout::pack_quantized, 4, 32, false, false};
  EXPECT_NE(refusal(packed, "weight_zero_point", {11, 2}, std::vector<int32_t>(22))
                .find("expected I32 [12, 2]"),
            std::string::npos);
}

std::string config_refusal(const Case& c, const char* key, const Json& value) {
  const TemporaryFolder folder;
  write_folder(folder.path() / "m", c);
  const auto path = folder.path() / "m" / "config.json";
  Json json = parse_json(read_text_file(path, 1 << 20), "config.json");
  json["quantization_config"][key] = value;
  write_file_atomic(path, json.dump());
  return error_of([&] { load_checkpoint(folder.path() / "m"); });
}

TEST(GridFiles, ConfigsThatThisVersionDoesNotKnowAreRefusedByName) {
  const Case gptq{GridLayout::gptq, 4, 32, true, false}, awq{GridLayout::awq, 4, 32, false, false};
  EXPECT_NE(config_refusal(gptq, "group_size", 0).find("'group_size' is '0'"), std::string::npos);
  EXPECT_NE(config_refusal(gptq, "group_size", "128").find("'group_size'"), std::string::npos);
  EXPECT_NE(config_refusal(gptq, "bits", 5).find("'bits' is '5', expected one of 2, 3, 4, 8"),
            std::string::npos);
  EXPECT_NE(config_refusal(gptq, "bits", 8).find("expected"), std::string::npos);
  EXPECT_NE(config_refusal(gptq, "checkpoint_format", "marlin").find("checkpoint_format"),
            std::string::npos);
  EXPECT_NE(config_refusal(awq, "version", "exllama")
                .find("'version' is '\"exllama\"', expected gemm or gemv"),
            std::string::npos);
  EXPECT_NE(config_refusal(awq, "bits", 8).find("'bits'"), std::string::npos);
  EXPECT_NE(config_refusal(awq, "modules_to_not_convert", {"up_proj"}).find("says it is not"),
            std::string::npos);
}

// Bits of a module by its name, by a pattern and by "Linear", in this order; "re:" in ignore.
TEST(GridFiles, ModulesMayBeOfSeveralGrids) {
  const TemporaryFolder folder;
  const Case four{GridLayout::pack_quantized, 4, 32, true, false};
  const Case eight{GridLayout::pack_quantized, 8, 32, true, false};
  const Case three{GridLayout::pack_quantized, 3, 32, false, false};
  std::vector<TensorSource> tensors;
  const auto case_of = [&](const std::string& name) {
    return name.find("o_proj") != std::string::npos ? eight
           : name.find("mlp") != std::string::npos  ? three
                                                    : four;
  };
  for (const ExpectedTensor& want : expected_tensors(small_config())) {
    if (!want.name.ends_with("_proj.weight") || want.name.find("down") != std::string::npos) {
      tensors.push_back(plain_tensor(want, tensors.size()));
      continue;
    }
    const GridMatrix m = random_matrix(case_of(want.name), want.N, want.K, tensors.size());
    const std::string module = want.name.substr(0, want.name.rfind('.'));
    for (TensorSource& made : grid_tensors(GridLayout::pack_quantized, module,
                                           {m.grid, want.N, want.K}, as_made(m), test_pool())) {
      tensors.push_back(std::move(made));
    }
  }
  const auto grid = [](int bits, bool symmetric) {
    return IntegerGrid{bits, 32, symmetric, ScaleType::bf16};
  };
  const std::vector<GridGroup> groups = {
      {grid(4, true)},
      {grid(3, false), false, {"re:.*mlp.*"}},
      {grid(8, true), false, {"model.layers.0.self_attn.o_proj"}}};
  write_hf_folder(
      folder.path() / "m", small_config(), small_tokenizer(), tensors,
      grid_config_json(GridLayout::pack_quantized, groups, {"lm_head", "re:.*down_proj$"}), "");
  const Checkpoint model = load_checkpoint(folder.path() / "m");
  const auto packing = [&](const std::string& name) {
    return model.find("model.layers.0." + name + "_proj.weight")->weight.encoding.packing;
  };
  EXPECT_EQ(packing("self_attn.q"), Packing::int4_group);
  EXPECT_EQ(packing("self_attn.o"), Packing::int8_zero);
  EXPECT_EQ(packing("mlp.up"), Packing::int3_zero);
  EXPECT_EQ(packing("mlp.down"), Packing::bf16);
}

template <typename T>
TensorSource source_of(const std::string& name, const char* dtype, std::vector<int64_t> shape,
                       const std::vector<T>& values) {
  return {name, dtype, std::move(shape), values.size() * sizeof(T),
          [values](const ByteSink& sink) { sink(std::as_bytes(std::span(values))); }};
}

// AutoAWQ's GEMV layout: words along K, rows of zero points and scales padded to 4 words and 32
// scales.
std::vector<TensorSource> gemv_tensors(const std::string& module, const GridMatrix& m) {
  std::vector<uint32_t> codes(static_cast<size_t>(m.N * m.K / 8)),
      zeros(static_cast<size_t>(m.N * 4));
  std::vector<uint16_t> scales(static_cast<size_t>(m.N * 32));
  for (int64_t n = 0; n < m.N; ++n) {
    for (int64_t k = 0; k < m.K; ++k) {
      codes[static_cast<size_t>((n * m.K + k) / 8)] |=
          uint32_t{m.codes[static_cast<size_t>(n * m.K + k)]} << (k % 8 * 4);
    }
    for (int64_t g = 0; g < m.groups(); ++g) {
      zeros[static_cast<size_t>(n * 4)] |= uint32_t{m.fit(n, g).zero} << (4 * g);
      scales[static_cast<size_t>(n * 32 + g)] = float_to_f16(m.fit(n, g).scale);
    }
  }
  return {source_of(module + ".qweight", "I32", {m.N, m.K / 8}, codes),
          source_of(module + ".qzeros", "I32", {m.N, 4}, zeros),
          source_of(module + ".scales", "F16", {m.N, 32}, scales)};
}

TEST(GridFiles, AwqGemvIsReadBack) {
  const TemporaryFolder folder;
  const Case c{GridLayout::awq, 4, 32, false, false};
  std::map<std::string, GridMatrix> matrices;
  std::vector<TensorSource> tensors;
  for (const ExpectedTensor& want : expected_tensors(small_config())) {
    if (!want.name.ends_with("_proj.weight")) {
      tensors.push_back(plain_tensor(want, tensors.size()));
      continue;
    }
    const GridMatrix& m =
        matrices.emplace(want.name, random_matrix(c, want.N, want.K, tensors.size())).first->second;
    for (TensorSource& made : gemv_tensors(want.name.substr(0, want.name.rfind('.')), m)) {
      tensors.push_back(std::move(made));
    }
  }
  const Json config = {
      {"quant_method", "awq"}, {"bits", 4}, {"group_size", 32}, {"version", "GEMV"}};
  write_hf_folder(folder.path() / "m", small_config(), small_tokenizer(), tensors, config.dump(),
                  "");
  const Checkpoint model = load_checkpoint(folder.path() / "m");
  EXPECT_NE(model.format.find("AWQ gemv"), std::string::npos);
  for (const auto& [name, m] : matrices) {
    const Weight& w = model.weight(name);
    std::vector<float> ours(static_cast<size_t>(w.K)), wanted(ours.size());
    for (int64_t n = 0; n < w.N; ++n) {
      decode_row(w, n, ours.data());
      decode_row(m, n, wanted.data());
      ASSERT_EQ(ours, wanted) << name << " row " << n;
    }
  }
}

// As AutoGPTQ once wrote folders: the config in a file of its own, a bias of zeros beside every
// matrix.
TEST(GridFiles, OldGptqFoldersAreRead) {
  const TemporaryFolder folder;
  write_folder(folder.path() / "m", {GridLayout::gptq, 4, 32, true, false},
               [](std::vector<TensorSource>& tensors) {
                 tensors.push_back(source_of("model.layers.0.mlp.up_proj.bias", "F16", {96},
                                             std::vector<uint16_t>(96)));
               });
  const auto path = folder.path() / "m" / "config.json";
  Json json = parse_json(read_text_file(path, 1 << 20), "config.json");
  Json quantization = json["quantization_config"];
  json.erase("quantization_config");
  quantization.erase("quant_method");
  write_file_atomic(path, json.dump());
  write_file_atomic(folder.path() / "m" / "quantize_config.json", quantization.dump());
  const Checkpoint model = load_checkpoint(folder.path() / "m");
  EXPECT_EQ(model.find("model.layers.0.mlp.up_proj.weight")->weight.encoding,
            int4_group(32, ScaleType::f16));
  ASSERT_EQ(model.warnings.size(), 1u);
  EXPECT_NE(model.warnings[0].find("1 biases of zeros"), std::string::npos);
}

// A symmetric model's zero points are known: a wrong checkpoint_format shifts nothing.
TEST(GridFiles, SymmetricGptqIsReadWhateverItsVersionSays) {
  const TemporaryFolder folder;
  const Case c{GridLayout::gptq, 4, 32, true, false};
  const auto matrices = write_folder(folder.path() / "m", c);
  const auto path = folder.path() / "m" / "config.json";
  Json json = parse_json(read_text_file(path, 1 << 20), "config.json");
  json["quantization_config"]["checkpoint_format"] = "gptq_v2";
  write_file_atomic(path, json.dump());
  const Checkpoint model = load_checkpoint(folder.path() / "m");
  ASSERT_EQ(model.warnings.size(), 1u);
  EXPECT_NE(model.warnings[0].find("GPTQ v1"), std::string::npos);
  const auto& [name, m] = *matrices.begin();
  std::vector<float> ours(static_cast<size_t>(m.K)), wanted(ours.size());
  decode_row(model.weight(name), 3, ours.data());
  decode_row(m, 3, wanted.data());
  EXPECT_EQ(ours, wanted);
}

TEST(GridFiles, GptqV1CannotSayAZeroPointOfZero) {
  GridMatrix m = ramp(4, ScaleType::f16, false);
  m.zeros[7] = 0;
  const auto tensors = grid_tensors(GridLayout::gptq, "m", {m.grid, 32, 32}, as_made(m), test_pool());
  EXPECT_NE(error_of([&] { words_of(tensors, "m.qzeros"); }).find("choose gptq_v2"),
            std::string::npos);
}

TEST(GridFiles, LayoutsRefuseWhatTheyCannotHold) {
  const auto refused = [](GridLayout layout, int bits, int64_t group, int64_t N, int64_t K) {
    const GridShape shape{{bits, group, true, ScaleType::f16}, N, K};
    return error_of([&] { check_layout(layout, "m", shape); });
  };
  EXPECT_NE(refused(GridLayout::awq, 8, 32, 32, 64).find("AWQ holds 4 bits, found 8"),
            std::string::npos);
  EXPECT_NE(refused(GridLayout::gptq, 5, 32, 32, 64).find("2, 3, 4 or 8 bits"), std::string::npos);
  EXPECT_NE(refused(GridLayout::gptq, 4, 128, 32, 576).find("groups of 128 in a width of 576"),
            std::string::npos);
  EXPECT_NE(refused(GridLayout::gptq, 4, 32, 20, 64).find("20 rows"), std::string::npos);
  EXPECT_EQ(refused(GridLayout::gptq, 4, 0, 32, 96), "no error");
}

}  // namespace
}  // namespace tandem
