// Norm, activation, RoPE and the quantization of activations, a token at a time. Bound by memory and
// small beside the linears; the codes are those of ref/ops.cpp bit for bit, given the same floats.
#pragma once

template <class S>
struct Elementwise {
  using F = typename S::F;
  using I = typename S::I;
  static constexpr int kLanes = S::kLanes;

  // x[n] -> codes[n], n a multiple of kLanes; gives their sum. max_abs is NaN or infinite when x is.
  static int32_t quantize_span(const float* x, int64_t n, float inverse, int8_t* codes) {
    I sum = S::zero_int();
    for (int64_t k = 0; k < n; k += kLanes) {
      sum = S::add(sum, S::store_int8(codes + k, S::mul(S::load(x + k), S::set(inverse))));
    }
    return S::reduce_add(sum);
  }

  static float max_abs_span(const float* x, int64_t n) {
    F max = S::zero();
    F probe = S::zero();  // NaN once any x is NaN or infinite: 0 * x is not 0
    for (int64_t k = 0; k < n; k += kLanes) {
      const F v = S::load(x + k);
      max = S::max(max, S::abs(v));
      probe = S::fma(v, S::zero(), probe);
    }
    return S::reduce_max(max) + S::reduce_add(probe);
  }

  static void quantize_padded_fp8(const float* row, const Activations& out, int64_t t) {
    const int64_t K = out.K_padded();
    auto* codes = reinterpret_cast<uint8_t*>(out.codes + t * K);
    for (int64_t begin = 0, g = 0; begin < K; begin += out.group(), ++g) {
      const int64_t end = std::min(begin + out.group(), K);
      const float max_abs = max_abs_span(row + begin, end - begin);
      const bool finite = std::isfinite(max_abs);
      const float factor = max_abs > kSmallestMaxAbs && finite ? kMaxE4M3 / max_abs : 0.0f;
      for (int64_t k = begin; k < end; ++k) codes[k] = factor > 0 ? float_to_e4m3(row[k] * factor) : 0;
      out.scales[g * out.T + t] = finite ? max_abs / kMaxE4M3 : NAN;
    }
  }

