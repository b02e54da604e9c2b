#include "model/footprint.h"

#include <algorithm>

namespace tandem {

namespace {

// Bits of a packed weight where the kernels' layout has others than the file (kernels/cpu).
double packed_bits(const Encoding& encoding) {
  switch (encoding.packing) {
    case Packing::q2_k:
      return 5.125;
    case Packing::q3_k:
      return 4.5625;
    case Packing::q4_k:
      return 4.625;
    case Packing::q5_k:
      return 5.625;
    case Packing::iq4_nl:
      return 8.5;
    default:
      return 0;
  }
}

uint64_t packed_bytes(const Weight& w) {
  const double bits = packed_bits(w.encoding);
  if (bits == 0) return w.total_bytes();
  return static_cast<uint64_t>(bits / 8 * static_cast<double>(w.N) * static_cast<double>(w.K));
}

}  // namespace

Footprint footprint(const Checkpoint& checkpoint) {
  Footprint result;
  const ModelConfig& config = checkpoint.config;
  for (const NamedTensor& tensor : checkpoint.tensors) {
    const Weight& w = tensor.weight;
    const bool embedding = tensor.name == "model.embed_tokens.weight";
    const bool lm_head = tensor.name == "lm_head.weight";
    result.weight_bytes += w.total_bytes();
    result.resident_bytes += packed_bytes(w);
    if (!embedding || config.tied_embedding) result.step_read_bytes += w.total_bytes();
    if (w.N > 1 && !embedding && !lm_head) {
      result.linear_macs_per_token += static_cast<uint64_t>(w.N) * static_cast<uint64_t>(w.K);
    }
  }
  result.lm_head_macs_per_token =
      static_cast<uint64_t>(config.vocab_size) * static_cast<uint64_t>(config.width);
  return result;
}

uint64_t kv_bytes(const ModelConfig& config, KvType type, int64_t tokens) {
  const KvLayout layout{type, config.num_layers, config.num_kv_heads, config.head_dim};
  return static_cast<uint64_t>((tokens + kPageTokens - 1) / kPageTokens * layout.page_bytes());
}

uint64_t attention_macs(const ModelConfig& config, int64_t S) {
  int64_t seen = 0;  // over all layers
  for (int64_t l = 0; l < config.num_layers; ++l) {
    const int64_t window = config.window(l);
    seen += window == 0 ? S : std::min(S, window);
  }
  return static_cast<uint64_t>(2 * config.num_heads * config.head_dim * seen);
}

}  // namespace tandem
