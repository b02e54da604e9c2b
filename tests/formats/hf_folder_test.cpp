// write_hf_folder -> load_checkpoint, plain and quantized, and folders that must be refused.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/json.h"
#include "formats/checkpoint.h"
#include "formats/gguf_builder.h"
#include "formats/temporary_folder.h"
#include "formats/tokenizer_json.h"
#include "formats/validate.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

ModelConfig tiny_config() {
  ModelConfig config;
  config.name = "tiny";
  config.num_layers = 1;
  config.width = 64;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 32;
  config.ffn_width = 32;
  config.vocab_size = 4;
  config.max_context = 128;
  config.rope_theta = 1e5;
  config.rms_eps = 1e-5;
  config.tied_embedding = true;
  return config;
}

TokenizerSpec tiny_tokenizer() {
  TokenizerSpec spec;
  spec.pre_tokenizer = "smollm";
  spec.tokens = {"<|end|>", "a", "\"\xC4\xA0", "ab"};
  spec.types = {TokenType::control, TokenType::normal, TokenType::normal, TokenType::user_defined};
  spec.merges = {{"a", "b"}};
  spec.eos_id = 0;
  spec.bos_id = 0;
  spec.chat_template = "{{ messages[0].content }}\n";
  return spec;
}

TensorSource source(const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
                    const std::string& bytes) {
  return {name, dtype, std::move(shape), bytes.size(),
          [bytes](const ByteSink& sink) { sink(std::as_bytes(std::span(bytes))); }};
}

std::string repeated(const std::string& bytes, int64_t count) {
  std::string out;
  for (int64_t i = 0; i < count; ++i) out += bytes;
  return out;
}

const std::string kOne = raw<uint16_t>(0x3F80);   // bf16 1.0
const std::string kHalf = raw<uint16_t>(0x3F00);  // bf16 0.5

enum class Kind { bf16, int8, llm_int8, int4, fp8, fp8_weight, nf4, nf4_nested };

bool is_nf4(Kind kind) { return kind == Kind::nf4 || kind == Kind::nf4_nested; }

// One matrix as bitsandbytes stores it, in blocks of 32: 1, -1, 1, -1 ... times 2 or, nested, 0.75.
void add_nf4(const std::string& name, int64_t N, int64_t K, bool nested,
             std::vector<TensorSource>* out) {
  const int64_t blocks = N * K / 32;
  std::string values;
  for (const float value : kNf4Values) values += raw(value);
  out->push_back(source(name, "U8", {N * K / 2, 1}, repeated(raw<uint8_t>(0xF0), N * K / 2)));
  out->push_back(source(name + ".quant_map", "F32", {16}, values));
  std::string state = fmt::format(
      R"({{"quant_type": "nf4", "blocksize": 32, "dtype": "bfloat16", "shape": [{}, {}])", N, K);
  if (nested) {
    state += R"(, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.25)";
    out->push_back(source(name + ".absmax", "U8", {blocks}, repeated(raw<uint8_t>(255), blocks)));
    const int64_t count = (blocks + 255) / 256;
    out->push_back(
        source(name + ".nested_absmax", "F32", {count}, repeated(raw(0.5f), count)));
    out->push_back(source(name + ".nested_quant_map", "F32", {256},
                          repeated(raw(0.0f), 255) + raw(1.0f)));
  } else {
    out->push_back(source(name + ".absmax", "F32", {blocks}, repeated(raw(2.0f), blocks)));
  }
  state += "}";
  const auto length = static_cast<int64_t>(state.size());
  out->push_back(source(name + ".quant_state.bitsandbytes__nf4", "U8", {length}, state));
}

