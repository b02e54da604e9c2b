// Linear with f32, f16 or bf16 weights and f32 activations: y[t,n] = sum over k of x[t,k] * w[n,k], fp32,
// added in the order of k whatever the number of tokens: a token's result does not depend on its neighbours.
//
// Layout (prepack): panels of kLanes rows, one row a lane: [K][kLanes] elements in the weight's own type,
// widened on load; 64-byte aligned where K allows, read unaligned. Rows beyond N are zero. K is free.
// Work: panels are handed out on demand, a panel at a time in tiles of kTokens tokens, then of less.
// Bytes: one token reads the matrix once, N K elements (bound by memory); operations: 2 N K T (many tokens
// are bound by FMA).
//
// Tried and lost, decode in bf16: two or four panels at a time (0.94 and 0.90 of the speed), prefetch with one
// or two tokens (0.98). K split in four sums for one token and two for two: a sequence then gave other logits
// beside neighbours than alone.
#pragma once

template <class S, Packing packing>
struct FloatLinear {
  using F = typename S::F;
  static constexpr int kLanes = S::kLanes;
  static constexpr int64_t kElementBytes = packing == Packing::f32 ? 4 : 2;
  static constexpr int64_t kPrefetchSteps = 8;
  static constexpr int kTokens = 2 * S::kTileTokens;

  static F load(const std::byte* p) {
    if constexpr (packing == Packing::f32) {
      return S::load(reinterpret_cast<const float*>(p));
    } else if constexpr (packing == Packing::f16) {
      return S::load_f16(reinterpret_cast<const uint16_t*>(p));
    } else {
      return S::load_bf16(reinterpret_cast<const uint16_t*>(p));
    }
  }

  template <int MB>
  static void tile(const std::byte* panel, const Activations& x, int64_t t, float* y, int64_t ldy,
                   int64_t lanes, bool accumulate) {
    constexpr int64_t kStep = kLanes * kElementBytes;
    F sums[MB];
#pragma GCC unroll 16
    for (int i = 0; i < MB; ++i) sums[i] = S::zero();
    const float* row = x.f32 + t * x.K;
    for (int64_t k = 0; k < x.K; ++k, panel += kStep) {
      // The first tile of a panel reads it from memory: ask for what comes 2 KiB later.
      if (MB > 2 && t == 0 && k % kPrefetchSteps == 0) {
        for (int64_t line = 0; line < kPrefetchSteps * kStep; line += 64) {
          _mm_prefetch(reinterpret_cast<const char*>(panel + 2048 + line), _MM_HINT_T0);
        }
      }
      const F w = load(panel);
#pragma GCC unroll 16
      for (int i = 0; i < MB; ++i) sums[i] = S::fma(S::set(row[i * x.K + k]), w, sums[i]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < MB; ++i) {
      float* p = y + (t + i) * ldy;
      if (lanes == kLanes) {
        S::store(p, accumulate ? S::add(S::load(p), sums[i]) : sums[i]);
      } else {
        S::store_first(p, accumulate ? S::add(S::load_first(p, lanes), sums[i]) : sums[i], lanes);
      }
    }
  }

  template <int MB>
  static void tokens(const std::byte* panel, const Activations& x, int64_t t, float* y, int64_t ldy,
                     int64_t lanes, bool accumulate) {
    for (; t + MB <= x.T; t += MB) tile<MB>(panel, x, t, y, ldy, lanes, accumulate);
    if constexpr (MB > 1) tokens<MB / 2>(panel, x, t, y, ldy, lanes, accumulate);
  }

  static void run(const Context& context, const PackedWeight& w, const Activations& x, float* y, int64_t ldy,
                  bool accumulate) {
    CHECK(x.K == w.K && ldy >= w.N && x.type == ActType::f32, "K {} {} ldy {} N {}", x.K, w.K, ldy, w.N);
    const int64_t bytes = w.K * kLanes * kElementBytes, panels = (w.N + kLanes - 1) / kLanes;
    const int64_t chunk = std::max<int64_t>(1, panels / (context.pool->size() * 6));
    context.pool->parallel_for(panels, chunk, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t lanes = std::min<int64_t>(kLanes, w.N - p * kLanes);
        tokens<kTokens>(w.data + p * bytes, x, 0, y + p * kLanes, ldy, lanes, accumulate);
      }
    });
  }

  static PackedWeight prepack(const Context& context, const std::vector<Weight>& parts, Arena& arena) {
    PackedWeight w;
    w.encoding = parts.front().encoding;
    w.K = parts.front().K;
    std::vector<const std::byte*> rows;
    for (const Weight& part : parts) {
      CHECK(part.encoding == w.encoding && part.K == w.K, "stacked {} on {}", part.encoding.name(),
            w.encoding.name());
      for (int64_t n = 0; n < part.N; ++n) {
        rows.push_back(part.data + part.stored_row(n) * w.K * kElementBytes);
      }
    }
    w.N = static_cast<int64_t>(rows.size());
    w.read_bytes = total_bytes(parts);
    const int64_t bytes = w.K * kLanes * kElementBytes, panels = (w.N + kLanes - 1) / kLanes;
    w.data_bytes = static_cast<uint64_t>(panels * bytes);
    std::byte* const data = arena.take(w.data_bytes);
    w.data = data;
    context.pool->parallel_for(panels, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        std::byte* out = data + p * bytes;
        const int64_t lanes = std::min<int64_t>(kLanes, w.N - p * kLanes);
        // Elements of eight channels lie in one cache line of a row: read them while they are there.
        for (int64_t k0 = 0; k0 < w.K; k0 += 8) {
          for (int64_t lane = 0; lane < lanes; ++lane) {
            const std::byte* row = rows[p * kLanes + lane];
            for (int64_t k = k0; k < std::min(k0 + 8, w.K); ++k) {
              std::memcpy(out + (k * kLanes + lane) * kElementBytes, row + k * kElementBytes, kElementBytes);
            }
          }
        }
      }
    });
    return w;
  }

  static void decode_row(const PackedWeight& w, int64_t n, float* out) {
    CHECK(n >= 0 && n < w.N, "row {} of {}", n, w.N);
    const std::byte* p = w.data + (n / kLanes * w.K * kLanes + n % kLanes) * kElementBytes;
    for (int64_t k = 0; k < w.K; ++k, p += kLanes * kElementBytes) {
      if constexpr (packing == Packing::f32) {
        out[k] = load_unaligned<float>(p);
      } else {
        const uint16_t h = load_unaligned<uint16_t>(p);
        out[k] = packing == Packing::f16 ? f16_to_float(h) : bf16_to_float(h);
      }
    }
  }
};
