// The ops besides linear in scalar fp32. Each is the definition; the fast sets must agree with it.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/ref/kv_codes.h"
#include "kernels/rows.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

// One token's K numbers -> codes, scales and sums. code = rne(x * 127 / max|x|); a block of zeros has
// scale 0. NaN or infinity in x gives a NaN scale, so that it is seen in the logits.
void quantize_row(const float* x, const Activations& out, int64_t t) {
  const int64_t group = out.group();
  int8_t* codes = out.codes + t * out.K_padded();
  for (int64_t g = 0; g < out.groups(); ++g) {
    const int64_t begin = g * group, end = std::min(begin + group, out.K);
    float max_abs = 0;
    bool finite = true;
    for (int64_t k = begin; k < end; ++k) {
      finite = finite && std::isfinite(x[k]);
      max_abs = std::max(max_abs, std::fabs(x[k]));
    }
    const float inverse = max_abs > kSmallestMaxAbs && finite ? 127.0f / max_abs : 0.0f;
    int32_t sum = 0;
    for (int64_t k = begin; k < begin + group; ++k) {
      const float scaled = k < end && finite ? x[k] * inverse : 0.0f;
      codes[k] = static_cast<int8_t>(std::nearbyintf(scaled));
      sum += codes[k];
    }
    const float scale = finite ? max_abs / 127.0f : NAN;
    out.scales[g * out.T + t] = scale;
    out.sums[g * out.T + t] = scale * static_cast<float>(sum);
  }
}

// The same in E4M3: code = e4m3(x * 448 / max|x|).
void quantize_row_fp8(const float* x, const Activations& out, int64_t t) {
  auto* codes = reinterpret_cast<uint8_t*>(out.codes + t * out.K_padded());
  for (int64_t g = 0; g < out.groups(); ++g) {
    const int64_t begin = g * out.group(), end = std::min(begin + out.group(), out.K);
    float max_abs = 0;
    bool finite = true;
    for (int64_t k = begin; k < end; ++k) {
      finite = finite && std::isfinite(x[k]);
      max_abs = std::max(max_abs, std::fabs(x[k]));
    }
    const float factor = max_abs > kSmallestMaxAbs && finite ? kMaxE4M3 / max_abs : 0.0f;
    for (int64_t k = begin; k < std::min(begin + out.group(), out.K_padded()); ++k) {
      codes[k] = k < end && factor > 0 ? float_to_e4m3(x[k] * factor) : 0;
    }
    out.scales[g * out.T + t] = finite ? max_abs / kMaxE4M3 : NAN;
  }
}

// One scale for all: what lies beyond the largest code becomes that code.
void quantize_row_static(const float* x, const Activations& out, int64_t t) {
  int8_t* codes = out.codes + t * out.K_padded();
  std::fill_n(codes, out.K_padded(), int8_t{0});
  const bool finite = std::all_of(x, x + out.K, [](float v) { return std::isfinite(v); });
  int32_t sum = 0;
  for (int64_t k = 0; k < out.K && finite; ++k) {
    const float scaled = x[k] / out.static_scale;
    if (out.type == ActType::fp8_static) {
      codes[k] = static_cast<int8_t>(float_to_e4m3(scaled));
    } else {
      codes[k] = static_cast<int8_t>(std::nearbyintf(std::clamp(scaled, -127.0f, 127.0f)));
      sum += codes[k];
    }
  }
  out.scales[t] = finite ? out.static_scale : NAN;
  if (out.type == ActType::int8_static) out.sums[t] = out.scales[t] * static_cast<float>(sum);
}

