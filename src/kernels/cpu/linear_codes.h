// Linear with integer weights and int8 activations.
//
//   y[t,n] = sum over groups g of  s[n,g] * (sum over blocks b of g of  a[t,b] * (codes[n] . x[t])_b)
//                                + m[n,g] * (sum over b of  a[t,b] * sum(x[t])_b)
// where w = code * s + m (tensor/weight.h) and x = code * a. x.type int8_block: b is 32 channels;
// int8_token, int8_static: b is the whole row, so the inner sums stay integers to the end (K <= 65536); int8_outlier:
// the same for each plane of the codes.
//
// Layout (prepack): panels of kLanes rows, one row a lane. A panel holds, for each group: the scales of
// its rows [kLanes], the minimums or the zero points (bytes) [kLanes] when the encoding stores them, then for
// each 32 channels the codes as PairPlanes (2, 3 bits), dot_block4, CodePlanes (5 bits) or dot_block8 wants them. int8_channel: all codes first, then f32
// scales. Rows beyond N have zero scales; channels beyond K are zero-valued codes. Pieces are read unaligned.
//
// Constraints: a group is a multiple of 32 channels and divides K; without groups K is free up to 65536.
//
// Work: panels are handed to threads on demand; within a panel, tiles of kTileTokens tokens. One token
// reads each byte of the matrix once (bound by memory); many tokens cost 2 N K T operations (bound by
// vpdpbusd), and re-read x from the second-level cache once a panel.
//
// Tried and lost: weights in 4 KiB pages (decode at 0.92 of the speed in huge pages); no prefetch (8 tokens
// at 0.65, one token the same).
#pragma once

// How an encoding's scales are stored in a panel.
enum class PanelScale { f16, bf16, f32 };

// A code format: bits of a code, whether minimums or zero points are stored, how scales are stored. Without
// either, m = -kZero * s, which signed codes need not add.
template <int Bits, bool HasMin, PanelScale Scale, bool HasZero = false>
struct CodeFormat {
  static_assert(!(HasMin && HasZero));
  static constexpr bool kHasZero = HasZero;
  static constexpr int kBits = Bits;
  static constexpr bool kHasMin = HasMin;
  static constexpr PanelScale kScale = Scale;
  static constexpr int kScaleBytes = Scale == PanelScale::f32 ? 4 : 2;
  static constexpr float kZero = Bits == 4 ? 8.0f : Bits == 5 ? 16.0f : 128.0f;
};

template <class S, class Format>
struct CodesLinear {
  using F = typename S::F;
  using I = typename S::I;
  static constexpr int kLanes = S::kLanes;
  static constexpr int64_t kBlockBytes = Format::kBits * 4 * kLanes;  // 32 channels of kLanes rows
  static constexpr int64_t kHeadBytes =
      Format::kScaleBytes * kLanes * (Format::kHasMin ? 2 : 1) + (Format::kHasZero ? kLanes : 0);
  static constexpr int64_t kPrefetchBytes = 2048;
  static constexpr int64_t kMaxUngroupedK = 65536;  // times 255 * 127 is just below 2^31
  static constexpr bool kAddsMin = Format::kHasMin || Format::kHasZero || Format::kBits < 8 || !S::kSignedBytes;
  // What is missing from a code as a panel keeps it.
  static constexpr float kCodeOffset = Format::kBits == 8 && S::kSignedBytes ? 128.0f : 0.0f;

  static F load_scales(const std::byte* p) {
    if constexpr (Format::kScale == PanelScale::f16) {
      return S::load_f16(reinterpret_cast<const uint16_t*>(p));
    } else if constexpr (Format::kScale == PanelScale::bf16) {
      return S::load_bf16(reinterpret_cast<const uint16_t*>(p));
    } else {
      return S::load(reinterpret_cast<const float*>(p));
    }
  }

  static int64_t panel_bytes(int64_t K_padded, int64_t group) {
    return K_padded / group * (kHeadBytes + group / kActBlock * kBlockBytes);
  }

