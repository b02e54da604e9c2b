// Linear with GGUF's K-quants and int8 activations of one scale for 32 channels.
//
//   y[t,n] = sum over blocks b of 32 channels and groups g of b:
//              a[t,b] * (d[n] * scale[n,g]) * ((codes[n] - zero) . x[t])_g
//            - a[t,b] * (dmin[n] * min[n,g]) * sum(x[t])_g
// d, dmin belong to 256 channels; a group has 16 or 32 (tensor/super_block.h).
//
// Layout (prepack): panels of kLanes rows, one row a lane. For each 256 channels: d [kLanes] f16; dmin [kLanes]
// f16 where there are minimums; for each group the scales [kLanes] i8 and the minimums [kLanes] u8; then eight
// blocks of CodePlanes. Bits a weight: q2_k 5.13, q3_k 4.56, q4_k 4.63, q5_k 5.63, q6_k 6.56, where the file has
// 2.63, 3.44, 4.5, 5.5, 6.56: q2_k and q3_k keep their codes in 4 bits.
// Rows beyond N have zero scales.
//
// Work as in linear_codes.h. Zero points and minimums of groups of 16 need sums of 16 activations, which the
// activations do not carry: they are added up once a call.
#pragma once

template <int Bits, int Group, bool HasMin, int Zero>
struct SuperFormat {
  static constexpr int kBits = Bits;
  static constexpr int kGroup = Group;
  static constexpr bool kHasMin = HasMin;
  static constexpr int kZero = Zero;
};

template <class S, class Format>
struct SuperLinear {
  using F = typename S::F;
  using I = typename S::I;
  using Planes = CodePlanes<S, Format::kBits>;
  static constexpr int kLanes = S::kLanes;
  static constexpr int kGroups = 256 / Format::kGroup;
  static constexpr int64_t kIntegers = Format::kHasMin ? 2 : 1;  // of a lane and group
  static constexpr int64_t kHeadBytes = kIntegers * kLanes * 2;
  static constexpr int64_t kGroupBytes = kIntegers * kLanes;
  static constexpr int64_t kCodesAt = kHeadBytes + kGroups * kGroupBytes;
  static constexpr int64_t kSuperBytes = kCodesAt + 8 * Planes::kBytes;
  static constexpr int64_t kPrefetchBytes = 2048;
  static constexpr bool kHalves = Format::kGroup == 16;

  static F load_f16(const std::byte* p) { return S::load_f16(reinterpret_cast<const uint16_t*>(p)); }
  static F load_int8(const std::byte* p) { return S::load_int8(reinterpret_cast<const int8_t*>(p)); }

  // y += one group: dots of its channels, the activations' scales a and, with minimums, sums of the group.
  template <int MB, class Sum>
  [[gnu::always_inline]] static void add_group(const std::byte* group, F d, F dmin, const I (&dots)[MB],
                                               const float* a, Sum sum, F (&y)[MB]) {
    const F s = S::mul(d, load_int8(group));
    [[maybe_unused]] F m = S::zero();
    if constexpr (Format::kHasMin) m = S::mul(dmin, load_int8(group + kLanes));
#pragma GCC unroll 8
    for (int i = 0; i < MB; ++i) {
      y[i] = S::fma(S::to_float(dots[i]), S::mul(s, S::set(a[i])), y[i]);
      if constexpr (Format::kHasMin) y[i] = S::sub(y[i], S::mul(m, S::set(sum(i))));
    }
  }