// int8_outlier: two codings of a row that share no element.
void quantize_row_outliers(const float* x, const Activations& out, int64_t t) {
  float max_below = 0, max_outlier = 0;
  bool finite = true;
  for (int64_t k = 0; k < out.K; ++k) {
    const float magnitude = std::fabs(x[k]);
    finite = finite && std::isfinite(x[k]);
    float& max = magnitude < kOutlierThreshold ? max_below : max_outlier;
    max = std::max(max, magnitude);
  }
  const float inverse = max_below > kSmallestMaxAbs ? 127.0f / max_below : 0.0f;
  const float outlier_inverse = max_outlier > 0 && finite ? kLargestOutlierCode / max_outlier : 0.0f;
  int8_t* codes = out.codes + t * 3 * out.K_padded();
  int32_t sum = 0, outlier_sum = 0;
  for (int64_t k = 0; k < out.K_padded(); ++k) {
    const bool is_outlier = k < out.K && !(std::fabs(x[k]) < kOutlierThreshold);
    const float scaled = k < out.K && finite ? x[k] * (is_outlier ? outlier_inverse : inverse) : 0.0f;
    const int32_t code = static_cast<int32_t>(std::nearbyintf(scaled));
    const int high = outlier_high(code);
    codes[k] = static_cast<int8_t>(is_outlier ? 0 : code);
    codes[out.K_padded() + k] = static_cast<int8_t>(is_outlier ? high : 0);
    codes[2 * out.K_padded() + k] = static_cast<int8_t>(is_outlier ? code - kOutlierRadix * high : 0);
    (is_outlier ? outlier_sum : sum) += code;
  }
  out.scales[t] = max_below / 127.0f;
  out.scales[out.T + t] = finite ? max_outlier / kLargestOutlierCode : NAN;
  out.sums[t] = std::fma(out.scales[out.T + t], static_cast<float>(outlier_sum),
                         out.scales[t] * static_cast<float>(sum));
}

void store_activations(const float* x, const Activations& out, int64_t t) {
  std::vector<float> ordered;
  if (out.columns != nullptr) {
    for (int64_t k = 0; k < out.K; ++k) ordered.push_back(x[out.columns[k]]);
    x = ordered.data();
  }
  if (out.type == ActType::f32) {
    std::copy_n(x, out.K, out.f32 + t * out.K);
  } else if (out.type == ActType::fp8_static || out.type == ActType::int8_static) {
    quantize_row_static(x, out, t);
  } else if (is_fp8(out.type)) {
    quantize_row_fp8(x, out, t);
  } else if (out.type == ActType::int8_outlier) {
    quantize_row_outliers(x, out, t);
  } else {
    quantize_row(x, out, t);
  }
}

void quantize(const Context&, const float* x, int64_t ldx, const Activations& out) {
  for (int64_t t = 0; t < out.T; ++t) store_activations(x + t * ldx, out, t);
}

void rms_norm(const Context&, const float* x, int64_t T, int64_t C, const float* weight, float eps,
              const Activations& out) {
  CHECK(out.T == T && out.K == C, "T {} {} C {} {}", out.T, T, out.K, C);
  std::vector<float> row(static_cast<size_t>(C));
  for (int64_t t = 0; t < T; ++t) {
    double sum = 0;
    for (int64_t c = 0; c < C; ++c) sum += static_cast<double>(x[t * C + c]) * x[t * C + c];
    const float scale = 1.0f / std::sqrt(static_cast<float>(sum / static_cast<double>(C)) + eps);
    for (int64_t c = 0; c < C; ++c) row[c] = x[t * C + c] * scale * weight[c];
    store_activations(row.data(), out, t);
  }
}

void rotate(float* head, int64_t D, const float* cos_sin) {
  const int64_t half = D / 2;
  for (int64_t d = 0; d < half; ++d) {
    const float a = head[d], b = head[d + half], c = cos_sin[d], s = cos_sin[half + d];
    head[d] = a * c - b * s;
    head[d + half] = b * c + a * s;
  }
}

// The planes of one page, layer and kv head, and how an element is written and read.
struct KvHead {
  const KvLayout& layout;
  std::byte* k;        // [kPageTokens / 16][D][16]
  std::byte* v;        // [kPageTokens][D_padded]
  uint32_t* k_scales;  // [kPageTokens], narrow types only
  uint32_t* v_scales;

