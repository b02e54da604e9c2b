// Model files and folders made to harm: each is refused with a message of its own, in little time
// and memory. The names are those of docs/bad-input.md; gguf_test, safetensors_test and
// hf_folder_test hold the cases that spoil one field at a time.
#include <gtest/gtest.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include <limits>

#include "base/clock.h"
#include "base/json.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "formats/gguf_builder.h"
#include "formats/temporary_folder.h"
#include "formats/tiny_folder.h"
#include "formats/tokenizer_json.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

// Generous to sanitizers and busy machines; what it is to catch takes minutes or never ends.
constexpr double kMaxSeconds = 20;

void expect_refusal(const char* name, const std::string& error, const char* expected) {
  EXPECT_EQ(error.substr(0, 7), "exit 3:") << name << ": " << error;
  EXPECT_NE(error.find(expected), std::string::npos) << name << ": " << error;
  EXPECT_LT(error.size(), 1000u) << name;
}

// --- GGUF

// A bias of q or k in a file of Llama's row order is put in ours before the config is checked.
void with_bias(GgufBuilder& b, uint32_t head_dim, int64_t size) {
  const std::string data(static_cast<size_t>(size) * 4, '\0');
  b.tensors.push_back({"blk.0.attn_q.bias", {size}, 0, data, {}, {}});
  b.set("llama.attention.key_length", u32_value(head_dim));
}

struct GgufCase {
  const char* name;
  const char* expected;
  void (*spoil)(GgufBuilder&);
};

std::string key_bytes(uint64_t stated_bytes) { return raw(stated_bytes) + "general.x"; }

constexpr int64_t kNearHalf = 0x7FFFFFFFFFFFFFC0;

const GgufCase kGguf[] = {
    {"gguf/tensor-count SIZE_MAX over the size of an entry", "number of tensors",
     [](auto& b) { b.num_tensors = std::numeric_limits<size_t>::max() / sizeof(GgufTensor); }},
    {"gguf/keys a million distinct", "number of metadata keys",
     [](auto& b) {
       for (int i = 0; i < 1'000'000; ++i) b.keys.emplace_back(fmt::format("{}", i), bool_value(1));
     }},
    {"gguf/value-types unknown element", "unknown value type 13",
     [](auto& b) { b.set("x", array_head(13, 1)); }},
    {"gguf/value-types a count whose bytes overflow", "2305843009213693952 elements",
     [](auto& b) { b.set("x", array_head(12, 1ull << 61)); }},
    {"gguf/empty-strings 16 Mi that are not there", "an array's string",
     [](auto& b) { b.keys.emplace_back("x", array_head(8, 16 << 20) + std::string(4096, '\0')); }},
    {"gguf/alignment given twice", "'general.alignment' stands twice",
     [](auto& b) {
       b.keys.emplace_back("general.alignment", u32_value(32));
       b.keys.emplace_back("general.alignment", u32_value(64));
     }},
    {"gguf/dimensions whose padding wraps", "dimension 0 is",
     [](auto& b) {
       b.tensors[0].dims = {std::numeric_limits<int64_t>::max() / 4 * 4 + 1};
       b.tensors[0].type = 8;
     }},
    {"gguf/dimensions two whose sum wraps", "dimension 0 is",
     [](auto& b) { b.tensors[0].dims = b.tensors[1].dims = {kNearHalf / 4}; }},
    {"gguf/offsets descending", "offset 192, expected 0",
     [](auto& b) {
       b.tensors[0].offset = 192;
       b.tensors[1].offset = 0;
     }},
    {"gguf/config RoPE base infinite", "RoPE base",
     [](auto& b) { b.set("llama.rope.freq_base", f32_value(INFINITY)); }},
    {"gguf/config context a text", "llama.context_length",
     [](auto& b) { b.set("llama.context_length", text_value("64")); }},
    {"gguf/layers one too many tensors", "'model.layers.1.input_layernorm.weight'",
     [](auto& b) {
       b.tensors.push_back(b.tensor("blk.0.attn_norm.weight"));
       b.tensors.back().name = "blk.1.attn_norm.weight";
     }},
    {"gguf/config a bias and heads of 0", "head dimension", [](auto& b) { with_bias(b, 0, 8); }},
    {"gguf/config a bias and heads of 3", "head dimension", [](auto& b) { with_bias(b, 3, 9); }},
    {"gguf/config a bias and a width of 0", "hidden width",
     [](auto& b) {
       with_bias(b, 4, 8);
       b.erase("llama.attention.key_length");
       b.set("llama.embedding_length", u32_value(0));
     }},
    {"gguf/split part of many", "split",
     [](auto& b) {
       b.set("split.count", raw<uint32_t>(2) + raw<uint16_t>(65535));
       b.set("split.no", raw<uint32_t>(2) + raw<uint16_t>(1));
     }},
    {"tokenizer/ids BOS of 2^31", "tokenizer.ggml.bos_token_id",
     [](auto& b) { b.set("tokenizer.ggml.bos_token_id", u32_value(1u << 31)); }},
    {"tokenizer/ids EOS negative", "tokenizer.ggml.eos_token_id",
     [](auto& b) { b.set("tokenizer.ggml.eos_token_id", i32_value(-2)); }},
    {"tokenizer/merges missing", "tokenizer.ggml.merges",
     [](auto& b) { b.erase("tokenizer.ggml.merges"); }},
    {"tokenizer/merges numbers", "tokenizer.ggml.merges",
     [](auto& b) { b.set("tokenizer.ggml.merges", array_head(4, 1) + raw(1)); }},
};

