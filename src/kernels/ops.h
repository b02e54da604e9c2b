// The operations of a decoder layer: one signature each, implemented by every kernel set (ref, avx2,
// avx512). Dimension letters used everywhere:
//   T tokens of a step   M,N,K of a linear: y[M,N] = x[M,K] . W[N,K]^T   S context
//   H heads  G kv heads  D head dim  C width  F ffn width  V vocabulary  L layers
// Shapes are checked once, at the door of each op; nothing below it re-checks and nothing allocates.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "tensor/buffer.h"
#include "tensor/weight.h"

namespace tandem {

class Device;
class DeviceStep;

// Where an op runs. Every op takes it first; there is no global pool, device or stream.
struct Context {
  ThreadPool* pool = nullptr;
  Device* device = nullptr;    // null: the host. Else the ops' pointers are the device's
  DeviceStep* step = nullptr;  // the step's batch in the device's memory
};

// x[T, K] as the next linear wants it. Block sums let a linear add min * sum(x) without reading x.
struct Activations {
  ActType type = ActType::f32;
  int64_t T = 0;
  int64_t K = 0;
  float* f32 = nullptr;     // [T, K]; ActType::f32 only
  int8_t* codes = nullptr;  // [T, planes, K_padded], zero beyond K; int8 and fp8 (E4M3 bytes) only
  // Group-major, so that the tokens of a tile lie together.
  float* scales = nullptr;  // [groups, T]: x = code * scale; int8_outlier: [2, T], see planes()
  float* sums = nullptr;    // [groups, T]: scale * sum(codes of the group), the sum of x; int8 only
  uint16_t* half = nullptr;  // [T, K_padded], zero beyond K; bf16 and f16 only
  float static_scale = 0;    // what every scale is; fp8_static and int8_static only
  // [K]: channel k of what a linear sees is columns[k] of what an op makes; null: in order.
  const int32_t* columns = nullptr;

  constexpr int64_t K_padded() const { return (K + kActBlock - 1) / kActBlock * kActBlock; }
  // Channels that share a scale.
  int64_t group() const {
    return type == ActType::int8_block ? kActBlock : type == ActType::fp8_block ? kFp8Block : K_padded();
  }
  int64_t groups() const { return (K_padded() + group() - 1) / group(); }
  // int8_outlier: x = codes[0] * scales[0] where |x| < kOutlierThreshold, codes[1] and [2] are 0; else
  // x = (kOutlierRadix codes[1] + codes[2]) * scales[1], codes[0] is 0.
  int64_t planes() const { return type == ActType::int8_outlier ? 3 : 1; }
  int64_t num_codes() const { return T * planes() * K_padded(); }
  int64_t num_scales() const { return T * (type == ActType::int8_outlier ? 2 : groups()); }
};

struct LinearKernel;

// A weight in the private layout of the kernel that will run it.
struct PackedWeight {
  const LinearKernel* kernel = nullptr;
  Encoding encoding;
  int64_t N = 0;
  int64_t K = 0;
  const std::byte* data = nullptr;  // the kernel's own layout, in the arena; null for ref
  uint64_t data_bytes = 0;
  std::vector<Weight> parts;  // ref only: the canonical rows, concatenated along N
  float table[16] = {};       // codebook only: Weight::table
  float input_scale = 0;      // Weight::input_scale
  // Bytes one use of the whole matrix reads.
  uint64_t read_bytes = 0;
  bool sparse_only = false;  // 2:4: many tokens too skip what is not kept, at whatever speed
  // [K] in the arena: the order in which `run` wants the activations' channels; null: as they are.
  const int32_t* columns = nullptr;
};

// A row of the kernel table for linears: the instruction set `isa` runs weights of `packing`.
struct LinearKernel {
  const char* name;  // "linear_q4_1_avx512"
  const char* isa;   // "ref", "avx2", "avx512"
  Packing packing;
  ActType act_type;
  // parts: matrices of one encoding and K, stacked along N in this order.
  // The packed bytes lie in `arena`, which must outlive the result.
  PackedWeight (*prepack)(const Context&, const std::vector<Weight>& parts, Arena& arena);
  // y[T, ldy] = x . W^T, or y += x . W^T when accumulate. x.type is act_type.
  void (*run)(const Context&, const PackedWeight&, const Activations& x, float* y, int64_t ldy,
              bool accumulate);
  // out[K] = row n of the packed weight, in float: the embedding look-up of a tied model. Host only.
  void (*decode_row)(const PackedWeight&, int64_t n, float* out);
  // The same on a device, for many rows: out[T, K]; `rows` [T] lies in the device's memory.
  void (*gather_rows)(const Context&, const PackedWeight&, const int32_t* rows, int64_t T,
                      float* out) = nullptr;
  // What many tokens at once change, for a reader; null: nothing.
  const char* many_tokens = nullptr;
  // 2:4 weights: what is not kept is neither read nor multiplied.
  bool skips_zeros = false;
};

// What keys and values are stored as. The narrow ones have one 32-bit word for each token and kv
// head, of keys and of values apart:
//   fp8   E4M3 codes, f32 scale: x = code * scale, scale = max|x| / 448
//   int8  f32 scale:             x = code * scale, scale = max|x| / 127
//   int4  bf16 scale in the low half of the word, bf16 minimum in the high half:
//         x = code * scale + min, code 0 ... 15, scale = (max - min) / 15. Keys, and queries with
//         them, are rotated by the Walsh-Hadamard matrix over sqrt(D) after RoPE, where D is a power
//         of two: products stay what they are, and no channel stands out of its head.
// Codes are rounded to nearest even against the scale as stored. A token that holds NaN or infinity
// has a NaN scale, so that it is seen in the logits.
enum class KvType : uint8_t { f32, bf16, int8, fp8, int4 };
inline constexpr KvType kKvTypes[] = {KvType::f32, KvType::bf16, KvType::int8, KvType::fp8,
                                      KvType::int4};
const char* kv_type_name(KvType type);

inline constexpr int64_t kPageTokens = 64;  // tokens a page; a multiple of kTileTokens
inline constexpr int64_t kTileTokens = 16;  // tokens that lie together in a K tile: one zmm of scores

// The layout of the paged KV cache. A page holds kPageTokens consecutive tokens of one sequence, for
// all layers; within a page and layer, for each kv head g:
//   K [kPageTokens / 16][D][16]  V [kPageTokens][D_padded]  (elements of KvType; int4: the even
//                                                            element in the low half of a byte)
//   K scales [kPageTokens]  V scales [kPageTokens]          (the words of the narrow types)
// A GPU keeps the same planes with its own order of the elements (cuda/kv_fragments.h).
struct KvLayout {
  KvType type = KvType::bf16;
  int64_t num_layers = 0;
  int64_t G = 0;
  int64_t D = 0;
  int64_t window = 0;  // latest keys that a query sees, itself included; 0: all. The cache keeps all.