  KvHead(const KvCache& cache, int32_t page, int64_t layer, int64_t g) : layout(cache.layout) {
    std::byte* base = cache.base + page * layout.page_bytes();
    k = base + layout.k_offset(layer, g);
    v = base + layout.v_offset(layer, g);
    k_scales = reinterpret_cast<uint32_t*>(base + layout.k_scales_offset(layer, g));
    v_scales = reinterpret_cast<uint32_t*>(base + layout.v_scales_offset(layer, g));
  }

  int64_t k_index(int64_t token, int64_t d) const { return KvLayout::k_index(token, d, layout.D); }
  int64_t v_index(int64_t token, int64_t d) const { return token * layout.D_padded() + d; }

  float read(const std::byte* plane, int64_t index, const uint32_t* word) const {
    const auto* bytes = reinterpret_cast<const uint8_t*>(plane);
    switch (layout.type) {
      case KvType::f32: return reinterpret_cast<const float*>(plane)[index];
      case KvType::bf16: return bf16_to_float(reinterpret_cast<const uint16_t*>(plane)[index]);
      case KvType::int4: return widen_code(layout.type, bytes[index / 2] >> 4 * (index % 2) & 15, *word);
      default: return widen_code(layout.type, bytes[index], *word);
    }
  }
  void write_code(std::byte* plane, int64_t index, uint8_t code) const {
    auto* bytes = reinterpret_cast<uint8_t*>(plane);
    if (layout.type != KvType::int4) {
      bytes[index] = code;
      return;
    }
    const int shift = static_cast<int>(4 * (index % 2));
    bytes[index / 2] = static_cast<uint8_t>((bytes[index / 2] & ~(15 << shift)) | code << shift);
  }
  float k_at(int64_t token, int64_t d) const { return read(k, k_index(token, d), k_scales + token); }
  float v_at(int64_t token, int64_t d) const { return read(v, v_index(token, d), v_scales + token); }

  // x[D] of one token; element d goes to index(d), its word to *word.
  template <typename Index>
  void write(std::byte* plane, uint32_t* word, const float* x, Index index) const {
    const int64_t D = layout.D;
    if (layout.is_narrow()) {
      std::vector<uint8_t> codes(static_cast<size_t>(D));
      *word = narrow_head(layout.type, x, D, codes.data());
      for (int64_t d = 0; d < D; ++d) write_code(plane, index(d), codes[static_cast<size_t>(d)]);
      return;
    }
    for (int64_t d = 0; d < D; ++d) {
      if (layout.type == KvType::f32) {
        reinterpret_cast<float*>(plane)[index(d)] = x[d];
      } else {
        reinterpret_cast<uint16_t*>(plane)[index(d)] = float_to_bf16(x[d]);
      }
    }
  }
};

void norm_head(float* head, int64_t D, const float* weight, float eps) {
  double sum = 0;
  for (int64_t d = 0; d < D; ++d) sum += static_cast<double>(head[d]) * head[d];
  const float scale = 1.0f / std::sqrt(static_cast<float>(sum / static_cast<double>(D)) + eps);
  for (int64_t d = 0; d < D; ++d) head[d] = head[d] * scale * weight[d];
}

// heads [(H + 2G) D] of one token.
void transform_heads(float* heads, const HeadTransform& transform, int64_t H, int64_t G, int64_t D) {
  if (transform.bias != nullptr) {
    for (int64_t i = 0; i < (H + 2 * G) * D; ++i) heads[i] += transform.bias[i];
  }
  if (transform.q_norm == nullptr) return;
  for (int64_t h = 0; h < H + G; ++h) {
    norm_head(heads + h * D, D, h < H ? transform.q_norm : transform.k_norm, transform.eps);
  }
}