TEST(HostileFiles, Gguf) {
  const TemporaryFolder folder;
  for (const GgufCase& c : kGguf) {
    GgufBuilder builder = GgufBuilder::tiny();
    c.spoil(builder);
    const auto file = folder.write("model.gguf", builder.bytes());
    const int64_t start_ns = now_ns();
    expect_refusal(c.name, error_of([&] { load_checkpoint(file); }), c.expected);
    EXPECT_LT(seconds_since(start_ns), kMaxSeconds) << c.name;
  }
}

TEST(HostileFiles, GgufKeyLengths) {
  const std::string head =
      std::string("GGUF") + raw<uint32_t>(3) + raw<uint64_t>(0) + raw<uint64_t>(1);
  for (const uint64_t length :
       {UINT64_MAX, uint64_t{1} << 30, uint64_t{65537}, uint64_t{1} << 63}) {
    const std::string bytes = head + key_bytes(length);
    const auto parse = [&] { parse_gguf(std::as_bytes(std::span(bytes)), "x"); };
    expect_refusal("gguf/key-lengths", error_of(parse), "metadata key");
  }
}

// --- what is no model at all

TEST(HostileFiles, OtherKindsOfFile) {
  const TemporaryFolder folder;
  const std::pair<const char*, const char*> files[] = {
      {"model.bin", "pickle"},      {"model.pt", "pickle"},       {"model.pth", "pickle"},
      {"model.ckpt", "pickle"},     {"model.pkl", "pickle"},      {"model.pickle", "pickle"},
      {"model.zip", "zip archive"}, {"model.gguf", "zip archive"}};
  for (const auto& [name, expected] : files) {
    const auto file = folder.write(name, "PK\x03\x04 a zip bomb, or what torch.save writes");
    expect_refusal(name, error_of([&] { load_checkpoint(file); }), expected);
  }
}

TEST(HostileFiles, CirclesOfLinks) {
  const TemporaryFolder folder;
  fs::create_symlink("b.gguf", folder.path() / "a.gguf");
  fs::create_symlink("a.gguf", folder.path() / "b.gguf");
  const auto load = [&] { load_checkpoint(folder.path() / "a.gguf"); };
  expect_refusal("links", error_of(load), "symbolic links");
}

TEST(HostileFiles, UnreadableFile) {
  const TemporaryFolder folder;
  const auto file = folder.write("secret.gguf", GgufBuilder::tiny().bytes());
  fs::permissions(file, fs::perms::none);
  ::setfsuid(65534);  // root reads every file; this has no effect on anyone else
  const std::string error = error_of([&] { load_checkpoint(file); });
  ::setfsuid(::geteuid());
  expect_refusal("unreadable", error, "Permission denied");
}

// --- folders

struct FolderCase {
  const char* name;
  const char* expected;
  const char* file;
  const char* key;    // of the file's object; empty: `value` is the whole file
  const char* value;  // JSON
};