std::vector<TensorSource> tensors_of(Kind kind) {
  std::vector<TensorSource> out;
  for (const auto& [name, N, K] : expected_tensors(tiny_config())) {
    const std::string module = name.substr(0, name.size() - 7);
    if (N == 1) {
      out.push_back(source(name, "BF16", {K}, repeated(kOne, K)));
    } else if (kind == Kind::bf16 || name.find("embed") != std::string::npos) {
      out.push_back(source(name, "BF16", {N, K}, repeated(kOne, N * K)));
    } else if (is_nf4(kind)) {
      add_nf4(name, N, K, kind == Kind::nf4_nested, &out);
    } else if (kind == Kind::fp8 || kind == Kind::fp8_weight) {
      out.push_back(source(name, "F8_E4M3", {N, K}, repeated(raw<uint8_t>(0xB8), N * K)));  // -1
      out.push_back(source(module + ".weight_scale", "BF16", {N, 1}, repeated(kHalf, N)));
    } else if (kind == Kind::llm_int8) {
      out.push_back(source(name, "I8", {N, K}, repeated(raw<int8_t>(-3), N * K)));
      out.push_back(source(module + ".SCB", "F32", {N}, repeated(raw(63.5f), N)));
      out.push_back(source(module + ".weight_format", "U8", {}, raw<uint8_t>(0)));
    } else if (kind == Kind::int8) {
      out.push_back(source(name, "I8", {N, K}, repeated(raw<int8_t>(-3), N * K)));
      out.push_back(source(module + ".weight_scale", "BF16", {N, 1}, repeated(kHalf, N)));
    } else {
      // Codes 0..7 hold -8..-1.
      out.push_back(source(module + ".weight_packed", "I32", {N, K / 8},
                           repeated(raw<uint32_t>(0x76543210), N * K / 8)));
      out.push_back(
          source(module + ".weight_scale", "BF16", {N, K / 32}, repeated(kHalf, N * K / 32)));
      out.push_back(source(module + ".weight_shape", "I64", {2}, raw(N) + raw(K)));
    }
  }
  return out;
}

Json quantization_of(Kind kind) {
  Json weights = {{"num_bits", 8},
                  {"type", "int"},
                  {"strategy", "channel"},
                  {"symmetric", true},
                  {"dynamic", false}};
  Json activations = {{"num_bits", 8},
                      {"type", "int"},
                      {"strategy", "token"},
                      {"symmetric", true},
                      {"dynamic", true}};
  if (is_nf4(kind)) {
    return {{"quant_method", "bitsandbytes"},
            {"load_in_4bit", true},
            {"bnb_4bit_quant_type", "nf4"},
            {"llm_int8_skip_modules", nullptr}};
  }
  if (kind == Kind::llm_int8) {
    return {{"quant_method", "bitsandbytes"}, {"load_in_8bit", true}, {"llm_int8_threshold", 6.0}};
  }
  const bool is_fp8 = kind == Kind::fp8 || kind == Kind::fp8_weight;
  if (is_fp8) weights["type"] = activations["type"] = "float";
  if (kind == Kind::fp8_weight) activations = nullptr;
  if (kind == Kind::int4) {
    weights["num_bits"] = 4;
    weights["strategy"] = "group";
    weights["group_size"] = 32;
    activations = nullptr;
  }
  return {{"quant_method", "compressed-tensors"},
          {"format", is_fp8               ? "float-quantized"
                     : kind == Kind::int4 ? "pack-quantized"
                                          : "int-quantized"},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}}, {"weights", weights}, {"input_activations", activations}}}}},
          {"ignore", {"lm_head"}}};
}

fs::path write(const fs::path& dir, Kind kind) {
  write_hf_folder(dir, tiny_config(), tiny_tokenizer(), tensors_of(kind),
                  kind == Kind::bf16 ? "" : dump_json(quantization_of(kind)),
                  R"({"recipe":"test"})");
  return dir;
}

float first_of(const Checkpoint& model, const std::string& name, int64_t k = 0) {
  const Weight& weight = model.weight(name);
  std::vector<float> row(static_cast<size_t>(weight.K));
  decode_row(weight, weight.N - 1, row.data());
  return row[static_cast<size_t>(k)];
}

// A tokenizer that cannot be made anew is carried over; a link out of the folder is not followed.
TEST(HfFolder, CopiesTheTokenizerOfItsSource) {
  const TemporaryFolder folder;
  const fs::path source = write(folder.path() / "source", Kind::bf16);
  write_file_atomic(source / "chat_template.jinja", "{{ messages[0].content }}");
  TokenizerSpec other = tiny_tokenizer();
  other.kind = TokenizerKind::unigram;
  const auto copy_to = [&](const char* name) {
    write_hf_folder(folder.path() / name, tiny_config(), other, tensors_of(Kind::bf16), "", "", source);
  };
  copy_to("copy");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}) {
    EXPECT_EQ(read_text_file(folder.path() / "copy" / name, 1 << 20),
              read_text_file(source / name, 1 << 20))
        << name;
  }
  EXPECT_EQ(load_checkpoint(folder.path() / "copy").tokenizer.chat_template,
            "{{ messages[0].content }}");
  write_file_atomic(folder.path() / "secret", "secret");
  fs::create_symlink(folder.path() / "secret", source / "added_tokens.json");
  EXPECT_NE(error_of([&] { copy_to("leak"); }).find("is a link to"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder.path() / "leak"));
}