  // One block of 32 channels. halves: sums of codes over 16 channels [2 * blocks][T], at this block and token.
  template <int MB>
  [[gnu::always_inline]] static void add_block(const std::byte* group, const std::byte* codes, F d, F dmin,
                                               const Activations& x, int64_t b, int64_t t, const int32_t* halves,
                                               F (&y)[MB]) {
    const auto* c = reinterpret_cast<const uint8_t*>(codes);
    const int64_t ldx = x.K_padded();
    const int8_t* xb = x.codes + t * ldx + b * kActBlock;
    const float* a = x.scales + b * x.T + t;
    I first[MB];
    if constexpr (kHalves) {
      I last[MB];
      const int32_t* next = halves + x.T;
#pragma GCC unroll 8
      for (int i = 0; i < MB; ++i) {
        first[i] = S::set_int(-Format::kZero * halves[i]);
        last[i] = S::set_int(-Format::kZero * next[i]);
      }
      Planes::template dot<MB>(c, xb, ldx, first, last);
      const auto sum = [&](const int32_t* half) {
        return [=](int i) { return a[i] * static_cast<float>(half[i]); };
      };
      add_group<MB>(group, d, dmin, first, a, sum(halves), y);
      add_group<MB>(group + kGroupBytes, d, dmin, last, a, sum(next), y);
    } else {
#pragma GCC unroll 8
      for (int i = 0; i < MB; ++i) first[i] = S::zero_int();
      if constexpr (Format::kBits == 4) {
        S::template dot_block4<MB>(c, xb, ldx, first);
      } else {
        Planes::template dot<MB>(c, xb, ldx, first, first);
      }
      const float* sums = x.sums + b * x.T + t;
      add_group<MB>(group, d, dmin, first, a, [=](int i) { return sums[i]; }, y);
    }
  }