constexpr const char* kSparse =
    R"({"quant_method":"compressed-tensors","format":"sparse-24-bitmask","config_groups":{"group_0":)"
    R"({"targets":["Linear"],"weights":{"num_bits":8,"type":"int","strategy":"channel",)"
    R"("symmetric":true,"dynamic":false},"input_activations":null}},)"
    R"("sparsity_config":{"format":"sparse-bitmask"}})";
constexpr const char* kFp8 =
    R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"group_0":)"
    R"({"targets":["Linear"],"weights":{"num_bits":8,"type":"float","strategy":"tensor",)"
    R"("symmetric":true,"dynamic":false},"input_activations":null}}})";
constexpr const char* kFp8Block =
    R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"group_0":)"
    R"({"targets":["Linear"],"weights":{"num_bits":8,"type":"float","strategy":"block",)"
    R"("block_structure":[128,128],"symmetric":true,"dynamic":false},"input_activations":)"
    R"({"num_bits":8,"type":"float","strategy":"token","symmetric":true,"dynamic":true}}}})";

const FolderCase kFolders[] = {
    {"folder/config an array", "not a JSON object", "config.json", "", "[]"},
    {"folder/config cut short", "not valid JSON", "config.json", "", R"({"model_type":"llama")"},
    {"folder/config empty", "not valid JSON", "config.json", "", ""},
    {"folder/config a number beyond a double", "not valid JSON", "config.json", "",
     R"({"a":1e999})"},
    {"folder/config layers 1e9", "num_hidden_layers", "config.json", "num_hidden_layers", "1e9"},
    {"folder/config layers 10^9", "num_hidden_layers", "config.json", "num_hidden_layers",
     "1000000000"},
    {"folder/config layers negative", "num_hidden_layers", "config.json", "num_hidden_layers",
     "-1"},
    {"folder/config width 2^63", "hidden_size", "config.json", "hidden_size",
     "9223372036854775808"},
    {"folder/config context 2^40", "max_position_embeddings", "config.json",
     "max_position_embeddings", "1099511627776"},
    {"folder/config epsilon a text", "rms_norm_eps", "config.json", "rms_norm_eps", "\"1e-5\""},
    {"folder/config RoPE an array", "rope_scaling", "config.json", "rope_scaling", "[1,2]"},
    {"folder/config heads 0", "num_attention_heads", "config.json", "num_attention_heads", "0"},
    {"folder/config head of 2^31-2", "head dimension", "config.json", "head_dim", "2147483646"},
    {"folder/config architecture twice", "architectures", "config.json", "architectures",
     R"(["LlamaForCausalLM","Evil"])"},
    {"folder/quantization unknown", "'quant_method' is '\"torchao\"'", "config.json",
     "quantization_config", R"({"quant_method":"torchao"})"},
    {"folder/quantization in 4 and 8 bits", "expected one of 'load_in_4bit'", "config.json",
     "quantization_config",
     R"({"quant_method":"bitsandbytes","load_in_8bit":true,"load_in_4bit":true})"},
    {"folder/another threshold of outliers", "'llm_int8_threshold'", "config.json",
     "quantization_config",
     R"({"quant_method":"bitsandbytes","load_in_8bit":true,"llm_int8_threshold":3.0})"},
    {"folder/quantization of no tensor", "says it is quantized", "config.json",
     "quantization_config", R"({"quant_method":"bitsandbytes","load_in_4bit":true})"},
    {"folder/quantization gptq", "'group_size' is '0'", "config.json",
     "quantization_config", R"({"quant_method":"gptq","bits":4,"group_size":0,"desc_act":true})"},
    {"folder/quantization awq", "'version' is '\"marlin\"'", "config.json", "quantization_config",
     R"({"quant_method":"awq","version":"marlin","bits":4,"group_size":128})"},
    {"folder/quantization fp8 of no tensor", "says it is quantized", "config.json",
     "quantization_config", R"({"quant_method":"fp8","weight_block_size":[128,128]})"},
    {"folder/quantization fp8 in other blocks", "expected [rows, 128]", "config.json",
     "quantization_config", R"({"quant_method":"fp8","weight_block_size":[128,64]})"},
    {"folder/quantization fp8 in blocks of no row", "expected [rows, 128]", "config.json",
     "quantization_config", R"({"quant_method":"fp8","weight_block_size":[0,128]})"},
    {"folder/quantization fp8 of unknown activations", "'activation_scheme'", "config.json",
     "quantization_config", R"({"quant_method":"fp8","activation_scheme":"some"})"},
    {"folder/quantization fp8 of 5 bits of exponent", "'fmt'", "config.json",
     "quantization_config", R"({"quant_method":"fp8","fmt":"e5m2"})"},
    {"folder/quantization fp8 skips a number", "'ignored_layers' holds '7'", "config.json",
     "quantization_config", R"({"quant_method":"fp8","ignored_layers":[7]})"},
    {"folder/quantization one fp8 scale, no tensor", "says it is quantized", "config.json",
     "quantization_config", kFp8},
    {"folder/quantization fp8 per token, in blocks", "'strategy' is '\"token\"'", "config.json",
     "quantization_config", kFp8Block},
    {"folder/quantization sparse as a bitmask of any pattern", "'format' is 'sparse-bitmask'",
     "config.json", "quantization_config", kSparse},
    {"folder/quantization a text", "not an object", "config.json", "quantization_config",
     "\"int8\""},
    {"tokenizer/ids negative", "has id '-1'", "tokenizer.json", "/model/vocab/a", "-1"},
    {"tokenizer/ids 10^9", "has id '1000000000'", "tokenizer.json", "/model/vocab/a", "1000000000"},
    {"tokenizer/ids not whole", "has id '0.5'", "tokenizer.json", "/model/vocab/a", "0.5"},
    {"tokenizer/ids two the same", "do not fill", "tokenizer.json", "/model/vocab/a", "1"},
    {"tokenizer/merges missing", "'merges'", "tokenizer.json", "/model/merges", "null"},
    {"tokenizer/merges of numbers", "expected two pieces", "tokenizer.json", "/model/merges",
     "[[1,2]]"},
    {"tokenizer/merges half empty", "expected two pieces", "tokenizer.json", "/model/merges",
     "[\"a \"]"},
    {"tokenizer/added id taken", "is out of range or taken", "tokenizer.json", "/added_tokens",
     R"([{"id":1,"content":"<|end|>","special":true}])"},
    {"tokenizer/added no text", "an added token is not text", "tokenizer.json", "/added_tokens",
     R"([{"id":4,"content":7}])"},
    {"tokenizer/added an object", "'added_tokens' is not an array", "tokenizer.json",
     "/added_tokens", "{}"},
    {"tokenizer/config EOS a number", "'eos_token' is not text", "tokenizer_config.json",
     "/eos_token", "7"},
    {"tokenizer/config not an object", "not a JSON object", "tokenizer_config.json", "", "[]"},
    {"tokenizer/file not UTF-8", "not valid JSON", "tokenizer.json", "", "{\"\xff\":1}"},
    {"tokenizer/file a token twice", "stands twice", "tokenizer.json", "",
     R"({"model":{"vocab":{"a":0,"a":1}}})"},
    {"folder/index a number for a file", "is not text", "model.safetensors.index.json", "",
     R"({"weight_map":{"model.norm.weight":7}})"},
    {"folder/index empty map", "'weight_map' is missing, empty", "model.safetensors.index.json", "",
     R"({"weight_map":{}})"},
};