void rope_append(const Context&, float* qkv, const HeadTransform& transform, const Batch& batch,
                 int64_t H, const float* cos_sin, const KvCache& cache, int64_t layer) {
  const KvLayout& layout = cache.layout;
  const int64_t D = layout.D, G = layout.G, row = (H + 2 * G) * D;
  for (const SequenceSlice& sequence : batch.sequences) {
    for (int64_t i = 0; i < sequence.num_tokens; ++i) {
      const int64_t t = sequence.first_token + i;
      const int64_t position = sequence.context - sequence.num_tokens + i;
      const int64_t token = position % kPageTokens;
      transform_heads(qkv + t * row, transform, H, G, D);
      for (int64_t h = 0; h < H + G; ++h) {
        rotate(qkv + t * row + h * D, D, cos_sin + t * D);
        if (layout.type == KvType::int4) rotate_hadamard(qkv + t * row + h * D, D);
      }
      for (int64_t g = 0; g < G; ++g) {
        const KvHead head(cache, sequence.pages[position / kPageTokens], layer, g);
        head.write(head.k, head.k_scales + token, qkv + t * row + (H + g) * D,
                   [&](int64_t d) { return head.k_index(token, d); });
        head.write(head.v, head.v_scales + token, qkv + t * row + (H + G + g) * D,
                   [&](int64_t d) { return head.v_index(token, d); });
      }
    }
  }
}

// One query head over the keys that the last of `context` tokens sees.
void attend(const float* q, const SequenceSlice& sequence, int64_t context, const KvCache& cache,
            int64_t layer, int64_t g, float* out) {
  const int64_t D = cache.layout.D;
  const float scale = 1.0f / std::sqrt(static_cast<float>(D));
  std::vector<float> scores(static_cast<size_t>(context));
  float max_score = -INFINITY;
  const int64_t first = cache.layout.first_key(context - 1);
  for (int64_t s = first; s < context; ++s) {
    const KvHead head(cache, sequence.pages[s / kPageTokens], layer, g);
    float score = 0;
    for (int64_t d = 0; d < D; ++d) score += q[d] * head.k_at(s % kPageTokens, d);
    scores[s] = score * scale;
    max_score = std::max(max_score, scores[s]);
  }
  float sum = 0;
  for (int64_t s = first; s < context; ++s) sum += scores[s] = std::exp(scores[s] - max_score);
  std::fill_n(out, D, 0.0f);
  for (int64_t s = first; s < context; ++s) {
    const KvHead head(cache, sequence.pages[s / kPageTokens], layer, g);
    const float p = scores[s] / sum;
    for (int64_t d = 0; d < D; ++d) out[d] += p * head.v_at(s % kPageTokens, d);
  }
}

void attention(const Context& context, const float* qkv, const Batch& batch, int64_t H,
               const KvCache& cache, int64_t layer, float*, float* out) {
  const int64_t D = cache.layout.D, G = cache.layout.G, row = (H + 2 * G) * D;
  for (const SequenceSlice& sequence : batch.sequences) {
    context.pool->parallel_for(sequence.num_tokens * H, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t i = item / H, h = item % H, t = sequence.first_token + i;
        attend(qkv + t * row + h * D, sequence, sequence.context - sequence.num_tokens + i + 1, cache,
               layer, h / (H / G), out + (t * H + h) * D);
      }
    });
  }
}

void act_mul(const Context&, const float* gate_up, int64_t T, int64_t F, const Activations& out) {
  CHECK(out.T == T && out.K == F, "T {} {} F {} {}", out.T, T, out.K, F);
  std::vector<float> row(static_cast<size_t>(F));
  for (int64_t t = 0; t < T; ++t) {
    const float* gate = gate_up + t * 2 * F;
    for (int64_t f = 0; f < F; ++f) row[f] = gate[f] / (1.0f + std::exp(-gate[f])) * gate[F + f];
    store_activations(row.data(), out, t);
  }
}

}  // namespace

const OpSet& ref_ops() {
  static const OpSet set{"ref", quantize, rms_norm, rope_append,
                         attention, act_mul, kKvTypes};
  return set;
}

}  // namespace tandem
