// Recipes, what is refused, and the bytes of a small model's folder.
#include "compress/compress.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/error_message.h"
#include "base/json.h"
#include "compress/prune.h"
#include "formats/temporary_folder.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

// One layer of a model 64 wide, as f32 tensors in memory; q_proj's rows lie as GGUF interleaves
// them.
struct ToyModel {
  std::vector<std::vector<float>> data;
  Checkpoint checkpoint;

  explicit ToyModel(Encoding encoding = kF32) {
    checkpoint.path = "toy";
    checkpoint.format = "memory";
    checkpoint.config = {.name = "toy",
                         .num_layers = 1,
                         .width = 64,
                         .num_heads = 2,
                         .num_kv_heads = 1,
                         .head_dim = 32,
                         .ffn_width = 96,
                         .vocab_size = 3,
                         .max_context = 128,
                         .tied_embedding = true,
                         .full_layers = {},
                         .rope_divisors = {}};
    checkpoint.tokenizer.pre_tokenizer = "smollm";
    checkpoint.tokenizer.tokens = {"<|endoftext|>", "a", "b"};
    checkpoint.tokenizer.types = {TokenType::control, TokenType::normal, TokenType::normal};
    checkpoint.tokenizer.eos_id = 0;
    const std::string layer = "model.layers.0.";
    add("model.embed_tokens.weight", 3, 64, kF32);
    add(layer + "input_layernorm.weight", 1, 64, kF32);
    add(layer + "self_attn.q_proj.weight", 64, 64, encoding);
    checkpoint.tensors.back().weight.interleaved_head = 32;
    add(layer + "self_attn.k_proj.weight", 32, 64, encoding);
    add(layer + "self_attn.v_proj.weight", 32, 64, encoding);
    add(layer + "self_attn.o_proj.weight", 64, 64, encoding);
    add(layer + "post_attention_layernorm.weight", 1, 64, kF32);
    add(layer + "mlp.gate_proj.weight", 96, 64, encoding);
    add(layer + "mlp.up_proj.weight", 96, 64, encoding);
    add(layer + "mlp.down_proj.weight", 64, 96, encoding);
    add("model.norm.weight", 1, 64, kF32);
    checkpoint.index_tensors();
    // The manifest names the hash of a file: any will do.
    checkpoint.files.push_back(
        std::make_shared<MappedFile>(TANDEM_TEST_DIR "/golden/compress/rtn.json"));
  }

  void add(const std::string& name, int64_t N, int64_t K, Encoding encoding) {
    auto& values = data.emplace_back(static_cast<size_t>(N * K));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = std::sin(static_cast<float>(i * (data.size() + 1)));
    }
    checkpoint.tensors.push_back({name,
                                  {.encoding = encoding,
                                   .N = N,
                                   .K = K,
                                   .data = reinterpret_cast<const std::byte*>(values.data())}});
  }

  float& element(std::string_view name, int64_t i) {
    return const_cast<float*>(reinterpret_cast<const float*>(checkpoint.weight(name).data))[i];
  }
};

// A folder's safetensors file, read without the program's own reader.
struct TensorFile {
  Json header;
  std::string bytes;

  explicit TensorFile(const fs::path& folder) {
    std::ifstream in(folder / "model.safetensors", std::ios::binary);
    const std::string all((std::istreambuf_iterator<char>(in)), {});
    const auto length = load_unaligned<uint64_t>(all.data());
    header = parse_json(std::string_view(all).substr(8, length), "header");
    bytes = all.substr(8 + length);
  }
  template <typename T>
  std::vector<T> values(const std::string& name) const {
    const uint64_t begin = header[name]["data_offsets"][0], end = header[name]["data_offsets"][1];
    std::vector<T> out((end - begin) / sizeof(T));
    std::memcpy(out.data(), bytes.data() + begin, end - begin);
    return out;
  }
};

