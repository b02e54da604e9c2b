// Linear with weights whose codes stand for real numbers: E4M3 with a scale for each row or each 128
// of a row; nf4, fp4 and code books with absmax for each group; fp32 products, added in the order of k
// whatever the number of tokens.
//
// Layout (prepack): panels of kLanes rows, one row a lane: codes [K][kLanes] bytes, or [K / 2][kLanes]
// with the even channel in the low nibble; then scales [groups][kLanes], f32. Rows beyond N are zero.
// E4M3 becomes f32 by way of f16, which has its bits further left; a place in a table of 16 numbers is
// one permutation of a register, or two. A group's sum is scaled once.
// Work and bytes as in linear_float.h. Activations that are E4M3 are decoded once for all rows.
#pragma once

template <class S, Packing packing>
struct TableLinear {
  using F = typename S::F;
  static constexpr int kLanes = S::kLanes;
  static constexpr bool kNibbles =
      packing == Packing::nf4 || packing == Packing::fp4 || packing == Packing::codebook;
  static constexpr int kTokens = S::kTileTokens;

  static int64_t code_bytes(int64_t K) { return (kNibbles ? (K + 1) / 2 : K) * kLanes; }
  static int64_t panel_bytes(const Encoding& encoding, int64_t K) {
    return code_bytes(K) + encoding.groups_per_row(K) * kLanes * static_cast<int64_t>(sizeof(float));
  }

  // sums[i] += the products of channels [begin, end) with token i.
  template <int MB>
  static void add_group(const float* values, const uint8_t* codes, const float* x, int64_t ldx, int64_t begin,
                        int64_t end, F (&sums)[MB]) {
    if constexpr (kNibbles) {
      const auto table = S::load_table(values);
      for (int64_t k = begin; k < end; k += 2) {
        F even, odd;
        S::look_up(table, codes + k / 2 * kLanes, even, odd);
#pragma GCC unroll 8
        for (int i = 0; i < MB; ++i) {
          sums[i] = S::fma(S::set(x[i * ldx + k]), even, sums[i]);
          sums[i] = S::fma(S::set(x[i * ldx + k + 1]), odd, sums[i]);
        }
      }
    } else {
      for (int64_t k = begin; k < end; ++k) {
        const F w = S::load_e4m3(codes + k * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < MB; ++i) sums[i] = S::fma(S::set(x[i * ldx + k]), w, sums[i]);
      }
    }
  }

  static const float* values_of(const PackedWeight& w) {
    return packing == Packing::codebook ? w.table : lookup_values(packing);
  }