TEST(HfFolder, ReadsBackWhatItWrites) {
  const TemporaryFolder folder;
  const Checkpoint model = load_checkpoint(write(folder.path() / "bf16", Kind::bf16));
  const ModelConfig want = tiny_config();
  EXPECT_EQ(model.config.name, "tiny");
  EXPECT_EQ(model.config.head_dim, want.head_dim);
  EXPECT_EQ(model.config.rope_theta, want.rope_theta);
  EXPECT_EQ(model.config.rms_eps, want.rms_eps);
  EXPECT_TRUE(model.config.tied_embedding);
  const TokenizerSpec spec = tiny_tokenizer();
  EXPECT_EQ(model.tokenizer.tokens, spec.tokens);
  EXPECT_EQ(model.tokenizer.types, spec.types);
  EXPECT_EQ(model.tokenizer.merges, spec.merges);
  EXPECT_EQ(model.tokenizer.eos_id, 0);
  EXPECT_EQ(model.tokenizer.pad_id, -1);
  EXPECT_EQ(model.tokenizer.chat_template, spec.chat_template);
  ASSERT_EQ(model.metadata.size(), 1u);
  EXPECT_EQ(model.metadata[0].second, "test");
  EXPECT_EQ(first_of(model, "model.norm.weight"), 1.0f);
  EXPECT_EQ(checkpoint_hash(model).size(), 32u);
}

TEST(HfFolder, ReadsQuantizedWeights) {
  const TemporaryFolder folder;
  const Checkpoint int8 = load_checkpoint(write(folder.path() / "int8", Kind::int8));
  EXPECT_EQ(int8.weight("model.layers.0.mlp.down_proj.weight").encoding,
            int8_channel(ScaleType::bf16));
  EXPECT_EQ(first_of(int8, "model.layers.0.mlp.down_proj.weight"), -1.5f);
  EXPECT_EQ(int8.tensors.size(), expected_tensors(tiny_config()).size());
  const Checkpoint int4 = load_checkpoint(write(folder.path() / "int4", Kind::int4));
  EXPECT_EQ(int4.weight("model.layers.0.mlp.down_proj.weight").encoding,
            int4_group(32, ScaleType::bf16));
  EXPECT_EQ(first_of(int4, "model.layers.0.mlp.down_proj.weight", 0), -4.0f);
  EXPECT_EQ(first_of(int4, "model.layers.0.mlp.down_proj.weight", 31), -0.5f);
}

TEST(HfFolder, ReadsFp8WithAndWithoutQuantizedActivations) {
  const TemporaryFolder folder;
  const Checkpoint fp8 = load_checkpoint(write(folder.path() / "fp8", Kind::fp8));
  const char* down = "model.layers.0.mlp.down_proj.weight";
  EXPECT_EQ(fp8.weight(down).encoding, fp8_channel(ScaleType::bf16));
  EXPECT_EQ(first_of(fp8, down), -0.5f);
  const Checkpoint weight_only = load_checkpoint(write(folder.path() / "w", Kind::fp8_weight));
  EXPECT_EQ(weight_only.weight(down).encoding, fp8_weight(ScaleType::bf16));
}

TEST(HfFolder, ReadsNf4WithAndWithoutDoubleQuantization) {
  const TemporaryFolder folder;
  const char* down = "model.layers.0.mlp.down_proj.weight";
  for (const Kind kind : {Kind::nf4, Kind::nf4_nested}) {
    const Checkpoint model = load_checkpoint(
        write(folder.path() / (kind == Kind::nf4 ? "nf4" : "nested"), kind));
    EXPECT_EQ(model.weight(down).encoding, (Encoding{Packing::nf4, ScaleType::f32, 32}));
    EXPECT_EQ(model.tensors.size(), expected_tensors(tiny_config()).size());
    const float absmax = kind == Kind::nf4 ? 2.0f : 0.75f;
    EXPECT_EQ(first_of(model, down, 0), absmax);
    EXPECT_EQ(first_of(model, down, 31), -absmax);
  }
}

TEST(HfFolder, ReadsLlmInt8) {
  const TemporaryFolder folder;
  const Checkpoint model = load_checkpoint(write(folder.path() / "m", Kind::llm_int8));
  const char* down = "model.layers.0.mlp.down_proj.weight";
  EXPECT_EQ(model.weight(down).encoding, kLlmInt8);
  EXPECT_EQ(model.tensors.size(), expected_tensors(tiny_config()).size());
  EXPECT_EQ(first_of(model, down), -1.5f);
}

