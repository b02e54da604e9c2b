#include "formats/validate.h"

#include <cmath>
#include <set>

#include "base/cpu.h"
#include "base/error.h"
#include "formats/families.h"

namespace tandem {
namespace {

// Position is an int32 and every array of a step has T rows of such numbers.
constexpr int64_t kMaxContext = int64_t{1} << 30;
constexpr int64_t kMaxVocabulary = int64_t{1} << 24;

void check_positive(const std::string& where, std::string_view what, double value, double below) {
  if (!(std::isfinite(value) && value > 0 && value < below)) {
    fail(ErrorKind::bad_file, "{}: {} is {}, expected a number above 0 and below {}", where, what,
         value, below);
  }
}

void check_norm(const Weight& norm, const std::string& where) {
  if (!norm.encoding.is_plain()) {
    fail(ErrorKind::bad_file, "{}: encoded as {}, expected plain numbers", where,
         norm.encoding.name());
  }
  std::vector<float> values(static_cast<size_t>(norm.K));
  decode_row(norm, 0, values.data());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      fail(ErrorKind::bad_file, "{}: element {} is {}, expected a finite number", where, i,
           values[i]);
    }
  }
}

void check_scales(const Weight& weight, const std::string& where) {
  const size_t step = scale_bytes(weight.encoding.scale_type);
  for (size_t offset = 0; offset < weight.scales_bytes(); offset += step) {
    const float scale = load_scale(weight.scales + offset, weight.encoding.scale_type);
    if (!std::isfinite(scale)) {
      fail(ErrorKind::bad_file, "{}: scale {} is {}, expected a finite number", where,
           offset / step, scale);
    }
    if (weight.encoding.is_fp8() && !(scale > 0)) {
      fail(ErrorKind::bad_file, "{}: scale {} is {}, expected a number above 0", where,
           offset / step, scale);
    }
  }
}

void check_tensors(const Checkpoint& checkpoint, const std::string& where) {
  std::set<std::string_view> known;
  const auto expected = expected_tensors(checkpoint.config);
  for (const auto& want : expected) {
    known.insert(want.name);
    const std::string tensor = fmt::format("{}: tensor {}", where, quote(want.name));
    const NamedTensor* found = checkpoint.find(want.name);
    if (found == nullptr) {
      fail(ErrorKind::bad_file, "{}: tensor {} is missing", where, quote(want.name));
    }
    const Weight& weight = found->weight;
    if (weight.N != want.N || weight.K != want.K) {
      fail(ErrorKind::bad_file, "{}: shape [{}, {}], expected [{}, {}] from the config", tensor,
           weight.N, weight.K, want.N, want.K);
    }
    if (want.N == 1) check_norm(weight, tensor);
    // Those that are still to be repacked are checked when a kernel wants them.
    if (find_planes(checkpoint.repacked, weight) == nullptr) check_scales(weight, tensor);
  }
  std::set<std::string_view> seen;
  for (const auto& tensor : checkpoint.tensors) {
    if (!known.contains(tensor.name)) {
      fail(ErrorKind::bad_file,
           "{}: tensor {} is not part of a {}-layer {} model as this version knows it", where,
           quote(tensor.name), checkpoint.config.num_layers, checkpoint.config.family);
    }
    if (!seen.insert(tensor.name).second) {
      fail(ErrorKind::bad_file, "{}: tensor {} stands twice", where, quote(tensor.name));
    }
  }
}

void check_tokenizer(const TokenizerSpec& spec, int64_t vocab_size, const std::string& where) {
  const auto size = static_cast<int64_t>(spec.tokens.size());
  if (size != vocab_size) {
    fail(ErrorKind::bad_file,
         "{}: the tokenizer has {} tokens, expected {} (the rows of the embedding)", where, size,
         vocab_size);
  }
  CHECK(spec.types.size() == spec.tokens.size(), "types {} tokens {}", spec.types.size(), size);
  const std::pair<std::string_view, int32_t> ids[] = {
      {"bos", spec.bos_id}, {"eos", spec.eos_id}, {"pad", spec.pad_id}, {"unk", spec.unk_id}};
  for (const auto& [name, id] : ids) {
    if (id < -1 || id >= size) {
      fail(ErrorKind::bad_file, "{}: the {} token has id {}, expected below {}", where, name, id,
           size);
    }
  }
  if (spec.add_bos && spec.bos_id < 0) {
    fail(ErrorKind::bad_file,
         "{}: the tokenizer wants a BOS token in front of a text but names none", where);
  }
}

void check_rope_scaling(const ModelConfig& c, const std::string& where) {
  if (c.rope_scaling == RopeScaling::none) return;
  if (c.rope_scaling == RopeScaling::divisors) {
    if (static_cast<int64_t>(c.rope_divisors.size()) != c.head_dim / 2) {
      fail(ErrorKind::bad_file, "{}: {} RoPE divisors, expected {} (half the head dimension)", where,
           c.rope_divisors.size(), c.head_dim / 2);
    }
    for (const float divisor : c.rope_divisors) check_positive(where, "a RoPE divisor", divisor, 1e6);
    return;
  }
  check_positive(where, "the RoPE scaling factor", c.rope_factor, 1e6);
  if (c.rope_scaling == RopeScaling::linear) return;
  check_range(where, "the original context of RoPE scaling", c.rope_original_context, 1, kMaxContext);
  if (c.rope_scaling == RopeScaling::dynamic) {
    // The base grows with the power D / (D - 2).
    check_range(where, "the head dimension of dynamic RoPE", c.head_dim, 4, 4096);
    if (c.rope_factor < 1) {
      fail(ErrorKind::bad_file, "{}: the factor of dynamic RoPE is {}, expected 1 or more", where,
           c.rope_factor);
    }
    return;
  }
  check_positive(where, "RoPE's low_freq_factor", c.rope_low_freq_factor, 1e6);
  if (!(std::isfinite(c.rope_high_freq_factor) && c.rope_high_freq_factor > c.rope_low_freq_factor)) {
    fail(ErrorKind::bad_file, "{}: RoPE's high_freq_factor is {}, expected more than {}", where,
         c.rope_high_freq_factor, c.rope_low_freq_factor);
  }
}

}  // namespace