  template <int MB>
  static void tile(const std::byte* panel, const Activations& x, const int32_t* halves, int64_t t, float* y,
                   int64_t ldy, int64_t lanes, bool accumulate) {
    F out[MB];
#pragma GCC unroll 8
    for (int i = 0; i < MB; ++i) out[i] = S::zero();
    for (int64_t b = 0; b < x.K / kActBlock; panel += kSuperBytes) {
      const F d = load_f16(panel);
      const F dmin = Format::kHasMin ? load_f16(panel + 2 * kLanes) : S::zero();
      const std::byte* group = panel + kHeadBytes;
      const std::byte* codes = panel + kCodesAt;
      for (const int64_t end = b + 8; b < end; ++b) {
        // The first tile of a panel reads it from memory: ask for what comes later.
        for (int64_t line = 0; t == 0 && line < kSuperBytes / 8; line += 64) {
          _mm_prefetch(reinterpret_cast<const char*>(codes + kPrefetchBytes + line), _MM_HINT_T0);
        }
        add_block<MB>(group, codes, d, dmin, x, b, t, halves + 2 * b * x.T + t, out);
        group += kGroupBytes * (kHalves ? 2 : 1);
        codes += Planes::kBytes;
      }
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

  // Tokens [t, T) in tiles of MB, then of less.
  template <int MB>
  static void tokens(const std::byte* panel, const Activations& x, const int32_t* halves, int64_t t, float* y,
                     int64_t ldy, int64_t lanes, bool accumulate) {
    for (; t + MB <= x.T; t += MB) tile<MB>(panel, x, halves, t, y, ldy, lanes, accumulate);
    if constexpr (MB > 1) tokens<MB / 2>(panel, x, halves, t, y, ldy, lanes, accumulate);
  }

  // Sums of x's codes over 16 channels, [K / 16][T]; valid until the calling thread's next call.
  static const int32_t* sum_halves(const Context& context, const Activations& x) {
    thread_local std::vector<int32_t> sums;
    sums.resize(std::max(sums.size(), static_cast<size_t>(x.K / 16 * x.T)));
    int32_t* const out = sums.data();
    const auto tokens = [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        const int8_t* row = x.codes + t * x.K_padded();
        for (int64_t k = 0; k < x.K; k += 16) {
          int32_t sum = 0;
          for (int64_t i = k; i < k + 16; ++i) sum += row[i];
          out[k / 16 * x.T + t] = sum;
        }
      }
    };
    // A few tokens cost less than waking the pool.
    if (x.T < 16) {
      tokens(0, x.T, 0);
    } else {
      context.pool->parallel_for(x.T, 8, tokens);
    }
    return out;
  }

  static void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
                  bool accumulate) {
    CHECK(x.K == w.K && ldy >= w.N && x.type == w.kernel->act_type, "K {} {} ldy {} N {}", x.K, w.K, ldy, w.N);
    const int32_t* halves = nullptr;
    if constexpr (kHalves) halves = sum_halves(context, x);
    const int64_t bytes = w.K / 256 * kSuperBytes, panels = (w.N + kLanes - 1) / kLanes;
    const int64_t chunk = std::max<int64_t>(1, panels / (context.pool->size() * 6));
    context.pool->parallel_for(panels, chunk, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t lanes = std::min<int64_t>(kLanes, w.N - p * kLanes);
        tokens<S::kTileTokens>(w.data + p * bytes, x, halves, 0, y + p * kLanes, ldy, lanes, accumulate);
      }
    });
  }

  // One super-block of a panel from those of its rows; lanes beyond the last row are null.
  static void store_super_block(const Encoding& encoding, const std::byte* const (&rows)[kLanes], std::byte* out) {
    uint8_t codes[kLanes][256] = {};
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      SuperBlock block{};
      if (rows[lane] != nullptr) {
        block = read_super_block(encoding, reinterpret_cast<const uint8_t*>(rows[lane]));
        CHECK(block.zero == Format::kZero && block.group == Format::kGroup, "{}", encoding.name());
        std::memcpy(codes[lane], block.codes, 256);
      }
      store_scale(out + 2 * lane, ScaleType::f16, block.d);
      if constexpr (Format::kHasMin) store_scale(out + 2 * (kLanes + lane), ScaleType::f16, block.dmin);
      for (int64_t g = 0; g < kGroups; ++g) {
        std::byte* group = out + kHeadBytes + g * kGroupBytes + lane;
        group[0] = static_cast<std::byte>(block.scales[g]);
        if constexpr (Format::kHasMin) group[kLanes] = static_cast<std::byte>(block.mins[g]);
      }
    }
    for (int b = 0; b < 8; ++b) Planes::store(codes[0] + b * 32, 256, out + kCodesAt + b * Planes::kBytes);
  }

  static PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
    PackedWeight w;
    w.encoding = parts.front().encoding;
    w.K = parts.front().K;
    const auto row_bytes = static_cast<int64_t>(w.encoding.row_bytes(w.K));
    const auto super_bytes = static_cast<int64_t>(w.encoding.row_bytes(256));
    std::vector<const std::byte*> rows;
    for (const Weight& part : parts) {
      CHECK(part.encoding == w.encoding && part.K == w.K, "stacked {} K {} on {} K {}", part.encoding.name(),
            part.K, w.encoding.name(), w.K);
      for (int64_t n = 0; n < part.N; ++n) rows.push_back(part.data + part.stored_row(n) * row_bytes);
    }
    w.N = static_cast<int64_t>(rows.size());
    w.read_bytes = total_bytes(parts);
    const int64_t supers = w.K / 256, panels = (w.N + kLanes - 1) / kLanes;
    w.data_bytes = static_cast<uint64_t>(panels * supers * kSuperBytes);
    std::byte* const data = arena.take(w.data_bytes);
    w.data = data;
    context.pool->parallel_for(panels, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        for (int64_t b = 0; b < supers; ++b) {
          const std::byte* lanes[kLanes];
          for (int64_t lane = 0; lane < kLanes; ++lane) {
            const int64_t n = p * kLanes + lane;
            lanes[lane] = n < w.N ? rows[n] + b * super_bytes : nullptr;
          }
          store_super_block(w.encoding, lanes, data + (p * supers + b) * kSuperBytes);
        }
      }
    });
    return w;
  }

  // out[K] = row n: the inverse of prepack for one row.
  static void decode_row(const PackedWeight& w, int64_t n, float* out) {
    CHECK(n >= 0 && n < w.N, "row {} of {}", n, w.N);
    const int64_t lane = n % kLanes;
    const std::byte* p = w.data + n / kLanes * (w.K / 256 * kSuperBytes);
    for (int64_t b = 0; b < w.K / 256; ++b, p += kSuperBytes) {
      SuperBlock block{};
      block.group = Format::kGroup;
      block.zero = Format::kZero;
      block.d = load_scale(p + 2 * lane, ScaleType::f16);
      if constexpr (Format::kHasMin) block.dmin = load_scale(p + 2 * (kLanes + lane), ScaleType::f16);
      for (int64_t g = 0; g < kGroups; ++g) {
        const std::byte* group = p + kHeadBytes + g * kGroupBytes + lane;
        block.scales[g] = static_cast<int8_t>(group[0]);
        if constexpr (Format::kHasMin) block.mins[g] = static_cast<uint8_t>(group[kLanes]);
      }
      for (int64_t k = 0; k < 256; ++k) {
        block.codes[k] = Planes::code(p + kCodesAt + k / 32 * Planes::kBytes, lane, k % 32);
        out[b * 256 + k] = block.value(k);
      }
    }
  }
};