// The folder's weights stand in model.safetensors, or for the index's cases in a shard.
void write_folder(const fs::path& dir, const FolderCase& c) {
  fs::create_directories(dir);
  write_tiny_texts(dir);
  const bool sharded = std::string_view(c.file).find("index") != std::string_view::npos;
  write_safetensors(dir / (sharded ? "shard.safetensors" : "model.safetensors"), tiny_tensors());
  std::string text = c.value;
  const std::string key = c.key;
  if (!key.empty()) {
    Json json = parse_json(read_text_file(dir / c.file, 1 << 20), c.file);
    json[Json::json_pointer(key[0] == '/' ? key : "/" + key)] = parse_json(c.value, "case");
    text = dump_json(json);
  }
  write_file_atomic(dir / c.file, text);
}

TEST(HostileFiles, Folders) {
  const TemporaryFolder folder;
  int number = 0;
  for (const FolderCase& c : kFolders) {
    const fs::path dir = folder.path() / std::to_string(number++);
    write_folder(dir, c);
    expect_refusal(c.name, error_of([&] { load_checkpoint(dir); }), c.expected);
  }
}

TEST(HostileFiles, TheTinyFolderItselfIsAccepted) {
  const TemporaryFolder folder;
  write_tiny_texts(folder.path());
  write_safetensors(folder.path() / "model.safetensors", tiny_tensors());
  EXPECT_EQ(error_of([&] { load_checkpoint(folder.path()); }), "");
}

