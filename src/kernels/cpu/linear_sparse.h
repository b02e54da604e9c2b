// Linear with 2:4 weights (tensor/sparse.h): what is not kept is neither read nor multiplied. f32
// activations, or int8 ones with one scale a token where the values are int8.
//
// Layout (prepack): panels of kLanes rows, one row a lane. For each 8 channels the four values kept,
// in pieces [kPieces][kLanes] of kPieceBytes, then their places [kLanes], a byte each; after all
// channels the scales [groups][kLanes] in the file's type, then for int8 the sums of a row's values.
// Rows beyond N are zero. Bits of a weight: those of the file.
// A lane picks its own activations: two of four floats by one in-lane permutation, four of eight bytes
// by one shuffle. Sums are added in the order of k whatever the number of tokens.
// Work and bytes as in linear_float.h: half of a dense matrix's products, one shuffle for each.
#pragma once

template <class S, Packing packing>
struct SparseLinear {
  using F = typename S::F;
  using I = typename S::I;
  static constexpr int kLanes = S::kLanes;
  static constexpr bool kIsInt8 = packing == Packing::int8_channel_24;
  static constexpr bool kIsInt4 = packing == Packing::int4_group_24;
  static constexpr int kPieceBytes = kIsInt8 ? 4 : kIsInt4 ? 1 : 2;
  static constexpr int kPieces = kIsInt8 ? 1 : kIsInt4 ? 2 : 4;
  static constexpr int64_t kValueBytes = kPieces * kPieceBytes * kLanes;
  static constexpr int64_t kUnitBytes = kValueBytes + kLanes;  // 8 channels of kLanes rows
  static constexpr int64_t kPrefetchBytes = 2048;
  static constexpr bool kHasSums = kIsInt8 && S::kPickedBias != 0;
  static constexpr ActType kActType = kIsInt8 ? ActType::int8_token : ActType::f32;

  static int64_t scale_step(const Encoding& encoding) {
    return static_cast<int64_t>(scale_bytes(encoding.scale_type)) * kLanes;
  }
  static int64_t panel_bytes(const Encoding& encoding, int64_t K) {
    return K / 8 * kUnitBytes + encoding.groups_per_row(K) * scale_step(encoding) +
           (kHasSums ? kLanes * int64_t{sizeof(int32_t)} : 0);
  }

  static F load_scales(const std::byte* p, ScaleType type) {
    if (type == ScaleType::f32) return S::load(reinterpret_cast<const float*>(p));
    const auto* half = reinterpret_cast<const uint16_t*>(p);
    return type == ScaleType::f16 ? S::load_f16(half) : S::load_bf16(half);
  }