  template <int MB>
  static void dot_block(const std::byte* codes, const int8_t* x, int64_t ldx, I (&sums)[MB]) {
    const auto* c = reinterpret_cast<const uint8_t*>(codes);
    if constexpr (Format::kBits < 4) {
      PairPlanes<S, Format::kBits>::template dot<MB>(c, x, ldx, sums);
    } else if constexpr (Format::kBits == 4) {
      S::template dot_block4<MB>(c, x, ldx, sums);
    } else if constexpr (Format::kBits == 5) {
      CodePlanes<S, 5>::template dot<MB>(c, x, ldx, sums, sums);
    } else {
      S::template dot_block8<MB>(c, x, ldx, sums);
    }
  }

  // The first tile of a panel reads it from memory: asks for what comes kPrefetchBytes later, across the
  // end of the panel, where the next one begins.
  static void prefetch(const std::byte* p) {
    for (int64_t line = 0; line < kBlockBytes + kHeadBytes; line += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(p + kPrefetchBytes + line), _MM_HINT_T0);
    }
  }

  // One panel times MB tokens, scales by block of activations.
  template <int MB>
  static void tile_blocks(const std::byte* panel, int64_t group, const Activations& x, int64_t t,
                          F (&y)[MB]) {
    const int64_t blocks = x.K_padded() / kActBlock, blocks_per_group = group / kActBlock;
    const int64_t ldx = x.K_padded();
    const int8_t* codes = x.codes + t * ldx;
    const float* scales = x.scales + t;
    const float* sums = x.sums + t;
    for (int64_t b = 0; b < blocks;) {
      const F s = load_scales(panel);
      F m;
      if constexpr (Format::kHasMin) {
        m = load_scales(panel + kLanes * Format::kScaleBytes);
      } else if constexpr (Format::kHasZero) {
        const F zero = S::load_uint8(reinterpret_cast<const uint8_t*>(panel) + kLanes * Format::kScaleBytes);
        m = S::mul(s, S::sub(S::set(kCodeOffset), zero));
      } else {
        m = S::mul(s, S::set(-Format::kZero));
      }
      panel += kHeadBytes;
      for (const int64_t end = b + blocks_per_group; b < end; ++b, panel += kBlockBytes) {
        if (t == 0) prefetch(panel);
        I dots[MB];
#pragma GCC unroll 8
        for (int i = 0; i < MB; ++i) dots[i] = S::zero_int();
        dot_block<MB>(panel, codes + b * kActBlock, ldx, dots);
#pragma GCC unroll 8
        for (int i = 0; i < MB; ++i) {
          const F scale = S::mul(s, S::set(scales[b * x.T + i]));
          y[i] = S::fma(S::to_float(dots[i]), scale, y[i]);
          if constexpr (kAddsMin) y[i] = S::fma(m, S::set(sums[b * x.T + i]), y[i]);
        }
      }
    }
  }

  // One panel times MB tokens, one scale a row and one a token.
  template <int MB>
  static void tile_channel(const std::byte* panel, const Activations& x, int64_t t, F (&y)[MB]) {
    const int64_t blocks = x.K_padded() / kActBlock, ldx = x.K_padded();
    I dots[MB];
#pragma GCC unroll 8
    for (int i = 0; i < MB; ++i) dots[i] = S::zero_int();
    for (int64_t b = 0; b < blocks; ++b, panel += kBlockBytes) {
      if (t == 0) prefetch(panel);
      dot_block<MB>(panel, x.codes + t * ldx + b * kActBlock, ldx, dots);
    }
    const F s = load_scales(panel);
#pragma GCC unroll 8
    for (int i = 0; i < MB; ++i) {
      y[i] = S::mul(S::to_float(dots[i]), S::mul(s, S::set(x.scales[t + i])));
      if constexpr (kAddsMin) y[i] = S::fma(S::mul(s, S::set(-Format::kZero)), S::set(x.sums[t + i]), y[i]);
    }
  }

  // The same with outliers apart: a token's three planes are three rows of codes, and most tokens'
  // second and third are zero.
  static F token_outliers(const std::byte* panel, const Activations& x, int64_t t) {
    const int64_t blocks = x.K_padded() / kActBlock, ldx = x.K_padded();
    const int8_t* codes = x.codes + t * x.planes() * ldx;
    const float outlier_scale = x.scales[x.T + t];
    const F s = load_scales(panel + blocks * kBlockBytes);
    I dots[3] = {S::zero_int(), S::zero_int(), S::zero_int()};
    F sum;
    if (outlier_scale == 0) {
      I dot[1] = {S::zero_int()};
      for (int64_t b = 0; b < blocks; ++b) dot_block<1>(panel + b * kBlockBytes, codes + b * kActBlock, ldx, dot);
      sum = S::mul(S::to_float(dot[0]), S::set(x.scales[t]));
    } else {
      for (int64_t b = 0; b < blocks; ++b) dot_block<3>(panel + b * kBlockBytes, codes + b * kActBlock, ldx, dots);
      const F outliers = S::fma(S::to_float(dots[1]), S::set(float{kOutlierRadix}), S::to_float(dots[2]));
      sum = S::fma(outliers, S::set(outlier_scale), S::mul(S::to_float(dots[0]), S::set(x.scales[t])));
    }
    if constexpr (kAddsMin) sum = S::fma(S::set(-Format::kZero), S::set(x.sums[t]), sum);
    return S::mul(s, sum);
  }

  template <int MB>
  static void tile(const std::byte* panel, int64_t group, const Activations& x, int64_t t, float* y,
                   int64_t ldy, int64_t lanes, bool accumulate) {
    F out[MB];
#pragma GCC unroll 8
    for (int i = 0; i < MB; ++i) out[i] = S::zero();
    if (x.type == ActType::int8_token || x.type == ActType::int8_static) {
      tile_channel<MB>(panel, x, t, out);
    } else if (x.type == ActType::int8_outlier) {
      for (int i = 0; i < MB; ++i) out[i] = token_outliers(panel, x, t + i);
    } else {
      tile_blocks<MB>(panel, group, x, t, out);
    }
#pragma GCC unroll 8
    for (int i = 0; i < MB; ++i) {
      float* p = y + (t + i) * ldy;
      if (lanes == kLanes) {
        S::store(p, accumulate ? S::add(S::load(p), out[i]) : out[i]);
      } else {
        S::store_first(p, accumulate ? S::add(S::load_first(p, lanes), out[i]) : out[i], lanes);
      }
    }
  }

  // Tokens [t, t_end) in tiles of MB, then of less.
  template <int MB>
  static void tokens(const std::byte* panel, int64_t group, const Activations& x, int64_t t, float* y,
                     int64_t ldy, int64_t lanes, bool accumulate) {
    for (; t + MB <= x.T; t += MB) tile<MB>(panel, group, x, t, y, ldy, lanes, accumulate);
    if constexpr (MB > 1) tokens<MB / 2>(panel, group, x, t, y, ldy, lanes, accumulate);
  }

  // The group length in channels as the panel sees it: int8_channel has one group, the whole row.
  static int64_t panel_group(const PackedWeight& w, int64_t K_padded) {
    return w.encoding.group == 0 ? K_padded : w.encoding.group;
  }

  static void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
                  bool accumulate) {
    CHECK(x.K == w.K && ldy >= w.N && x.type == w.kernel->act_type, "K {} {} ldy {} N {}", x.K, w.K, ldy, w.N);
    const int64_t group = panel_group(w, x.K_padded()), bytes = panel_bytes(x.K_padded(), group);
    const int64_t panels = (w.N + kLanes - 1) / kLanes;
    const int64_t chunk = std::max<int64_t>(1, panels / (context.pool->size() * 6));
    context.pool->parallel_for(panels, chunk, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t lanes = std::min<int64_t>(kLanes, w.N - p * kLanes);
        tokens<S::kTileTokens>(w.data + p * bytes, group, x, 0, y + p * kLanes, ldy, lanes, accumulate);
      }
    });
  }

  // Codes of kLanes rows [kLanes][K_padded] -> the block order of the panel, in words of four codes.
  static void store_block(const uint8_t* rows, int64_t K_padded, int64_t b, std::byte* out) {
    if constexpr (Format::kBits < 4) return PairPlanes<S, Format::kBits>::store(rows + b * kActBlock, K_padded, out);
    if constexpr (Format::kBits == 5) return CodePlanes<S, 5>::store(rows + b * kActBlock, K_padded, out);
    const auto word = [&](int lane, int64_t k) {
      uint32_t four;
      std::memcpy(&four, rows + lane * K_padded + b * kActBlock + k, 4);
      return four;
    };
    for (int j = 0; j < (Format::kBits == 4 ? 4 : 8); ++j) {
      for (int lane = 0; lane < kLanes; ++lane) {
        uint32_t four = word(lane, 4 * j);
        if constexpr (Format::kBits == 4) {
          four |= word(lane, 16 + 4 * j) << 4;
        } else if constexpr (S::kSignedBytes) {
          four ^= 0x80808080u;
        }
        std::memcpy(out + (j * kLanes + lane) * 4, &four, 4);
      }
    }
  }

  static ScaleType scale_type() {
    return Format::kScale == PanelScale::f16    ? ScaleType::f16
           : Format::kScale == PanelScale::bf16 ? ScaleType::bf16
                                                : ScaleType::f32;
  }

  static PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
    PackedWeight w;
    w.encoding = parts.front().encoding;
    w.K = parts.front().K;
    std::vector<std::pair<const Weight*, int64_t>> rows;  // logical row -> part and row within it
    for (const Weight& part : parts) {
      CHECK(part.encoding == w.encoding && part.K == w.K && same_columns(part, parts.front()),
            "stacked {} K {} on {} K {}", part.encoding.name(), part.K, w.encoding.name(), w.K);
      for (int64_t n = 0; n < part.N; ++n) rows.emplace_back(&part, n);
    }
    w.N = static_cast<int64_t>(rows.size());
    w.read_bytes = total_bytes(parts);
    const int64_t K_padded = (w.K + kActBlock - 1) / kActBlock * kActBlock;
    const int64_t group = panel_group(w, K_padded), bytes = panel_bytes(K_padded, group);
    if (w.encoding.group == 0 && K_padded > kMaxUngroupedK) {
      fail(ErrorKind::no_device, "{} weights of width {}: the 32-bit sums of {} hold at most {}",
           w.encoding.name(), w.K, S::kIsa, kMaxUngroupedK);
    }
    CHECK(group % kActBlock == 0 && K_padded % group == 0, "K {} group {}", w.K, group);
    const int64_t panels = (w.N + kLanes - 1) / kLanes, groups = K_padded / group;
    w.data_bytes = static_cast<uint64_t>(panels * bytes);
    std::byte* const data = arena.take(w.data_bytes);
    w.data = data;
    if (parts.front().columns != nullptr) {
      auto* columns = reinterpret_cast<int32_t*>(arena.take(parts.front().columns_bytes()));
      std::copy_n(parts.front().columns, w.K, columns);
      w.columns = columns;
    }
    context.pool->parallel_for(panels, 4, [&](int64_t begin, int64_t end, int) {
      // Channels beyond K keep the code that means zero.
      std::vector<uint8_t> codes(static_cast<size_t>(kLanes * K_padded), uint8_t(Format::kZero));
      std::vector<float> scales(static_cast<size_t>(kLanes * groups)), mins(scales.size());
      std::vector<uint8_t> zeros(Format::kHasZero ? scales.size() : 0);
      for (int64_t p = begin; p < end; ++p) {
        std::byte* out = data + p * bytes;
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          const int64_t n = p * kLanes + lane;
          if (n < w.N) {
            decode_row_codes(*rows[n].first, rows[n].second, &codes[lane * K_padded], &scales[lane * groups],
                             &mins[lane * groups]);
            if constexpr (Format::kHasZero) {
              const auto& [part, row] = rows[n];
              std::copy_n(part->zeros + part->stored_row(row) * groups, groups, &zeros[lane * groups]);
            }
          } else {
            std::fill_n(&scales[lane * groups], groups, 0.0f);
            std::fill_n(&mins[lane * groups], groups, 0.0f);
          }
        }
        const bool scales_last = w.encoding.group == 0;
        for (int64_t g = 0; g < groups; ++g) {
          const auto store_head = [&] {
            for (int64_t lane = 0; lane < kLanes; ++lane) {
              store_scale(out + lane * Format::kScaleBytes, scale_type(), scales[lane * groups + g]);
              if constexpr (Format::kHasMin) {
                store_scale(out + (kLanes + lane) * Format::kScaleBytes, scale_type(), mins[lane * groups + g]);
              }
              if constexpr (Format::kHasZero) {
                out[kLanes * Format::kScaleBytes + lane] = static_cast<std::byte>(zeros[lane * groups + g]);
              }
            }
            out += kHeadBytes;
          };
          if (!scales_last) store_head();
          for (int64_t b = g * group / kActBlock; b < (g + 1) * group / kActBlock; ++b, out += kBlockBytes) {
            store_block(codes.data(), K_padded, b, out);
          }
          if (scales_last) store_head();
        }
      }
    });
    return w;
  }

  // out[K] = row n: the inverse of prepack for one row.
  static void decode_row(const PackedWeight& w, int64_t n, float* out) {
    CHECK(n >= 0 && n < w.N, "row {} of {}", n, w.N);
    const int64_t K_padded = (w.K + kActBlock - 1) / kActBlock * kActBlock;
    const int64_t group = panel_group(w, K_padded), lane = n % kLanes;
    const std::byte* p = w.data + n / kLanes * panel_bytes(K_padded, group);
    const bool scales_last = w.encoding.group == 0;
    for (int64_t g = 0; g < K_padded / group; ++g) {
      const std::byte* head = scales_last ? p + group / kActBlock * kBlockBytes : p;
      const float s = load_scale(head + lane * Format::kScaleBytes, scale_type());
      float m = 0;
      if constexpr (Format::kHasMin) m = load_scale(head + (kLanes + lane) * Format::kScaleBytes, scale_type());
      float zero = Format::kHasMin ? 0.0f : Format::kZero;
      if constexpr (Format::kHasZero) zero = static_cast<float>(head[kLanes * Format::kScaleBytes + lane]);
      if (!scales_last) p += kHeadBytes;
      for (int64_t k = g * group; k < std::min((g + 1) * group, w.K); ++k) {
        const int64_t i = k % kActBlock;
        const auto* block = reinterpret_cast<const uint8_t*>(p) + (k - g * group) / kActBlock * kBlockBytes;
        uint8_t code;
        if constexpr (Format::kBits < 4) {
          code = PairPlanes<S, Format::kBits>::code(reinterpret_cast<const std::byte*>(block), lane, i);
        } else if constexpr (Format::kBits == 5) {
          code = CodePlanes<S, 5>::code(reinterpret_cast<const std::byte*>(block), lane, i);
        } else if constexpr (Format::kBits == 4) {
          code = block[(i % 16 / 4 * kLanes + lane) * 4 + i % 4] >> (i / 16 * 4) & 15;
        } else {
          code = block[(i / 4 * kLanes + lane) * 4 + i % 4] ^ (S::kSignedBytes ? 0x80 : 0);
        }
        out[w.columns == nullptr ? k : w.columns[k]] = (static_cast<float>(code) - zero) * s + m;
      }
      p += group / kActBlock * kBlockBytes;
    }
  }
};