  static void quantize_padded_static(const float* row, const Activations& out, int64_t t) {
    const int64_t K = out.K_padded();
    int8_t* codes = out.codes + t * K;
    const bool finite = std::isfinite(max_abs_span(row, K));
    int32_t sum = 0;
    for (int64_t k = 0; k < K; ++k) {
      const float scaled = finite ? row[k] / out.static_scale : 0.0f;
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

  static void quantize_padded_outliers(const float* row, const Activations& out, int64_t t) {
    const int64_t K = out.K_padded();
    const bool finite = std::isfinite(max_abs_span(row, K));
    float max_below = 0, max_outlier = 0;
    for (int64_t k = 0; k < K; ++k) {
      const float magnitude = std::fabs(row[k]);
      const bool is_outlier = !(magnitude < kOutlierThreshold);
      max_below = std::max(max_below, is_outlier ? 0.0f : magnitude);
      max_outlier = std::max(max_outlier, is_outlier ? magnitude : 0.0f);
    }
    const float inverse = max_below > kSmallestMaxAbs ? 127.0f / max_below : 0.0f;
    int8_t* codes = out.codes + t * 3 * K;
    std::fill_n(codes, 3 * K, int8_t{0});
    int32_t sum = 0, outlier_sum = 0;
    for (int64_t k = 0; k < K && finite; ++k) {
      const bool is_outlier = !(std::fabs(row[k]) < kOutlierThreshold);
      codes[k] = static_cast<int8_t>(std::nearbyintf(is_outlier ? 0.0f : row[k] * inverse));
      sum += codes[k];
    }
    for (int64_t k = 0; k < K && finite && max_outlier > 0; ++k) {
      if (std::fabs(row[k]) < kOutlierThreshold) continue;
      const auto code = static_cast<int32_t>(std::nearbyintf(row[k] * (kLargestOutlierCode / max_outlier)));
      codes[K + k] = static_cast<int8_t>(outlier_high(code));
      codes[2 * K + k] = static_cast<int8_t>(code - kOutlierRadix * codes[K + k]);
      outlier_sum += code;
    }
    const float scale = max_below / 127.0f;
    const float outlier_scale = finite ? max_outlier / kLargestOutlierCode : NAN;
    out.scales[t] = scale;
    out.scales[out.T + t] = outlier_scale;
    out.sums[t] = std::fma(outlier_scale, static_cast<float>(outlier_sum), scale * static_cast<float>(sum));
  }

  // row[K_padded], zero beyond K, -> codes, scales and sums of token t.
  static void quantize_padded(const float* row, const Activations& out, int64_t t) {
    if (out.type == ActType::fp8_static || out.type == ActType::int8_static) {
      quantize_padded_static(row, out, t);
      return;
    }
    if (is_fp8(out.type)) {
      quantize_padded_fp8(row, out, t);
      return;
    }
    if (out.type == ActType::int8_outlier) {
      quantize_padded_outliers(row, out, t);
      return;
    }
    const int64_t group = out.group();
    int8_t* codes = out.codes + t * out.K_padded();
    for (int64_t g = 0; g < out.groups(); ++g) {
      const float* x = row + g * group;
      const float max_abs = max_abs_span(x, group);
      const bool finite = std::isfinite(max_abs);
      const float inverse = max_abs > kSmallestMaxAbs && finite ? 127.0f / max_abs : 0.0f;
      const int32_t sum = finite ? quantize_span(x, group, inverse, codes + g * group) : 0;
      if (!finite) std::memset(codes + g * group, 0, static_cast<size_t>(group));
      const float scale = finite ? max_abs / 127.0f : NAN;
      out.scales[g * out.T + t] = scale;
      out.sums[g * out.T + t] = scale * static_cast<float>(sum);
    }
  }

  // Gives token t's row as floats to `fill(float* row)` to write, then stores it in out's type. Rows that
  // must be quantized or padded pass through a buffer.
  template <typename Fill>
  static void store_row(const Activations& out, int64_t t, Fill fill) {
    if (out.type == ActType::f32) {
      CHECK(out.columns == nullptr, "K {}", out.K);
      fill(out.f32 + t * out.K);
      return;
    }
    thread_local std::vector<float> row, ordered;
    if (static_cast<int64_t>(row.size()) < out.K_padded()) row.resize(static_cast<size_t>(out.K_padded()));
    fill(row.data());
    if (out.columns != nullptr) {
      ordered.resize(row.size());
      for (int64_t k = 0; k < out.K; ++k) ordered[k] = row[out.columns[k]];
      std::swap(row, ordered);
    }
    std::fill(row.begin() + out.K, row.begin() + out.K_padded(), 0.0f);
    quantize_padded(row.data(), out, t);
  }

  static void quantize(const Context& context, const float* x, int64_t ldx, const Activations& out) {
    context.pool->parallel_for(out.T, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        if (out.type != ActType::f32 && out.K == out.K_padded() && out.columns == nullptr) {
          quantize_padded(x + t * ldx, out, t);
        } else {
          store_row(out, t, [&](float* row) { std::copy_n(x + t * ldx, out.K, row); });
        }
      }
    });
  }

  static float sum_of_squares(const float* x, int64_t n) {
    F sums[2] = {S::zero(), S::zero()};
    int64_t k = 0;
    for (; k + 2 * kLanes <= n; k += 2 * kLanes) {
      const F a = S::load(x + k), b = S::load(x + k + kLanes);
      sums[0] = S::fma(a, a, sums[0]);
      sums[1] = S::fma(b, b, sums[1]);
    }
    float sum = S::reduce_add(S::add(sums[0], sums[1]));
    for (; k < n; ++k) sum += x[k] * x[k];
    return sum;
  }