CompressResult compress_toy(const ToyModel& toy, const Recipe& recipe, const fs::path& out) {
  ThreadPool pool(2, /*pin=*/false);
  return compress(toy.checkpoint, recipe, out, pool, {});
}

TEST(Recipe, NamesAndGroups) {
  EXPECT_EQ(recipe_from_name("bf16").encoding, kBF16);
  EXPECT_EQ(recipe_from_name("int8").encoding, int8_channel(ScaleType::bf16));
  EXPECT_EQ(recipe_from_name("int4").encoding, int4_group(64, ScaleType::bf16));
  EXPECT_EQ(recipe_from_name("int4", 32).group, 32);
  EXPECT_EQ(recipe_from_name("fp8").encoding, fp8_channel(ScaleType::bf16));
  EXPECT_EQ(recipe_from_name("nf4").encoding, kNF4);
  EXPECT_EQ(message_of(ErrorKind::usage, [] { recipe_from_name("int5"); }),
            "recipe 'int5': unknown, expected one of bf16, f32, int8, llm-int8, int4, int3, int2, fp8, "
            "fp8-tensor, fp8-block, fp8-deepseek, nf4, nf4-dq, fp4, fp4-dq, codebook, sparse-24, "
            "magnitude-24, random-24, gqa-mean, gqa-aligned, off-grid, off-grid-f32; for GGUF bf16, "
            "f16, q8_0, q6_k, q4_k, q4_1, q4_0, hqq");
  for (int64_t group : {1, 8, 48, -64}) {
    message_of(ErrorKind::usage, [=] { recipe_from_name("int4", group); });
  }
  EXPECT_EQ(message_of(ErrorKind::usage, [] { recipe_from_name("int8", 64); }),
            "recipe int8: has no groups, found --group 64");
  EXPECT_EQ(recipe_from_name("fp4-dq", 4096).encoding, (Encoding{Packing::fp4, ScaleType::f32, 4096}));
  EXPECT_TRUE(recipe_from_name("fp4-dq").is_nested);
  for (const int64_t group : {16, 96, 8192}) {
    message_of(ErrorKind::usage, [=] { recipe_from_name("nf4", group); });
  }
  EXPECT_EQ(recipe_from_name("fp8-channel").encoding, recipe_from_name("fp8").encoding);
  message_of(ErrorKind::usage, [] { recipe_from_name("fp8-row"); });
}

TEST(Recipe, ReadsACodebook) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "book";
  const auto refused = [&](const std::string& text) {
    write_file_atomic(path, text);
    return message_of(ErrorKind::usage, [&] { read_codebook(path); });
  };
  write_file_atomic(path, "[-1, -0.5,\n0 1e-2 1 2e-2 3e-2 4e-2 5e-2 6e-2 7e-2 8e-2 9e-2 .1 .2 .3]\n");
  const std::vector<float> book = read_codebook(path);
  ASSERT_EQ(book.size(), 16u);
  EXPECT_EQ(book[3], 0.01f);
  EXPECT_EQ(book[15], 0.3f);
  EXPECT_NE(refused("0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0").find("not all the same"), std::string::npos);
  EXPECT_NE(refused("0 1").find("2 numbers"), std::string::npos);
  EXPECT_NE(refused("0 1 x").find("found 'x'"), std::string::npos);
  EXPECT_NE(refused("0 1.5").find("found '1.5'"), std::string::npos);
  EXPECT_NE(refused("nan").find("found 'nan'"), std::string::npos);
}