// Chooses the instance by the scale type of the weight at hand, for one packing's row of the table.
template <class S, int Bits, bool HasZero = false>
struct CodesLinearAnyScale {
  template <PanelScale Scale>
  using Linear = CodesLinear<S, CodeFormat<Bits, false, Scale, HasZero>>;

  static PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
    switch (parts.front().encoding.scale_type) {
      case ScaleType::f16: return Linear<PanelScale::f16>::prepack(context, parts, arena);
      case ScaleType::bf16: return Linear<PanelScale::bf16>::prepack(context, parts, arena);
      default: return Linear<PanelScale::f32>::prepack(context, parts, arena);
    }
  }
  static void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
                  bool accumulate) {
    switch (w.encoding.scale_type) {
      case ScaleType::f16: return Linear<PanelScale::f16>::run(context, w, x, y, ldy, accumulate);
      case ScaleType::bf16: return Linear<PanelScale::bf16>::run(context, w, x, y, ldy, accumulate);
      default: return Linear<PanelScale::f32>::run(context, w, x, y, ldy, accumulate);
    }
  }
  static void decode_row(const PackedWeight& w, int64_t n, float* out) {
    switch (w.encoding.scale_type) {
      case ScaleType::f16: return Linear<PanelScale::f16>::decode_row(w, n, out);
      case ScaleType::bf16: return Linear<PanelScale::bf16>::decode_row(w, n, out);
      default: return Linear<PanelScale::f32>::decode_row(w, n, out);
    }
  }
};