  static void rms_norm(const Context& context, const float* x, int64_t T, int64_t C, const float* weight,
                       float eps, const Activations& out) {
    CHECK(out.T == T && out.K == C, "T {} {} C {} {}", out.T, T, out.K, C);
    context.pool->parallel_for(T, 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        const float* in = x + t * C;
        const float scale = 1.0f / std::sqrt(sum_of_squares(in, C) / static_cast<float>(C) + eps);
        store_row(out, t, [&](float* row) {
          int64_t c = 0;
          for (; c + kLanes <= C; c += kLanes) {
            S::store(row + c, S::mul(S::mul(S::load(in + c), S::set(scale)), S::load(weight + c)));
          }
          for (; c < C; ++c) row[c] = in[c] * scale * weight[c];
        });
      }
    });
  }

  static F silu_mul(F gate, F up) {
    const F e = S::exp(S::sub(S::zero(), gate));
    return S::mul(S::div(gate, S::add(S::set(1.0f), e)), up);
  }

  static void act_mul(const Context& context, const float* gate_up, int64_t T, int64_t Fw,
                      const Activations& out) {
    CHECK(out.T == T && out.K == Fw, "T {} {} F {} {}", out.T, T, out.K, Fw);
    context.pool->parallel_for(T, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        const float* gate = gate_up + t * 2 * Fw;
        const float* up = gate + Fw;
        store_row(out, t, [&](float* row) {
          int64_t f = 0;
          for (; f + kLanes <= Fw; f += kLanes) {
            S::store(row + f, silu_mul(S::load(gate + f), S::load(up + f)));
          }
          if (f < Fw) {
            const int64_t n = Fw - f;
            S::store_first(row + f, silu_mul(S::load_first(gate + f, n), S::load_first(up + f, n)), n);
          }
        });
      }
    });
  }

  static void rotate(float* head, int64_t D, const float* cos_sin) {
    const int64_t half = D / 2;
    int64_t d = 0;
    for (; d + kLanes <= half; d += kLanes) {
      const F a = S::load(head + d), b = S::load(head + d + half);
      const F c = S::load(cos_sin + d), s = S::load(cos_sin + half + d);
      S::store(head + d, S::sub(S::mul(a, c), S::mul(b, s)));
      S::store(head + d + half, S::fma(a, s, S::mul(b, c)));
    }
    for (; d < half; ++d) {
      const float a = head[d], b = head[d + half], c = cos_sin[d], s = cos_sin[half + d];
      head[d] = a * c - b * s;
      head[d + half] = b * c + a * s;
    }
  }

  static void norm_head(float* head, int64_t D, const float* weight, float eps) {
    const float scale = 1.0f / std::sqrt(sum_of_squares(head, D) / static_cast<float>(D) + eps);
    int64_t d = 0;
    for (; d + kLanes <= D; d += kLanes) {
      S::store(head + d, S::mul(S::mul(S::load(head + d), S::set(scale)), S::load(weight + d)));
    }
    for (; d < D; ++d) head[d] = head[d] * scale * weight[d];
  }

  // heads [(H + 2G) D] of one token.
  static void transform_heads(float* heads, const HeadTransform& transform, int64_t H, int64_t G, int64_t D) {
    if (transform.bias != nullptr) {
      const int64_t n = (H + 2 * G) * D;
      int64_t i = 0;
      for (; i + kLanes <= n; i += kLanes) {
        S::store(heads + i, S::add(S::load(heads + i), S::load(transform.bias + i)));
      }
      for (; i < n; ++i) heads[i] += transform.bias[i];
    }
    if (transform.q_norm == nullptr) return;
    for (int64_t h = 0; h < H + G; ++h) {
      norm_head(heads + h * D, D, h < H ? transform.q_norm : transform.k_norm, transform.eps);
    }
  }

  // x[D] -> the cache's element type, into row[D]; gives the scale of int8, NaN when an x is not finite.
  template <typename T>
  static float narrow(const float* x, int64_t D, T* row) {
    if constexpr (std::is_same_v<T, int8_t>) {
      float max_abs = 0, probe = 0;  // probe: NaN once any x is NaN or infinite
      for (int64_t d = 0; d < D; ++d) {
        max_abs = std::max(max_abs, std::fabs(x[d]));
        probe += x[d] * 0.0f;
      }
      const bool finite = probe == 0;
      if (!finite || max_abs <= kSmallestMaxAbs) {
        std::fill_n(row, D, T{0});
        return finite ? max_abs / 127.0f : NAN;
      }
      const float inverse = 127.0f / max_abs;
      for (int64_t d = 0; d < D; ++d) row[d] = static_cast<int8_t>(std::nearbyintf(x[d] * inverse));
      return max_abs / 127.0f;
    } else if constexpr (std::is_same_v<T, uint16_t>) {
      int64_t d = 0;
      for (; d + kLanes <= D; d += kLanes) S::store_bf16(row + d, S::load(x + d));
      for (; d < D; ++d) row[d] = float_to_bf16(x[d]);
      return 1;
    } else {
      std::copy_n(x, D, row);
      return 1;
    }
  }

  template <typename T>
  static void append_token(const float* k, const float* v, const KvCache& cache, int32_t page, int64_t layer,
                           int64_t g, int64_t token, T* row) {
    const KvLayout& layout = cache.layout;
    const int64_t D = layout.D;
    std::byte* base = cache.base + page * layout.page_bytes();
    T* k_tile = reinterpret_cast<T*>(base + layout.k_offset(layer, g)) + KvLayout::k_index(token, 0, D);
    const float k_scale = narrow(k, D, row);
    for (int64_t d = 0; d < D; ++d) k_tile[d * tandem::kTileTokens] = row[d];
    T* v_row = reinterpret_cast<T*>(base + layout.v_offset(layer, g)) + token * layout.D_padded();
    const float v_scale = narrow(v, D, v_row);
    if constexpr (std::is_same_v<T, int8_t>) {
      reinterpret_cast<float*>(base + layout.k_scales_offset(layer, g))[token] = k_scale;
      reinterpret_cast<float*>(base + layout.v_scales_offset(layer, g))[token] = v_scale;
    }
  }

  template <typename T>
  static void rope_append_type(const Context& context, float* qkv, const HeadTransform& transform,
                               const Batch& batch, int64_t H, const float* cos_sin, const KvCache& cache,
                               int64_t layer) {
    const int64_t D = cache.layout.D, G = cache.layout.G, ld = (H + 2 * G) * D;
    for (const SequenceSlice& sequence : batch.sequences) {
      context.pool->parallel_for(sequence.num_tokens, 16, [&](int64_t begin, int64_t end, int) {
        thread_local std::vector<T> row;
        if (static_cast<int64_t>(row.size()) < D) row.resize(static_cast<size_t>(D));
        for (int64_t i = begin; i < end; ++i) {
          const int64_t t = sequence.first_token + i;
          const int64_t position = sequence.context - sequence.num_tokens + i;
          float* heads = qkv + t * ld;
          transform_heads(heads, transform, H, G, D);
          for (int64_t h = 0; h < H + G; ++h) rotate(heads + h * D, D, cos_sin + t * D);
          for (int64_t g = 0; g < G; ++g) {
            append_token(heads + (H + g) * D, heads + (H + G + g) * D, cache,
                         sequence.pages[position / kPageTokens], layer, g, position % kPageTokens, row.data());
          }
        }
      });
    }
  }

  static void rope_append(const Context& context, float* qkv, const HeadTransform& transform,
                          const Batch& batch, int64_t H, const float* cos_sin, const KvCache& cache,
                          int64_t layer) {
    const auto run = [&]<typename T>() {
      rope_append_type<T>(context, qkv, transform, batch, H, cos_sin, cache, layer);
    };
    switch (cache.layout.type) {
      case KvType::f32: return run.template operator()<float>();
      case KvType::bf16: return run.template operator()<uint16_t>();
      case KvType::int8: return run.template operator()<int8_t>();
      default: CHECK(false, "cache of {}", kv_type_name(cache.layout.type));
    }
  }
};