TEST(Recipe, DescribesItselfToCompressedTensors) {
  EXPECT_EQ(quantization_config_json(recipe_from_name("bf16")), "");
  const Json int8 = parse_json(quantization_config_json(recipe_from_name("int8")), "int8");
  EXPECT_EQ(int8["format"], "int-quantized");
  EXPECT_EQ(int8["ignore"], Json::array({"lm_head"}));
  EXPECT_EQ(int8["config_groups"]["group_0"]["weights"]["strategy"], "channel");
  EXPECT_EQ(int8["config_groups"]["group_0"]["input_activations"]["strategy"], "token");
  EXPECT_EQ(int8["config_groups"]["group_0"]["input_activations"]["dynamic"], true);
  const Json int4 = parse_json(quantization_config_json(recipe_from_name("int4", 32)), "int4");
  EXPECT_EQ(int4["format"], "pack-quantized");
  EXPECT_EQ(int4["config_groups"]["group_0"]["weights"]["group_size"], 32);
  EXPECT_TRUE(int4["config_groups"]["group_0"]["input_activations"].is_null());
  const Json fp8 = parse_json(quantization_config_json(recipe_from_name("fp8")), "fp8");
  EXPECT_EQ(fp8["format"], "float-quantized");
  for (const char* part : {"weights", "input_activations"}) {
    EXPECT_EQ(fp8["config_groups"]["group_0"][part]["type"], "float");
    EXPECT_EQ(fp8["config_groups"]["group_0"][part]["num_bits"], 8);
  }
}

TEST(Recipe, DescribesItselfToBitsandbytes) {
  const Json nf4 = parse_json(quantization_config_json(recipe_from_name("nf4")), "nf4");
  EXPECT_EQ(nf4["quant_method"], "bitsandbytes");
  EXPECT_EQ(nf4["load_in_4bit"], true);
  EXPECT_EQ(nf4["bnb_4bit_quant_type"], "nf4");
  const Json llm_int8 =
      parse_json(quantization_config_json(recipe_from_name("llm-int8")), "llm-int8");
  EXPECT_EQ(llm_int8["load_in_8bit"], true);
  EXPECT_EQ(llm_int8["load_in_4bit"], false);
  EXPECT_EQ(llm_int8["llm_int8_threshold"], 6.0);
}

TEST(Compress, Bf16UndoesTheInterleavingAndRoundsToEven) {
  ToyModel toy;
  toy.element("model.norm.weight", 0) = 1.00390625f;  // half way: to even
  const TemporaryFolder dir;
  const CompressResult result = compress_toy(toy, recipe_from_name("bf16"), dir.path() / "out");
  const TensorFile file(dir.path() / "out");
  EXPECT_EQ(file.values<uint16_t>("model.norm.weight")[0], float_to_bf16(1.0f));
  EXPECT_EQ(file.header["model.norm.weight"]["shape"], Json::array({64}));
  EXPECT_EQ(file.header["model.embed_tokens.weight"]["shape"], Json::array({3, 64}));
  EXPECT_EQ(result.output_bytes, 2 * result.num_weights);
  EXPECT_EQ(result.source_bytes, 4 * result.num_weights);

  const std::string q = "model.layers.0.self_attn.q_proj.weight";
  const auto out = file.values<uint16_t>(q);
  for (int64_t n = 0; n < 64; ++n) {  // logical rows 0..15 of a head are its even file rows
    const int64_t r = n % 32, stored = n - r + (r < 16 ? 2 * r : 2 * (r - 16) + 1);
    EXPECT_EQ(out[n * 64 + 5], float_to_bf16(toy.element(q, stored * 64 + 5))) << "row " << n;
  }
}