  template <int MB>
  static void tile(const PackedWeight& w, const std::byte* panel, const float* x, float* y, int64_t ldy,
                   int64_t lanes, bool accumulate) {
    const Encoding& encoding = w.encoding;
    const int64_t K = w.K;
    const auto* codes = reinterpret_cast<const uint8_t*>(panel);
    const auto* scales = reinterpret_cast<const float*>(panel + code_bytes(K));
    const int64_t group = encoding.group == 0 ? K : encoding.group;
    F totals[MB];
#pragma GCC unroll 8
    for (int i = 0; i < MB; ++i) totals[i] = S::zero();
    for (int64_t begin = 0; begin < K; begin += group, scales += kLanes) {
      F sums[MB];
#pragma GCC unroll 8
      for (int i = 0; i < MB; ++i) sums[i] = S::zero();
      add_group<MB>(values_of(w), codes, x, K, begin, std::min(begin + group, K), sums);
      const F scale = S::load(scales);
#pragma GCC unroll 8
      for (int i = 0; i < MB; ++i) totals[i] = S::fma(sums[i], scale, totals[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < MB; ++i) {
      float* p = y + i * ldy;
      if (lanes == kLanes) {
        S::store(p, accumulate ? S::add(S::load(p), totals[i]) : totals[i]);
      } else {
        S::store_first(p, accumulate ? S::add(S::load_first(p, lanes), totals[i]) : totals[i], lanes);
      }
    }
  }

  template <int MB>
  static void tokens(const PackedWeight& w, const std::byte* panel, const float* x, int64_t T, int64_t t,
                     float* y, int64_t ldy, int64_t lanes, bool accumulate) {
    for (; t + MB <= T; t += MB) {
      tile<MB>(w, panel, x + t * w.K, y + t * ldy, ldy, lanes, accumulate);
    }
    if constexpr (MB > 1) tokens<MB / 2>(w, panel, x, T, t, y, ldy, lanes, accumulate);
  }

  // E4M3 activations as floats, scales included; [T, K].
  static const float* decoded(const Activations& x) {
    thread_local std::vector<float> values;
    static const std::vector<float> table = [] {
      std::vector<float> all(256);
      for (int code = 0; code < 256; ++code) all[code] = e4m3_to_float(static_cast<uint8_t>(code));
      return all;
    }();
    if (static_cast<int64_t>(values.size()) < x.T * x.K) values.resize(static_cast<size_t>(x.T * x.K));
    for (int64_t t = 0; t < x.T; ++t) {
      const auto* codes = reinterpret_cast<const uint8_t*>(x.codes + t * x.K_padded());
      for (int64_t begin = 0, g = 0; begin < x.K; begin += x.group(), ++g) {
        const float scale = x.scales[g * x.T + t];
        for (int64_t k = begin; k < std::min(begin + x.group(), x.K); ++k) {
          values[t * x.K + k] = table[codes[k]] * scale;
        }
      }
    }
    return values.data();
  }

  static void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
                  bool accumulate) {
    constexpr ActType kActType = packing == Packing::fp8_channel  ? ActType::fp8_token
                                 : packing == Packing::fp8_block  ? ActType::fp8_block
                                 : packing == Packing::fp8_static ? ActType::fp8_static
                                                                  : ActType::f32;
    CHECK(x.K == w.K && ldy >= w.N && x.type == kActType, "K {} {} ldy {} N {}", x.K, w.K, ldy, w.N);
    const float* in = kActType == ActType::f32 ? x.f32 : decoded(x);
    const int64_t bytes = panel_bytes(w.encoding, w.K), panels = (w.N + kLanes - 1) / kLanes;
    const int64_t chunk = std::max<int64_t>(1, panels / (context.pool->size() * 6));
    context.pool->parallel_for(panels, chunk, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t lanes = std::min<int64_t>(kLanes, w.N - p * kLanes);
        tokens<kTokens>(w, w.data + p * bytes, in, x.T, 0, y + p * kLanes, ldy, lanes, accumulate);
      }
    });
  }

  static PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
    PackedWeight w;
    w.encoding = parts.front().encoding;
    w.K = parts.front().K;
    std::vector<std::pair<const Weight*, int64_t>> rows;  // with their places in the file
    for (const Weight& part : parts) {
      CHECK(part.encoding == w.encoding && part.K == w.K, "stacked {} on {}", part.encoding.name(),
            w.encoding.name());
      for (int64_t n = 0; n < part.N; ++n) rows.emplace_back(&part, part.stored_row(n));
    }
    w.N = static_cast<int64_t>(rows.size());
    w.read_bytes = total_bytes(parts);
    if (packing == Packing::codebook) std::copy_n(parts.front().table, 16, w.table);
    const int64_t bytes = panel_bytes(w.encoding, w.K), panels = (w.N + kLanes - 1) / kLanes;
    w.data_bytes = static_cast<uint64_t>(panels * bytes);
    std::byte* const data = arena.take(w.data_bytes);
    w.data = data;
    context.pool->parallel_for(panels, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t lanes = std::min<int64_t>(kLanes, w.N - p * kLanes);
        for (int64_t lane = 0; lane < lanes; ++lane) {
          const auto& [part, row] = rows[p * kLanes + lane];
          pack_row(*part, row, lane, data + p * bytes);
        }
      }
    });
    return w;
  }

  static void pack_row(const Weight& part, int64_t row, int64_t lane, std::byte* panel) {
    const int64_t row_bytes = static_cast<int64_t>(part.encoding.row_bytes(part.K));
    const auto* codes = reinterpret_cast<const uint8_t*>(part.data + row * row_bytes);
    auto* out = reinterpret_cast<uint8_t*>(panel) + lane;
    for (int64_t i = 0; i < row_bytes; ++i) {
      out[i * kLanes] = kNibbles ? static_cast<uint8_t>(codes[i] >> 4 | codes[i] << 4) : codes[i];
    }
    const int64_t groups = part.encoding.groups_per_row(part.K);
    auto* scales = reinterpret_cast<float*>(panel + code_bytes(part.K)) + lane;
    const auto step = static_cast<int64_t>(scale_bytes(part.encoding.scale_type));
    for (int64_t g = 0; g < groups; ++g) {
      const float scale = load_scale(part.scales + (row * groups + g) * step, part.encoding.scale_type);
      scales[g * kLanes] = kNibbles ? scale : scale * S::kE4m3Unit;
    }
  }

  static void decode_row(const PackedWeight& w, int64_t n, float* out) {
    CHECK(n >= 0 && n < w.N, "row {} of {}", n, w.N);
    const std::byte* panel = w.data + n / kLanes * panel_bytes(w.encoding, w.K);
    const auto* codes = reinterpret_cast<const uint8_t*>(panel) + n % kLanes;
    const auto* scales = reinterpret_cast<const float*>(panel + code_bytes(w.K)) + n % kLanes;
    const int64_t group = w.encoding.group == 0 ? w.K : w.encoding.group;
    for (int64_t k = 0; k < w.K; ++k) {
      const float scale = scales[k / group * kLanes];
      if constexpr (kNibbles) {
        out[k] = values_of(w)[codes[k / 2 * kLanes] >> (k % 2 * 4) & 15] * scale;
      } else {
        out[k] = e4m3_to_float(codes[k * kLanes]) * (scale / S::kE4m3Unit);
      }
    }
  }
};