TEST(HostileFiles, DeepAndHugeTexts) {
  const TemporaryFolder folder;
  for (const char* file :
       {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"}) {
    const fs::path dir = folder.path() / file;
    fs::create_directories(dir);
    write_tiny_texts(dir);
    if (std::string_view(file).find("index") == std::string_view::npos) {
      write_safetensors(dir / "model.safetensors", tiny_tensors());
    }
    const std::string deep =
        R"({"a":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}";
    write_file_atomic(dir / file, deep);
    expect_refusal(file, error_of([&] { load_checkpoint(dir); }), "nested deeper");
    fs::resize_file(dir / file, uint64_t{1} << 30);  // a hole of 1 GiB
    expect_refusal(file, error_of([&] { load_checkpoint(dir); }), "bytes, at most");
  }
}

// Tensors of other quantizations, in a folder whose config names none.
TEST(HostileFiles, TensorsOfOtherFormats) {
  const std::pair<const char*, const char*> tensors[] = {
      {"model.layers.0.self_attn.q_proj.qweight", "I32"},
      {"model.layers.0.self_attn.q_proj.qzeros", "I32"},
      {"model.layers.0.self_attn.q_proj.g_idx", "I32"},
      {"model.layers.0.mlp.down_proj.weight", "F8_E4M3"},
      {"model.layers.0.self_attn.k_scale", "F32"},
      {"model.layers.0.mlp.down_proj.meta", "I16"}};
  for (const auto& [name, dtype] : tensors) {
    const TemporaryFolder folder;
    write_tiny_texts(folder.path());
    std::vector<TensorSource> all = tiny_tensors();
    std::erase_if(all, [&](const TensorSource& tensor) { return tensor.name == name; });
    const auto bytes = static_cast<size_t>(safetensors_dtype_bytes(dtype));
    const std::string zeros(bytes, '\0');
    all.push_back({name, dtype, {1}, bytes, [zeros](const ByteSink& sink) {
                     sink(std::as_bytes(std::span(zeros)));
                   }});
    write_safetensors(folder.path() / "model.safetensors", all);
    expect_refusal(name, error_of([&] { load_checkpoint(folder.path()); }), name);
  }
}

TEST(HostileFiles, ShapesOfOtherRanks) {
  for (const size_t rank : {size_t{0}, size_t{3}, size_t{65}}) {
    const TemporaryFolder folder;
    write_tiny_texts(folder.path());
    std::vector<TensorSource> all = tiny_tensors();
    all[1].shape.assign(rank, 1);
    all[1].size_bytes = 2;
    all[1].write = [](const ByteSink& sink) { sink(std::as_bytes(std::span("\0", 2))); };
    write_safetensors(folder.path() / "model.safetensors", all);
    expect_refusal("shapes", error_of([&] { load_checkpoint(folder.path()); }), "dimensions");
  }
}

TEST(HostileFiles, SafetensorsCutShortOrWithATail) {
  const TemporaryFolder folder;
  write_tiny_texts(folder.path());
  const fs::path file = folder.path() / "model.safetensors";
  write_safetensors(file, tiny_tensors());
  const std::string whole = read_text_file(file, 1 << 20);
  for (const size_t missing : {size_t{1}, size_t{2}, whole.size() - 9}) {
    write_file_atomic(file, std::string_view(whole).substr(0, whole.size() - missing));
    expect_refusal("cut", error_of([&] { load_checkpoint(folder.path()); }), "model.safetensors");
  }
  write_file_atomic(file, whole + "PK\x05\x06");  // also a zip archive
  expect_refusal("tail", error_of([&] { load_checkpoint(folder.path()); }),
                 "bytes of data, expected");
}

// Ten million merges are 150 MB of JSON: the file's size bounds them before anything is parsed.
TEST(HostileFiles, TokenizerLargerThanAny) {
  const TemporaryFolder folder;
  write_tiny_texts(folder.path());
  fs::resize_file(folder.path() / "tokenizer.json", (256 << 20) + 1);
  expect_refusal("tokenizer/merges too many", error_of([&] { read_tokenizer_json(folder.path()); }),
                 "bytes, at most");
}

}  // namespace
}  // namespace tandem