  // The first key that the query at `position` sees.
  int64_t first_key(int64_t position) const {
    return window == 0 || position < window ? 0 : position + 1 - window;
  }
  int64_t D_padded() const { return (D + 15) / 16 * 16; }
  int64_t element_bits() const {
    return type == KvType::f32 ? 32 : type == KvType::bf16 ? 16 : type == KvType::int4 ? 4 : 8;
  }
  bool is_narrow() const { return element_bits() <= 8; }
  int64_t k_bytes() const { return kPageTokens * D * element_bits() / 8; }
  int64_t v_bytes() const { return kPageTokens * D_padded() * element_bits() / 8; }
  int64_t scales_bytes() const { return is_narrow() ? kPageTokens * 4 : 0; }
  int64_t head_bytes() const { return (k_bytes() + v_bytes() + 2 * scales_bytes() + 63) / 64 * 64; }
  int64_t layer_bytes() const { return G * head_bytes(); }
  int64_t page_bytes() const { return num_layers * layer_bytes(); }
  // Offsets within a page of layer l, head g.
  int64_t k_offset(int64_t l, int64_t g) const { return l * layer_bytes() + g * head_bytes(); }
  int64_t v_offset(int64_t l, int64_t g) const { return k_offset(l, g) + k_bytes(); }
  int64_t k_scales_offset(int64_t l, int64_t g) const { return v_offset(l, g) + v_bytes(); }
  int64_t v_scales_offset(int64_t l, int64_t g) const { return k_scales_offset(l, g) + scales_bytes(); }
  // Element index of (token in page, d) within K.
  static int64_t k_index(int64_t token, int64_t d, int64_t D) {
    return (token / kTileTokens * D + d) * kTileTokens + token % kTileTokens;
  }
  // Bytes one token costs in all layers, scales included.
  int64_t token_bytes() const { return page_bytes() / kPageTokens; }
};

// The part of a step that belongs to one sequence: `num_tokens` new tokens at the end of `context`.
struct SequenceSlice {
  int64_t first_token = 0;   // row of the step's arrays
  int64_t num_tokens = 0;    // new tokens
  int64_t context = 0;       // tokens in the cache after this step, the new ones included
  const int32_t* pages = nullptr;  // page numbers, ceil(context / kPageTokens) of them
  // Tokens known of the sequence, those of later steps included: a prompt in several steps has one
  // length, on which dynamic RoPE depends. 0: `context`.
  int64_t length = 0;
};

// What a layer does to its q, k and v before RoPE; null: nothing. The bias comes first.
struct HeadTransform {
  const float* bias = nullptr;    // [(H + 2G) D]
  const float* q_norm = nullptr;  // [D], weight of the RMS norm over each head of q
  const float* k_norm = nullptr;  // [D], of k; both or none
  float eps = 0;
};

// On the host a page is one run of bytes, so that memory follows use. A GPU's pages are cut by layer,
// layer l of page p at base + (l * num_pages + p) * layout.layer_bytes(): what an attention kernel
// reads then lies together, which the address translation needs for full bandwidth.
struct KvCache {
  KvLayout layout;
  std::byte* base = nullptr;  // host: page p at base + p * layout.page_bytes()
  int64_t num_pages = 0;      // device only
};

// One step of one or more sequences, planned on the host. Arrays outlive the step.
struct Batch {
  int64_t T = 0;
  const int32_t* tokens = nullptr;     // [T]
  const int32_t* positions = nullptr;  // [T]
  std::vector<SequenceSlice> sequences;
  // Rows whose logits are wanted, ascending; logits come out in this order.
  std::vector<int32_t> logit_rows;
};

// RoPE whose base grows with a sequence of more than `above` tokens: theta times
// (factor * length / above - (factor - 1)) ^ (D / (D - 2)), as in transformers.
struct DynamicRope {
  double theta = 0, factor = 0;
  int64_t above = 0;
};

// What a step on a device needs besides, where the host just reads its Batch.
struct DeviceOps {
  // cos_sin [T, D] of the step's positions; inv_freq [D / 2].
  void (*cos_sin)(const Context&, int64_t T, int64_t D, const float* inv_freq, float* cos_sin);
  // out [n, C] = the rows of x [T, C] whose logits are wanted.
  void (*select_rows)(const Context&, const float* x, int64_t C, int64_t n, float* out);
  // tokens[n] = the id of the largest of each row of logits [n, V], the lowest of equals; -1 when a
  // logit is NaN or none is finite.
  void (*argmax)(const Context&, const float* logits, int64_t n, int64_t V, int32_t* tokens);
  // Of few models; null: models that need them are refused.
  // x[T, N] += bias[N].
  void (*add_bias)(const Context&, const float* bias, int64_t T, int64_t N, float* x) = nullptr;
  // cos_sin [T, D] of the step's positions, each token by the length of its sequence.
  void (*dynamic_cos_sin)(const Context&, int64_t T, int64_t D, const DynamicRope& rope,
                          float* cos_sin) = nullptr;
};

// The ops besides linear: one set for each instruction set.
struct OpSet {
  const char* isa;
  // x.f32[T,K] -> out in the type out.type (quantized, or copied for f32).
  void (*quantize)(const Context&, const float* x, int64_t ldx, const Activations& out);
  // out = rms_norm(x) * weight, in out's type. x [T, C], weight [C].
  void (*rms_norm)(const Context&, const float* x, int64_t T, int64_t C, const float* weight, float eps,
                   const Activations& out);
  // Applies `transform`, then rotates q in place and k on its way into the cache; v goes beside it.
  // Half-split RoPE: planes (d, d + D/2). qkv [T, (H + 2G) D]: q heads, k heads, v heads. cos_sin [T, D]: the cosines of the
  // token's D/2 angles, then the sines.
  void (*rope_append)(const Context&, float* qkv, const HeadTransform& transform, const Batch& batch,
                      int64_t H, const float* cos_sin, const KvCache& cache, int64_t layer);
  // Causal attention of the step's q over the cache, within the layout's window. qkv [T, (H + 2G) D] (q rotated), out [T, H * D].
  // scratch: attention_scratch_floats(...) floats for each thread.
  void (*attention)(const Context&, const float* qkv, const Batch& batch, int64_t H,
                    const KvCache& cache, int64_t layer, float* scratch, float* out);
  // out = silu(gate) * up, in out's type. gate_up [T, 2F]: gate, then up.
  void (*act_mul)(const Context&, const float* gate_up, int64_t T, int64_t F, const Activations& out);
  std::span<const KvType> kv_types;   // what rope_append and attention run
  const DeviceOps* device = nullptr;  // null: the host's
  // rope_append, attention into attended [T, H * D] and quantize into `out`, in as few kernels as the
  // batch allows: qkv and attended are left in an undefined state. Null: the three, one after the other.
  void (*attend)(const Context&, float* qkv, const HeadTransform& transform, const Batch& batch, int64_t H,
                 const float* cos_sin, const KvCache& cache, int64_t layer, float* attended,
                 const Activations& out) = nullptr;
};

// Floats of scratch that attention needs for each thread, for any kernel set.
int64_t attention_scratch_floats(int64_t H, int64_t G, int64_t D);

}  // namespace tandem