TEST(Compress, QuantizedMatricesLieInTheFolderAsTheirFormatSays) {
  const ToyModel toy;
  const TemporaryFolder dir;
  const std::string down = "model.layers.0.mlp.down_proj.weight";

  const CompressResult int8 = compress_toy(toy, recipe_from_name("int8"), dir.path() / "int8");
  const TensorFile file8(dir.path() / "int8");
  EXPECT_EQ(file8.header[down]["dtype"], "I8");
  EXPECT_EQ(file8.header[down]["shape"], Json::array({64, 96}));
  EXPECT_EQ(file8.header[down + "_scale"]["dtype"], "BF16");
  EXPECT_EQ(file8.header[down + "_scale"]["shape"], Json::array({64, 1}));
  EXPECT_EQ(file8.header["model.embed_tokens.weight"]["dtype"], "BF16");
  EXPECT_EQ(int8.output_bytes, file8.bytes.size());

  compress_toy(toy, recipe_from_name("fp8"), dir.path() / "fp8");
  const TensorFile fp8(dir.path() / "fp8");
  EXPECT_EQ(fp8.header[down]["dtype"], "F8_E4M3");
  EXPECT_EQ(fp8.header[down]["shape"], Json::array({64, 96}));
  EXPECT_EQ(fp8.header[down + "_scale"]["shape"], Json::array({64, 1}));

  compress_toy(toy, recipe_from_name("int4", 32), dir.path() / "int4");
  const TensorFile file4(dir.path() / "int4");
  EXPECT_FALSE(file4.header.contains(down));
  EXPECT_EQ(file4.header[down + "_packed"]["dtype"], "I32");
  EXPECT_EQ(file4.header[down + "_packed"]["shape"], Json::array({64, 12}));
  EXPECT_EQ(file4.header[down + "_scale"]["shape"], Json::array({64, 3}));
  EXPECT_EQ(file4.values<int64_t>(down + "_shape"), (std::vector<int64_t>{64, 96}));
}

TEST(Compress, DecodedWeightsLieWithinHalfAStep) {
  const ToyModel toy;
  const TemporaryFolder dir;
  compress_toy(toy, recipe_from_name("int4", 32), dir.path() / "out");
  const TensorFile file(dir.path() / "out");
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const auto packed = file.values<int32_t>(name + "_packed");
  const auto scales = file.values<uint16_t>(name + "_scale");
  const Weight w{.encoding = int4_group(32, ScaleType::bf16),
                 .N = 96,
                 .K = 64,
                 .data = reinterpret_cast<const std::byte*>(packed.data()),
                 .scales = reinterpret_cast<const std::byte*>(scales.data())};
  std::vector<float> expected(64), actual(64);
  for (int64_t n = 0; n < w.N; ++n) {
    decode_row(toy.checkpoint.weight(name), n, expected.data());
    decode_row(w, n, actual.data());
    for (int64_t k = 0; k < w.K; ++k) {
      const float step = bf16_to_float(scales[n * 2 + k / 32]);
      EXPECT_NEAR(actual[k], expected[k], 0.54f * step) << "row " << n << " column " << k;
    }
  }
}

TEST(Compress, ReportsProgressUpToTheEnd) {
  const ToyModel toy;
  const TemporaryFolder dir;
  ThreadPool pool(2, /*pin=*/false);
  uint64_t last = 0, total = 0;
  compress(toy.checkpoint, recipe_from_name("int8"), dir.path() / "out", pool,
           [&](const CompressProgress& p) {
             EXPECT_GT(p.done_bytes, last);
             last = p.done_bytes;
             total = p.total_bytes;
           });
  EXPECT_EQ(last, total);
}

TEST(CompressRefuses, AGroupThatDoesNotDivideAWidth) {
  const ToyModel toy;
  const TemporaryFolder dir;
  EXPECT_EQ(message_of(ErrorKind::usage,
                       [&] { compress_toy(toy, recipe_from_name("int4", 64), dir.path() / "out"); }),
            "'model.layers.0.mlp.down_proj.weight': width 96 is not a multiple of group 64");
  EXPECT_FALSE(fs::exists(dir.path() / "out"));
}

TEST(CompressRefuses, WeightsThatAreNotFinite) {
  const TemporaryFolder dir;
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const char* name : {"model.layers.0.mlp.up_proj.weight", "model.norm.weight"}) {
      ToyModel toy;
      toy.element(name, 7) = bad;
      for (const char* recipe : {"bf16", "int8", "int4"}) {
        const std::string message = message_of(ErrorKind::bad_file, [&] {
          compress_toy(toy, recipe_from_name(recipe, *recipe == 'i' && recipe[3] == '4' ? 32 : 0),
                       dir.path() / "out");
        });
        EXPECT_NE(message.find(name), std::string::npos) << message;
        EXPECT_TRUE(fs::is_empty(dir.path())) << "something was left behind";
      }
    }
  }
}