TEST(HfFolder, RefusesLlmInt8ThatDoesNotFit) {
  const auto spoiled = [](const std::string& suffix, const auto& spoil) {
    const TemporaryFolder folder;
    std::vector<TensorSource> tensors = tensors_of(Kind::llm_int8);
    const auto it = std::ranges::find(tensors, "model.layers.0.mlp.up_proj" + suffix, &TensorSource::name);
    spoil(tensors, it);
    write_hf_folder(folder.path() / "m", tiny_config(), tiny_tokenizer(), tensors,
                    dump_json(quantization_of(Kind::llm_int8)), "");
    return error_of([&] { load_checkpoint(folder.path() / "m"); });
  };
  const auto erase = [](auto& tensors, auto it) { tensors.erase(it); };
  EXPECT_NE(spoiled(".SCB", erase).find("companion"), std::string::npos);
  const auto columns = [](auto&, auto it) { *it = source(it->name, "U8", {}, raw<uint8_t>(1)); };
  EXPECT_NE(spoiled(".weight_format", columns).find("expected 0"), std::string::npos);
  const auto one = [](auto&, auto it) { *it = source(it->name, "F32", {1}, raw(1.0f)); };
  EXPECT_NE(spoiled(".SCB", one).find("SCB"), std::string::npos);
}

TEST(HfFolder, RefusesNf4ThatDoesNotFit) {
  const auto spoiled = [](const std::string& suffix, const auto& spoil) {
    const TemporaryFolder folder;
    std::vector<TensorSource> tensors = tensors_of(Kind::nf4);
    const std::string name = "model.layers.0.mlp.up_proj.weight" + suffix;
    const auto it = std::ranges::find(tensors, name, &TensorSource::name);
    spoil(tensors, it);
    write_hf_folder(folder.path() / "m", tiny_config(), tiny_tokenizer(), tensors,
                    dump_json(quantization_of(Kind::nf4)), "");
    return error_of([&] { load_checkpoint(folder.path() / "m"); });
  };
  const auto erase = [](auto& tensors, auto it) { tensors.erase(it); };
  EXPECT_NE(spoiled(".absmax", erase).find("companion"), std::string::npos);
  EXPECT_NE(spoiled(".quant_state.bitsandbytes__nf4", erase).find("companion"), std::string::npos);
  const auto ones = [](auto&, auto it) {
    *it = source(it->name, "F32", {16}, repeated(raw(1.0f), 16));
  };
  EXPECT_NE(spoiled(".quant_map", ones).find("not the numbers of nf4"), std::string::npos);
  for (const char* state :
       {R"({"blocksize": 32, "shape": [1000000000, 64]})", R"({"blocksize": 32, "shape": [-32, -64]})",
        R"({"blocksize": 0, "shape": [32, 64]})", R"({"blocksize": 48, "shape": [32, 64]})",
        R"({"shape": [32, 64]})", "{"}) {
    const auto replace = [&](auto&, auto it) {
      const std::string text = state;
      *it = source(it->name, "U8", {static_cast<int64_t>(text.size())}, text);
    };
    EXPECT_NE(spoiled(".quant_state.bitsandbytes__nf4", replace).find("up_proj"), std::string::npos)
        << state;
  }
}

TEST(HfFolder, LeavesNothingBehindWhenItCannotWrite) {
  const TemporaryFolder folder;
  const auto dir = write(folder.path() / "model", Kind::bf16);
  EXPECT_NE(error_of([&] { write(dir, Kind::bf16); }).find("exit 2"), std::string::npos);
  TokenizerSpec spec = tiny_tokenizer();
  spec.pre_tokenizer = "falcon";
  const auto other = folder.path() / "other";
  const auto write_other = [&] { write_hf_folder(other, tiny_config(), spec, {}, "", ""); };
  EXPECT_NE(error_of(write_other).find("falcon"), std::string::npos);
  const auto fail_inside = [&] {
    TensorSource bad{"x", "U8", {1}, 1, [](const ByteSink&) { fail(ErrorKind::system, "disk"); }};
    write_hf_folder(other, tiny_config(), tiny_tokenizer(), {bad}, "", "");
  };
  EXPECT_NE(error_of(fail_inside).find("disk"), std::string::npos);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1);
}

Json& as_qwen3(Json& json) {
  json["model_type"] = "qwen3";
  json["architectures"] = {"Qwen3ForCausalLM"};
  json["use_sliding_window"] = true;
  return json;
}

struct Case {
  const char* name;
  const char* expected;
  Kind kind;
  const char* file;
  std::function<void(Json&)> spoil;
};