void check_range(const std::string& where, std::string_view what, int64_t value, int64_t low,
                 int64_t high) {
  if (value < low || value > high) {
    fail(ErrorKind::bad_file, "{}: {} is {}, expected {} to {}", where, what, value, low, high);
  }
}

void validate_config(const ModelConfig& config, const std::string& where) {
  check_range(where, "the number of layers", config.num_layers, 1, 4096);
  check_range(where, "the hidden width", config.width, 1, 1 << 20);
  check_range(where, "the number of heads", config.num_heads, 1, 4096);
  check_range(where, "the number of KV heads", config.num_kv_heads, 1, config.num_heads);
  check_range(where, "the head dimension", config.head_dim, 2, 4096);
  check_range(where, "the feed-forward width", config.ffn_width, 1, 1 << 22);
  check_range(where, "the vocabulary size", config.vocab_size, 1, kMaxVocabulary);
  check_range(where, "the context length", config.max_context, 1, kMaxContext);
  if (config.num_heads % config.num_kv_heads != 0) {
    fail(ErrorKind::bad_file, "{}: {} KV heads do not divide {} heads", where, config.num_kv_heads,
         config.num_heads);
  }
  if (config.head_dim % 2 != 0) {
    fail(ErrorKind::bad_file, "{}: the head dimension is {}, expected an even number", where,
         config.head_dim);
  }
  check_positive(where, "the RoPE base frequency", config.rope_theta, 1e15);
  check_positive(where, "the RMS norm epsilon", config.rms_eps, 1.0);
  check_range(where, "the sliding window", config.sliding_window, 0, kMaxContext);
  CHECK(config.full_layers.empty() ||
            static_cast<int64_t>(config.full_layers.size()) == config.num_layers,
        "{} layers, {} kinds", config.num_layers, config.full_layers.size());
  check_rope_scaling(config, where);
}

void check_fits(const std::string& where, uint64_t weight_bytes) {
  const uint64_t available = available_memory_bytes();
  if (weight_bytes > available) {
    fail(ErrorKind::no_memory, "{}: the weights need {} bytes of memory, {} bytes are available",
         where, weight_bytes, available);
  }
}

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& c) {
  const int64_t q_rows = c.num_heads * c.head_dim, kv_rows = c.num_kv_heads * c.head_dim;
  std::vector<ExpectedTensor> tensors;
  tensors.push_back({"model.embed_tokens.weight", c.vocab_size, c.width});
  for (int64_t l = 0; l < c.num_layers; ++l) {
    const auto add = [&](std::string_view name, int64_t N, int64_t K) {
      tensors.push_back({fmt::format("model.layers.{}.{}.weight", l, name), N, K});
    };
    const auto add_bias = [&](std::string_view name, int64_t rows) {
      tensors.push_back({fmt::format("model.layers.{}.{}.bias", l, name), 1, rows});
    };
    add("input_layernorm", 1, c.width);
    add("self_attn.q_proj", q_rows, c.width);
    add("self_attn.k_proj", kv_rows, c.width);
    add("self_attn.v_proj", kv_rows, c.width);
    if (c.qkv_bias) {
      add_bias("self_attn.q_proj", q_rows);
      add_bias("self_attn.k_proj", kv_rows);
      add_bias("self_attn.v_proj", kv_rows);
    }
    if (c.qk_norm) {
      add("self_attn.q_norm", 1, c.head_dim);
      add("self_attn.k_norm", 1, c.head_dim);
    }
    add("self_attn.o_proj", c.width, q_rows);
    if (c.o_bias) add_bias("self_attn.o_proj", c.width);
    add("post_attention_layernorm", 1, c.width);
    add("mlp.gate_proj", c.ffn_width, c.width);
    add("mlp.up_proj", c.ffn_width, c.width);
    add("mlp.down_proj", c.width, c.ffn_width);
    if (c.mlp_bias) {
      add_bias("mlp.gate_proj", c.ffn_width);
      add_bias("mlp.up_proj", c.ffn_width);
      add_bias("mlp.down_proj", c.width);
    }
  }
  tensors.push_back({"model.norm.weight", 1, c.width});
  if (!c.tied_embedding) tensors.push_back({"lm_head.weight", c.vocab_size, c.width});
  return tensors;
}

void validate_checkpoint(Checkpoint& checkpoint) {
  const std::string where = checkpoint.path.string();
  validate_config(checkpoint.config, where);
  split_fused(checkpoint);
  checkpoint.index_tensors();
  check_tensors(checkpoint, where);
  check_tokenizer(checkpoint.tokenizer, checkpoint.config.vocab_size, where);
}

}  // namespace tandem