TEST(CompressRefuses, ASourceThatIsAlreadyCompressed) {
  const ToyModel toy(int8_channel(ScaleType::bf16));
  const TemporaryFolder dir;
  EXPECT_EQ(message_of(ErrorKind::usage,
                       [&] { compress_toy(toy, recipe_from_name("int8"), dir.path() / "out"); }),
            "toy: 'model.layers.0.self_attn.q_proj.weight' is already int8 per channel, "
            "expected a model that is not compressed");
}

TEST(CompressRefuses, AnOutputThatIsTheSourceOrNotEmpty) {
  ToyModel toy;
  const TemporaryFolder dir;
  toy.checkpoint.path = dir.path();
  const Recipe recipe = recipe_from_name("bf16");
  std::string message = message_of(ErrorKind::usage, [&] { compress_toy(toy, recipe, dir.path()); });
  EXPECT_NE(message.find("is the source model"), std::string::npos) << message;

  fs::create_directory(dir.path() / "full");
  std::ofstream(dir.path() / "full" / "notes.txt") << "mine";
  message = message_of(ErrorKind::usage, [&] { compress_toy(toy, recipe, dir.path() / "full"); });
  EXPECT_NE(message.find("exists and is not empty"), std::string::npos) << message;
  message = message_of(ErrorKind::usage,
                       [&] { compress_toy(toy, recipe, dir.path() / "full" / "notes.txt"); });
  EXPECT_NE(message.find("exists and is not a folder"), std::string::npos) << message;

  toy.checkpoint.path = "toy";
  fs::create_directory(dir.path() / "empty");
  compress_toy(toy, recipe, dir.path() / "empty");
  EXPECT_TRUE(fs::exists(dir.path() / "empty" / "config.json"));
}

// Two of each four are kept in the layers' matrices, as they were; all else stays.
TEST(Compress, PrunesTwoOfFour) {
  ToyModel toy;
  for (const NamedTensor& tensor : toy.checkpoint.tensors) toy.element(tensor.name, 0) = 2;
  for (const char* recipe : {"magnitude-24", "random-24"}) {
    const TemporaryFolder dir;
    compress_toy(toy, recipe_from_name(recipe), dir.path() / "out");
    const TensorFile file(dir.path() / "out");
    for (const NamedTensor& tensor : toy.checkpoint.tensors) {
      const auto values = file.values<uint16_t>(tensor.name);
      const bool is_pruned = tensor.name.ends_with("_proj.weight");
      std::vector<float> row(static_cast<size_t>(tensor.weight.K));
      for (int64_t n = 0; n < tensor.weight.N; ++n) {
        decode_row(tensor.weight, n, row.data());
        int zeros = 0;
        for (int64_t k = 0; k < tensor.weight.K; ++k) {
          const uint16_t value = values[static_cast<size_t>(n * tensor.weight.K + k)];
          if (value != 0) {
            EXPECT_EQ(value, float_to_bf16(row[static_cast<size_t>(k)])) << tensor.name;
          }
          zeros += value == 0;
          if (k % 4 != 3 || !is_pruned) continue;
          ASSERT_EQ(zeros, 2) << recipe << " " << tensor.name << " row " << n;
          zeros = 0;
        }
      }
    }
    std::ifstream manifest(dir.path() / "out" / "tandem_manifest.json");
    EXPECT_EQ(Json::parse(manifest)["stored"], "2:4 as dense bf16 with zeros");
  }
}

TEST(Compress, RefusesAWidthThatFourDoesNotDivide) {
  check_prunable("w", 64);
  EXPECT_EQ(message_of(ErrorKind::usage, [] { check_prunable("w", 66); }),
            "'w': width 66, expected a multiple of 4 to prune 2 of each 4 weights");
}

}  // namespace
}  // namespace tandem