  // The four values of eight channels, each in its row's lane.
  static void load_values(const std::byte* unit, F (&w)[4]) {
    if constexpr (kIsInt4) {
      const auto* p = reinterpret_cast<const uint8_t*>(unit);
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const I codes = S::load_codes(p + i * kLanes);
        w[2 * i] = S::sub(S::to_float(S::and_bytes(codes, 15)), S::set(8.0f));
        w[2 * i + 1] = S::sub(S::to_float(S::template shift<-4>(codes)), S::set(8.0f));
      }
    } else {
      const auto* p = reinterpret_cast<const uint16_t*>(unit);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        w[i] = packing == Packing::f16_24 ? S::load_f16(p + i * kLanes) : S::load_bf16(p + i * kLanes);
      }
    }
  }

  static void prefetch(const std::byte* p) {
    for (int64_t line = 0; line < kUnitBytes; line += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(p + kPrefetchBytes + line), _MM_HINT_T0);
    }
  }

  template <int MB>
  static void sum_floats(const PackedWeight& w, const std::byte* panel, const Activations& x, int64_t t,
                         F (&totals)[MB]) {
    const int64_t group = w.encoding.group == 0 ? w.K : w.encoding.group;
    const std::byte* scales = panel + w.K / 8 * kUnitBytes;
    const float* row = x.f32 + t * x.K;
    for (int64_t begin = 0; begin < w.K; begin += group, scales += scale_step(w.encoding)) {
      F sums[MB];
#pragma GCC unroll 8
      for (int i = 0; i < MB; ++i) sums[i] = S::zero();
      for (int64_t k = begin; k < begin + group; k += 8, panel += kUnitBytes) {
        if (t == 0) prefetch(panel);
        F v[4];
        load_values(panel, v);
        const I first = S::load_codes(reinterpret_cast<const uint8_t*>(panel + kValueBytes));
        const I places[4] = {first, S::template shift<-2>(first), S::template shift<-4>(first),
                             S::template shift<-6>(first)};
#pragma GCC unroll 8
        for (int i = 0; i < MB; ++i) {
          const float* eight = row + i * x.K + k;
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) sums[i] = S::fma(S::pick_of_four(eight + j / 2 * 4, places[j]), v[j], sums[i]);
        }
      }
      if constexpr (kIsInt4) {
        const F scale = load_scales(scales, w.encoding.scale_type);
#pragma GCC unroll 8
        for (int i = 0; i < MB; ++i) totals[i] = S::fma(sums[i], scale, totals[i]);
      } else {
#pragma GCC unroll 8
        for (int i = 0; i < MB; ++i) totals[i] = sums[i];
      }
    }
  }

  template <int MB>
  static void sum_codes(const PackedWeight& w, const std::byte* panel, const Activations& x, int64_t t,
                        F (&totals)[MB]) {
    I dots[MB];
#pragma GCC unroll 8
    for (int i = 0; i < MB; ++i) dots[i] = S::zero_int();
    for (int64_t k = 0; k < w.K; k += 8, panel += kUnitBytes) {
      if (t == 0) prefetch(panel);
      const I values = S::load_bytes(reinterpret_cast<const uint8_t*>(panel));
      const I places = S::spread_places(S::load_codes(reinterpret_cast<const uint8_t*>(panel + kValueBytes)));
#pragma GCC unroll 8
      for (int i = 0; i < MB; ++i) {
        dots[i] = S::dot_picked(dots[i], values, x.codes + (t + i) * x.K_padded() + k, places);
      }
    }
    const F scale = load_scales(panel, w.encoding.scale_type);
    if constexpr (kHasSums) {
      const auto* sums = reinterpret_cast<const uint8_t*>(panel + scale_step(w.encoding));
#pragma GCC unroll 8
      for (int i = 0; i < MB; ++i) dots[i] = S::sub(dots[i], S::load_bytes(sums));
    }
#pragma GCC unroll 8
    for (int i = 0; i < MB; ++i) {
      totals[i] = S::mul(S::to_float(dots[i]), S::mul(scale, S::set(x.scales[t + i])));
    }
  }

  template <int MB>
  static void tokens(const PackedWeight& w, const std::byte* panel, const Activations& x, int64_t t, float* y,
                     int64_t ldy, int64_t lanes, bool accumulate) {
    for (; t + MB <= x.T; t += MB) {
      F totals[MB];
#pragma GCC unroll 8
      for (int i = 0; i < MB; ++i) totals[i] = S::zero();
      if constexpr (kIsInt8) {
        sum_codes<MB>(w, panel, x, t, totals);
      } else {
        sum_floats<MB>(w, panel, x, t, totals);
      }
#pragma GCC unroll 8
      for (int i = 0; i < MB; ++i) {
        float* p = y + (t + i) * ldy;
        if (lanes == kLanes) {
          S::store(p, accumulate ? S::add(S::load(p), totals[i]) : totals[i]);
        } else {
          S::store_first(p, accumulate ? S::add(S::load_first(p, lanes), totals[i]) : totals[i], lanes);
        }
      }
    }
    if constexpr (MB > 1) tokens<MB / 2>(w, panel, x, t, y, ldy, lanes, accumulate);
  }

  static void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
                  bool accumulate) {
    CHECK(x.K == w.K && ldy >= w.N && x.type == kActType, "K {} {} ldy {} N {}", x.K, w.K, ldy, w.N);
    const int64_t bytes = panel_bytes(w.encoding, w.K), panels = (w.N + kLanes - 1) / kLanes;
    const int64_t chunk = std::max<int64_t>(1, panels / (context.pool->size() * 6));
    context.pool->parallel_for(panels, chunk, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t lanes = std::min<int64_t>(kLanes, w.N - p * kLanes);
        tokens<S::kTileTokens>(w, w.data + p * bytes, x, 0, y + p * kLanes, ldy, lanes, accumulate);
      }
    });
  }

  static PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
    PackedWeight w;
    w.encoding = parts.front().encoding;
    w.K = parts.front().K;
    CHECK(w.K % 8 == 0, "K {}", w.K);
    std::vector<std::pair<const Weight*, int64_t>> rows;  // with their places in the file
    for (const Weight& part : parts) {
      CHECK(part.encoding == w.encoding && part.K == w.K && part.mask == nullptr, "stacked {} on {}",
            part.encoding.name(), w.encoding.name());
      for (int64_t n = 0; n < part.N; ++n) rows.emplace_back(&part, part.stored_row(n));
    }
    w.N = static_cast<int64_t>(rows.size());
    w.read_bytes = total_bytes(parts);
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

  static void pack_row(const Weight& part, int64_t row, int64_t lane, std::byte* out) {
    const std::byte* values = part.data + row * static_cast<int64_t>(part.encoding.row_bytes(part.K));
    const std::byte* places = values + part.K / 8 * kPieces * kPieceBytes;
    int32_t sum = 0;
    for (int64_t u = 0; u < part.K / 8; ++u, values += kPieces * kPieceBytes, out += kUnitBytes) {
      for (int i = 0; i < kPieces; ++i) {
        std::memcpy(out + (i * kLanes + lane) * kPieceBytes, values + i * kPieceBytes, kPieceBytes);
      }
      out[kValueBytes + lane] = places[u];
      for (int i = 0; kHasSums && i < 4; ++i) sum += static_cast<int8_t>(values[i]);
    }
    const int64_t groups = part.encoding.groups_per_row(part.K);
    const auto step = static_cast<int64_t>(scale_bytes(part.encoding.scale_type));
    for (int64_t g = 0; g < groups && step > 0; ++g, out += scale_step(part.encoding)) {
      std::memcpy(out + lane * step, part.scales + (row * groups + g) * step, static_cast<size_t>(step));
    }
    sum *= S::kPickedBias;
    if constexpr (kHasSums) std::memcpy(out + lane * 4, &sum, sizeof sum);
  }

  static void decode_row(const PackedWeight& w, int64_t n, float* out) {
    CHECK(n >= 0 && n < w.N, "row {} of {}", n, w.N);
    const int64_t lane = n % kLanes, group = w.encoding.group == 0 ? w.K : w.encoding.group;
    const std::byte* panel = w.data + n / kLanes * panel_bytes(w.encoding, w.K);
    const std::byte* scales = panel + w.K / 8 * kUnitBytes;
    const auto step = static_cast<int64_t>(scale_bytes(w.encoding.scale_type));
    std::fill_n(out, w.K, 0.0f);
    for (int64_t k = 0; k < w.K; k += 8, panel += kUnitBytes) {
      const auto places = static_cast<uint8_t>(panel[kValueBytes + lane]);
      const float scale =
          load_scale(scales + k / group * scale_step(w.encoding) + lane * step, w.encoding.scale_type);
      for (int i = 0; i < 4; ++i) {
        out[k + i / 2 * 4 + (places >> 2 * i & 3)] = value_of(panel, lane, i) * scale;
      }
    }
  }

  static float value_of(const std::byte* unit, int64_t lane, int i) {
    if constexpr (kIsInt8) return static_cast<float>(static_cast<int8_t>(unit[lane * 4 + i]));
    if constexpr (kIsInt4) {
      return static_cast<float>((static_cast<uint8_t>(unit[i / 2 * kLanes + lane]) >> i % 2 * 4 & 15) - 8);
    }
    const auto half = load_unaligned<uint16_t>(unit + (i * kLanes + lane) * 2);
    return packing == Packing::f16_24 ? f16_to_float(half) : bf16_to_float(half);
  }
};