const Case kCases[] = {
    {"layers huge", "num_hidden_layers", Kind::bf16, "config.json",
     [](Json& j) { j["num_hidden_layers"] = 1e9; }},
    {"layers text", "num_hidden_layers", Kind::bf16, "config.json",
     [](Json& j) { j["num_hidden_layers"] = "-1"; }},
    {"layers null", "'num_hidden_layers' is missing", Kind::bf16, "config.json",
     [](Json& j) { j["num_hidden_layers"] = nullptr; }},
    {"width text", "hidden_size", Kind::bf16, "config.json",
     [](Json& j) { j["hidden_size"] = "64"; }},
    {"dtype", "torch_dtype", Kind::bf16, "config.json", [](Json& j) { j["torch_dtype"] = "int3"; }},
    {"model type", "'gemma3' is not supported", Kind::bf16, "config.json",
     [](Json& j) { j["model_type"] = "gemma3"; }},
    {"rope", "RoPE scaling 'yarn' is not supported", Kind::bf16, "config.json",
     [](Json& j) { j["rope_parameters"]["rope_type"] = "yarn"; }},
    {"longrope", "RoPE scaling 'longrope' is not supported", Kind::bf16, "config.json",
     [](Json& j) { j["rope_parameters"]["rope_type"] = "longrope"; }},
    {"rope factor", "the RoPE scaling factor is 0", Kind::bf16, "config.json",
     [](Json& j) {
       j["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 0}};
     }},
    {"rope ramp", "high_freq_factor is 1", Kind::bf16, "config.json",
     [](Json& j) {
       j["rope_parameters"] = {{"rope_type", "llama3"},      {"factor", 8},
                               {"low_freq_factor", 1},       {"high_freq_factor", 1},
                               {"original_max_position_embeddings", 64}};
     }},
    {"layer types", "'layer_types'", Kind::bf16, "config.json",
     [](Json& j) { j["layer_types"] = {"sliding_attention"}; }},
    {"bias", "'model.layers.0.self_attn.q_proj.bias' is missing", Kind::bf16, "config.json",
     [](Json& j) { j["attention_bias"] = true; }},
    {"bias that the family does not have", "'attention_bias' is 'true'", Kind::bf16, "config.json",
     [](Json& j) {
       j["model_type"] = "mistral";
       j["architectures"] = {"MistralForCausalLM"};
       j["attention_bias"] = true;
     }},
    {"window of some llama layers", "'use_sliding_window' is 'true'", Kind::bf16, "config.json",
     [](Json& j) { j["use_sliding_window"] = true; }},
    {"kinds of layers", "expected 1 layers", Kind::bf16, "config.json",
     [](Json& j) {
       as_qwen3(j)["layer_types"] = {"full_attention", "sliding_attention"};
     }},
    {"kind of a layer", "only \"full_attention\" and", Kind::bf16, "config.json",
     [](Json& j) { as_qwen3(j)["layer_types"] = {"chunked_attention"}; }},
    {"kinds of layers are no list", "'layer_types' is '1'", Kind::bf16, "config.json",
     [](Json& j) { as_qwen3(j)["layer_types"] = 1; }},
    {"vocabulary", "expected [5, 64]", Kind::bf16, "config.json",
     [](Json& j) { j["vocab_size"] = 5; }},
    {"quantized, unsaid", "does not say so", Kind::int8, "config.json",
     [](Json& j) { j.erase("quantization_config"); }},
    {"plain, said quantized", "says it is quantized", Kind::bf16, "config.json",
     [](Json& j) { j["quantization_config"] = quantization_of(Kind::int8); }},
    {"another format", "does not say so", Kind::int8, "config.json",
     [](Json& j) { j["quantization_config"] = quantization_of(Kind::int4); }},
    {"group 64", "weight_scale", Kind::int4, "config.json",
     [](Json& j) {
       j["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] = 64;
     }},
    {"group 0", "multiple of 32", Kind::int4, "config.json",
     [](Json& j) {
       j["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] = 0;
     }},
    {"asymmetric", "weight_zero_point' is missing", Kind::int4, "config.json",
     [](Json& j) {
       j["quantization_config"]["config_groups"]["group_0"]["weights"]["symmetric"] = false;
     }},
    {"gptq", "'bits' is missing", Kind::int4, "config.json",
     [](Json& j) { j["quantization_config"]["quant_method"] = "gptq"; }},
    {"ignored, yet quantized", "does not say so", Kind::int4, "config.json",
     [](Json& j) { j["quantization_config"]["ignore"] = {"model.layers.0.mlp.down_proj"}; }},
    {"pre-tokenizer", "pre_tokenizer", Kind::bf16, "tokenizer.json",
     [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0] = {{"type", "UnicodeScripts"}}; }},
    {"normalizer", "normalizer", Kind::bf16, "tokenizer.json",
     [](Json& j) {
       j["normalizer"] = {{"type", "Lowercase"}};
     }},
    {"decoder", "decoder", Kind::bf16, "tokenizer.json",
     [](Json& j) {
       j["decoder"] = {{"type", "Fuse"}};
     }},
    {"byte fallback", "byte_fallback", Kind::bf16, "tokenizer.json",
     [](Json& j) { j["model"]["byte_fallback"] = true; }},
    {"split that removes", "pre_tokenizer", Kind::bf16, "tokenizer.json",
     [](Json& j) {
       j["pre_tokenizer"]["pretokenizers"][0] = {{"type", "Split"},
                                                 {"pattern", {{"Regex", "a+"}}},
                                                 {"behavior", "Removed"},
                                                 {"invert", false}};
     }},
    {"two in front", "post_processor", Kind::bf16, "tokenizer.json",
     [](Json& j) {
       const Json token = {{"SpecialToken", {{"id", "a"}, {"type_id", 0}}}};
       j["post_processor"] = {{"type", "TemplateProcessing"},
                              {"single", Json::array({token, token})}};
     }},
    {"token in front unknown", "not a token", Kind::bf16, "tokenizer.json",
     [](Json& j) {
       const Json token = {{"SpecialToken", {{"id", "nope"}, {"type_id", 0}}}};
       const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
       j["post_processor"] = {{"type", "TemplateProcessing"},
                              {"single", Json::array({token, text})}};
     }},
    {"id hole", "do not fill", Kind::bf16, "tokenizer.json",
     [](Json& j) { j["model"]["vocab"]["a"] = 9; }},
    {"id twice", "do not fill", Kind::bf16, "tokenizer.json",
     [](Json& j) { j["model"]["vocab"]["a"] = 2; }},
    {"id 2^31", "expected an integer", Kind::bf16, "tokenizer.json",
     [](Json& j) { j["model"]["vocab"]["a"] = 2147483648u; }},
    {"merge of three", "expected two pieces", Kind::bf16, "tokenizer.json",
     [](Json& j) { j["model"]["merges"][0] = "a b c"; }},
    {"eos unknown", "not in the vocabulary", Kind::bf16, "tokenizer_config.json",
     [](Json& j) { j["eos_token"] = "nope"; }},
};

TEST(HfFolder, RefusesWhatContradicts) {
  const TemporaryFolder folder;
  for (const Case& c : kCases) {
    const auto dir = write(folder.path() / c.name, c.kind);
    Json json = parse_json(read_text_file(dir / c.file, 1 << 20), c.file);
    c.spoil(json);
    write_file_atomic(dir / c.file, dump_json(json));
    const std::string error = error_of([&] { load_checkpoint(dir); });
    EXPECT_EQ(error.substr(0, 7), "exit 3:") << c.name;
    EXPECT_NE(error.find(c.expected), std::string::npos) << c.name << ": " << error;
  }
}

TEST(HfFolder, ReadsMergesAsPairs) {
  const TemporaryFolder folder;
  const auto dir = write(folder.path() / "model", Kind::bf16);
  Json json = parse_json(read_text_file(dir / "tokenizer.json", 1 << 20), "x");
  json["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  write_file_atomic(dir / "tokenizer.json", dump_json(json));
  EXPECT_EQ(load_checkpoint(dir).tokenizer.merges, tiny_tokenizer().merges);
}

TEST(HfFolder, RefusesInt8RowsWhoseSumsOverflow) {
  const TemporaryFolder folder;
  const auto dir = folder.path() / "model";
  const int64_t K = 65536 + 32;
  const std::string down = "model.layers.0.mlp.down_proj.";
  std::vector<TensorSource> tensors = tensors_of(Kind::int8);
  for (TensorSource& tensor : tensors) {
    if (tensor.name == down + "weight") {
      tensor = source(tensor.name, "I8", {64, K}, std::string(static_cast<size_t>(64 * K), '\1'));
    }
  }
  write_hf_folder(dir, tiny_config(), tiny_tokenizer(), tensors,
                  dump_json(quantization_of(Kind::int8)), "");
  const std::string error = error_of([&] { load_checkpoint(dir); });
  EXPECT_NE(error.find("rows of 65568 elements"), std::string::npos) << error;
}

// Each value of an index's weight_map that could name a file elsewhere; the file is never opened.
TEST(HfFolder, ShardsStayInTheFolder) {
  const TemporaryFolder folder;
  const auto dir = write(folder.path() / "model", Kind::bf16);
  const fs::path outside = folder.path() / "outside.safetensors";
  fs::rename(dir / "model.safetensors", outside);
  fs::create_symlink(outside, dir / "link.safetensors");
  const auto error_with = [&](const std::string& shard) {
    Json map = Json::object();
    for (const auto& tensor : expected_tensors(tiny_config())) map[tensor.name] = shard;
    write_file_atomic(dir / "model.safetensors.index.json", dump_json({{"weight_map", map}}));
    return error_of([&] { load_checkpoint(dir); });
  };
  for (const std::string& shard :
       {outside.string(), std::string("../outside.safetensors"), std::string("/etc/passwd"),
        std::string("a/../../outside.safetensors"), std::string(), std::string("..safetensors"),
        std::string(4096, 'x') + ".safetensors", std::string("a\\b.safetensors")}) {
    EXPECT_NE(error_with(shard).find("expected the plain name"), std::string::npos) << shard;
  }
  EXPECT_NE(error_with("link.safetensors").find("expected a file inside"), std::string::npos);
  EXPECT_NE(error_with("none.safetensors").find("cannot be read"), std::string::npos);
  fs::copy_file(outside, dir / "shard.safetensors");
  EXPECT_EQ(error_with("shard.safetensors"), "");
}

TEST(HfFolder, ShardsHoldWhatTheIndexSays) {
  const TemporaryFolder folder;
  const auto dir = write(folder.path() / "model", Kind::bf16);
  fs::rename(dir / "model.safetensors", dir / "a.safetensors");
  fs::copy_file(dir / "a.safetensors", dir / "b.safetensors");
  Json map = Json::object();
  for (const auto& tensor : expected_tensors(tiny_config())) map[tensor.name] = "a.safetensors";
  const auto error_of_map = [&](const Json& changed) {
    const Json index = {{"metadata", {{"total_size", 1}}}, {"weight_map", changed}};
    write_file_atomic(dir / "model.safetensors.index.json", dump_json(index));
    return error_of([&] { load_checkpoint(dir); });
  };
  EXPECT_EQ(error_of_map(map), "");
  ASSERT_EQ(load_checkpoint(dir).warnings.size(), 1u);  // total_size
  Json changed = map;
  changed["model.norm.weight"] = "b.safetensors";
  EXPECT_NE(error_of_map(changed).find("which the index puts into"), std::string::npos);
  changed = map;
  changed.erase("model.norm.weight");
  EXPECT_NE(error_of_map(changed).find("which the index does not name"), std::string::npos);
  changed = map;
  changed["model.extra.weight"] = "a.safetensors";
  EXPECT_NE(error_of_map(changed).find("'model.extra.weight' is not in a.safetensors"),
            std::string::npos);
}

TEST(HfFolder, SnapshotOfTheHubCacheLinksIntoItsBlobs) {
  const TemporaryFolder folder;
  const fs::path root = folder.path() / "models--org--name";
  fs::create_directories(root / "snapshots");
  fs::create_directories(root / "blobs");
  const auto dir = write(root / "snapshots" / "abc", Kind::bf16);
  fs::rename(dir / "model.safetensors", root / "blobs" / "1234");
  fs::create_symlink("../../blobs/1234", dir / "model.safetensors");
  EXPECT_EQ(error_of([&] { load_checkpoint(dir); }), "");
  fs::rename(root / "blobs" / "1234", folder.path() / "1234");
  fs::remove(dir / "model.safetensors");
  fs::create_symlink(folder.path() / "1234", dir / "model.safetensors");
  EXPECT_NE(error_of([&] { load_checkpoint(dir); }).find("expected a file inside"),
            std::string::npos);
}

TEST(HfFolder, ReadsThePipelinesOfLlama3AndQwen2) {
  const TemporaryFolder folder;
  const auto dir = write(folder.path() / "model", Kind::bf16);
  Json json = parse_json(read_text_file(dir / "tokenizer.json", 1 << 20), "x");
  const std::string pattern =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
      R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
  json["pre_tokenizer"]["pretokenizers"] =
      Json::array({{{"type", "Split"},
                    {"pattern", {{"Regex", pattern}}},
                    {"behavior", "Isolated"},
                    {"invert", false}},
                   {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}});
  json["normalizer"] = {{"type", "NFC"}};
  json["model"]["ignore_merges"] = true;
  const Json token = {{"SpecialToken", {{"id", "a"}, {"type_id", 0}}}};
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  json["post_processor"] = {{"type", "TemplateProcessing"}, {"single", Json::array({token, text})}};
  write_file_atomic(dir / "tokenizer.json", dump_json(json));
  const TokenizerSpec spec = load_checkpoint(dir).tokenizer;
  EXPECT_EQ(spec.pre_tokenizer, "qwen2");
  EXPECT_TRUE(spec.normalizes_nfc);
  EXPECT_TRUE(spec.ignores_merges);
  EXPECT_TRUE(spec.add_bos);
  EXPECT_EQ(spec.tokens[static_cast<size_t>(spec.bos_id)], "a");
}

TEST(HfFolder, WindowsOfSomeLayersAreReadAndWritten) {
  const TemporaryFolder folder;
  ModelConfig config = tiny_config();
  config.family = "qwen3";
  config.qk_norm = true;
  config.num_layers = 3;
  config.sliding_window = 7;
  std::vector<TensorSource> tensors;
  for (const auto& [name, N, K] : expected_tensors(config)) {
    std::vector<int64_t> shape = {N, K};
    if (N == 1) shape = {K};
    tensors.push_back(source(name, "BF16", shape, repeated(kOne, N * K)));
  }
  const auto dir = folder.path() / "model";
  const auto read_back = [&](const std::vector<bool>& full_layers) {
    config.full_layers = full_layers;
    fs::remove_all(dir);
    write_hf_folder(dir, config, tiny_tokenizer(), tensors, "", "");
    return load_checkpoint(dir).config;
  };
  EXPECT_TRUE(read_back({}).full_layers.empty());
  EXPECT_EQ(read_back({}).sliding_window, 7);
  EXPECT_EQ(read_back({false, true, false}).full_layers, (std::vector<bool>{false, true, false}));
  EXPECT_EQ(read_back({true, true, true}).sliding_window, 0);
  // Without layer_types, max_window_layers says as much where the last layers have the window.
  read_back({true, true, false});
  Json json = parse_json(read_text_file(dir / "config.json", 1 << 20), "x");
  json.erase("layer_types");
  write_file_atomic(dir / "config.json", dump_json(json));
  EXPECT_EQ(load_checkpoint(dir).config.full_layers, (std::vector<bool>{true, true, false}));
}

TEST(HfFolder, CopiesOfWhatIsKnownAreIgnored) {
  const TemporaryFolder folder;
  const int64_t V = tiny_config().vocab_size, C = tiny_config().width;
  const auto load_with = [&](const std::string& lm_head) {
    auto tensors = tensors_of(Kind::bf16);
    tensors.push_back(source("lm_head.weight", "BF16", {V, C}, lm_head));
    tensors.push_back(
        source("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {4}, repeated(raw(1.0f), 4)));
    fs::remove_all(folder.path() / "model");
    write_hf_folder(folder.path() / "model", tiny_config(), tiny_tokenizer(), tensors, "", "");
    return load_checkpoint(folder.path() / "model");
  };
  const Checkpoint same = load_with(repeated(kOne, V * C));
  EXPECT_TRUE(same.config.tied_embedding);
  EXPECT_EQ(same.find("lm_head.weight"), nullptr);
  EXPECT_EQ(same.warnings.size(), 2u);
  const Checkpoint other = load_with(repeated(kHalf, V * C));  // as transformers does
  EXPECT_FALSE(other.config.tied_embedding);
  EXPECT_EQ(first_of(other, "lm_head.weight"), 0.5f);
}

TEST(HfFolder, RefusesToWriteWhatNoFamilyIs) {
  const TemporaryFolder folder;
  const auto error_with = [&](const std::function<void(ModelConfig&)>& change) {
    ModelConfig config = tiny_config();
    change(config);
    return error_of(
        [&] { write_hf_folder(folder.path() / "model", config, tiny_tokenizer(), {}, "", ""); });
  };
  EXPECT_NE(error_with([](auto& c) { c.o_bias = true; }).find("llama with a bias of o"),
            std::string::npos);
  EXPECT_NE(error_with([](auto& c) { c.mlp_bias = c.qkv_bias = true; }).find("is no model"),
            std::string::npos);
}

TEST(HfFolder, NamesWhatIsMissing) {
  const TemporaryFolder folder;
  const auto dir = write(folder.path() / "model", Kind::bf16);
  fs::rename(dir / "model.safetensors", dir / "weights");
  const auto error = [&] { return error_of([&] { load_checkpoint(dir); }); };
  EXPECT_NE(error().find("model.safetensors is missing"), std::string::npos);
  write_file_atomic(dir / "pytorch_model.bin", "x");
  EXPECT_NE(error().find("pickle"), std::string::npos);
  write_file_atomic(dir / "model.safetensors.index.json", "{}");
  EXPECT_NE(error().find("'weight_map' is missing"), std::string::npos);
  fs::remove(dir / "config.json");
  EXPECT_NE(error().find("without config.json"), std::string::npos);
  fs::create_symlink("config.json", dir / "config.json");  // to itself
  EXPECT_NE(error().find("exit 3: "), std::string::npos) << error();
}

}  // namespace
}  // namespace tandem
