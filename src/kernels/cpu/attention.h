// Causal attention over the paged cache, page by page with a running softmax (so scratch is flat in the
// context): out = softmax(q K^T / sqrt(D)) V, fp32.
//
// Work: an item is one kv head of one block of queries: up to kMaxRows rows (queries x the group's heads),
// so each K and V element that is read serves all of them. K lies as [D][16 tokens], so a vector holds the
// scores of 16 (8) keys and no sum crosses lanes; V lies as [token][D].
// Keys of the last tile beyond the sequence's end are stale: they are scored and then replaced by -inf, and
// their values are not read. A row's sums run over keys in order, so they do not depend on the step's shape.
// Arguments: ops.h; scratch of attention_scratch_floats, any alignment. Constraints: G divides H, D is even.
// Bytes per decoded token: 2 G D S elements; operations 4 H D S. One token is bound by memory, a
// prompt by FMA.
#pragma once

template <class S>
struct Attention {
  using F = typename S::F;
  static constexpr int kLanes = S::kLanes;
  static constexpr int kVectorsPerTile = tandem::kTileTokens / kLanes;
  static constexpr int kMaxRows = 12;
  static constexpr int kRowBlock = kLanes == 16 ? 12 : 4;  // rows whose scores stay in registers
  static constexpr int kOutRows = kLanes == 16 ? 4 : 2;    // rows x 4 vectors of output in registers

  static F load(const float* p) { return S::load(p); }
  static F load(const uint16_t* p) { return S::load_bf16(p); }
  static F load(const int8_t* p) { return S::load_int8(p); }

  // One item's state in the thread's scratch.
  struct Rows {
    int64_t count = 0, D = 0, D_padded = 0;
    float* q = nullptr;       // [count, D], scaled by 1 / sqrt(D)
    float* out = nullptr;     // [count, D_padded], not yet divided by sum
    float* scores = nullptr;  // [count, kPageTokens]
    float* max = nullptr;     // [count]
    float* sum = nullptr;     // [count]
  };

  // scores[r, tile] = q[r] . K for 16 keys, RB rows at a time.
  template <int RB, typename T>
  static void score_tile(const Rows& rows, int64_t r, const T* k_tile, const float* k_scales, int64_t tile) {
    for (int v = 0; v < kVectorsPerTile; ++v) {
      F sums[RB];
#pragma GCC unroll 12
      for (int i = 0; i < RB; ++i) sums[i] = S::zero();
      const float* q = rows.q + r * rows.D;
      for (int64_t d = 0; d < rows.D; ++d) {
        const F k = load(k_tile + d * tandem::kTileTokens + v * kLanes);
#pragma GCC unroll 12
        for (int i = 0; i < RB; ++i) sums[i] = S::fma(S::set(q[i * rows.D + d]), k, sums[i]);
      }
      const int64_t token = tile * tandem::kTileTokens + v * kLanes;
#pragma GCC unroll 12
      for (int i = 0; i < RB; ++i) {
        F s = sums[i];
        if constexpr (std::is_same_v<T, int8_t>) s = S::mul(s, S::load(k_scales + token));
        S::store(rows.scores + (r + i) * kPageTokens + token, s);
      }
    }
  }

  template <int RB, typename T>
  static void score_rows(const Rows& rows, int64_t r, const T* k_tile, const float* k_scales, int64_t tile) {
    for (; r + RB <= rows.count; r += RB) score_tile<RB>(rows, r, k_tile, k_scales, tile);
    if constexpr (RB > 1) {
      score_rows<(RB > 4 ? 4 : RB > 3 ? 3 : RB - 1)>(rows, r, k_tile, k_scales, tile);
    }
  }

  // Turns the page's scores into weights and rescales what has been summed before. [first, valid): keys of
  // this page that row r may see.
  static void softmax_row(const Rows& rows, int64_t r, int64_t first, int64_t valid, int64_t tokens) {
    float* scores = rows.scores + r * kPageTokens;
    if (first >= tokens) {  // a window that begins in a later page: the block's other rows need this one
      std::fill_n(scores, tokens, 0.0f);
      return;
    }
    if (first > 0) std::fill_n(scores, first, -INFINITY);
    F max = S::set(rows.max[r]);
    for (int64_t s = 0; s < tokens; s += kLanes) {
      const F masked = S::fill_from(S::load(scores + s), valid - s, -INFINITY);
      S::store(scores + s, masked);
      max = S::max(max, masked);
    }
    const float new_max = S::reduce_max(max);
    F sum = S::zero();
    for (int64_t s = 0; s < tokens; s += kLanes) {
      const F p = S::exp(S::sub(S::load(scores + s), S::set(new_max)));
      S::store(scores + s, p);
      sum = S::add(sum, p);
    }
    float rescale = 1.0f;
    if (new_max > rows.max[r]) {
      rescale = rows.max[r] == -INFINITY ? 0.0f : std::exp(rows.max[r] - new_max);
      float* out = rows.out + r * rows.D_padded;
      for (int64_t d = 0; d < rows.D_padded; d += kLanes) S::store(out + d, S::mul(S::load(out + d), S::set(rescale)));
    }
    rows.max[r] = new_max;
    rows.sum[r] = rows.sum[r] * rescale + S::reduce_add(sum);
  }

  // out[r, d...] += sum over tokens of scores[r, token] * V[token, d...]: RB rows, VB vectors.
  template <int RB, int VB, typename T>
  static void value_block(const Rows& rows, int64_t r, int64_t d, const T* v, const float* v_scales,
                          int64_t tokens) {
    F sums[RB][VB];
    float* out = rows.out + r * rows.D_padded + d;
#pragma GCC unroll 4
    for (int i = 0; i < RB; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < VB; ++j) sums[i][j] = S::load(out + i * rows.D_padded + j * kLanes);
    }
    const float* p = rows.scores + r * kPageTokens;
    for (int64_t s = 0; s < tokens; ++s) {
      F values[VB];
#pragma GCC unroll 4
      for (int j = 0; j < VB; ++j) {
        values[j] = load(v + s * rows.D_padded + d + j * kLanes);
        if constexpr (std::is_same_v<T, int8_t>) values[j] = S::mul(values[j], S::set(v_scales[s]));
      }
#pragma GCC unroll 4
      for (int i = 0; i < RB; ++i) {
        const F weight = S::set(p[i * kPageTokens + s]);
#pragma GCC unroll 4
        for (int j = 0; j < VB; ++j) sums[i][j] = S::fma(weight, values[j], sums[i][j]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < RB; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < VB; ++j) S::store(out + i * rows.D_padded + j * kLanes, sums[i][j]);
    }
  }

  template <int RB, typename T>
  static void value_rows(const Rows& rows, int64_t r, const T* v, const float* v_scales, int64_t tokens) {
    for (; r + RB <= rows.count; r += RB) {
      int64_t d = 0;
      for (; d + 4 * kLanes <= rows.D_padded; d += 4 * kLanes) value_block<RB, 4>(rows, r, d, v, v_scales, tokens);
      for (; d < rows.D_padded; d += kLanes) value_block<RB, 1>(rows, r, d, v, v_scales, tokens);
    }
    if constexpr (RB > 1) value_rows<RB - 1>(rows, r, v, v_scales, tokens);
  }

  // The queries [i, i + num_queries) of one sequence for kv head g.
  template <typename T>
  static void item(const float* qkv, const SequenceSlice& sequence, int64_t H, const KvCache& cache,
                   int64_t layer, int64_t g, int64_t i, int64_t num_queries, float* scratch, float* out) {
    const KvLayout& layout = cache.layout;
    const int64_t D = layout.D, G = layout.G, r_heads = H / G, ld = (H + 2 * G) * D;
    Rows rows;
    rows.count = num_queries * r_heads;
    rows.D = D;
    rows.D_padded = layout.D_padded();
    rows.q = scratch;
    rows.out = rows.q + rows.count * rows.D_padded;
    rows.scores = rows.out + rows.count * rows.D_padded;
    rows.max = rows.scores + rows.count * kPageTokens;
    rows.sum = rows.max + rows.count;
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    for (int64_t r = 0; r < rows.count; ++r) {
      const float* q = qkv + (sequence.first_token + i + r / r_heads) * ld + (g * r_heads + r % r_heads) * D;
      for (int64_t d = 0; d < D; ++d) rows.q[r * D + d] = q[d] * scale;
      rows.max[r] = -INFINITY;
      rows.sum[r] = 0;
    }
    std::fill_n(rows.out, rows.count * rows.D_padded, 0.0f);
    const int64_t first_position = sequence.context - sequence.num_tokens + i;
    const int64_t keys = first_position + num_queries;  // the last query sees all of them
    // The first query's window reaches back furthest.
    const int64_t first_page = layout.first_key(first_position) / kPageTokens;
    for (int64_t begin = first_page * kPageTokens; begin < keys; begin += kPageTokens) {
      const std::byte* page = cache.base + sequence.pages[begin / kPageTokens] * layout.page_bytes();
      const T* k = reinterpret_cast<const T*>(page + layout.k_offset(layer, g));
      const T* v = reinterpret_cast<const T*>(page + layout.v_offset(layer, g));
      const float* k_scales = reinterpret_cast<const float*>(page + layout.k_scales_offset(layer, g));
      const float* v_scales = reinterpret_cast<const float*>(page + layout.v_scales_offset(layer, g));
      const int64_t tokens = std::min(kPageTokens, keys - begin);
      const int64_t tiles = (tokens + tandem::kTileTokens - 1) / tandem::kTileTokens;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        score_rows<kRowBlock>(rows, 0, k + tile * tandem::kTileTokens * D, k_scales, tile);
      }
      for (int64_t r = 0; r < rows.count; ++r) {
        const int64_t position = first_position + r / r_heads;
        softmax_row(rows, r, layout.first_key(position) - begin, position + 1 - begin,
                    tiles * tandem::kTileTokens);
      }
      value_rows<kOutRows>(rows, 0, v, v_scales, tokens);
    }
    for (int64_t r = 0; r < rows.count; ++r) {
      float* o = out + ((sequence.first_token + i + r / r_heads) * H + g * r_heads + r % r_heads) * D;
      const float inverse = 1.0f / rows.sum[r];
      for (int64_t d = 0; d < D; ++d) o[d] = rows.out[r * rows.D_padded + d] * inverse;
    }
  }

  template <typename T>
  static void run_type(const Context& context, const float* qkv, const Batch& batch, int64_t H,
                       const KvCache& cache, int64_t layer, float* scratch, float* out) {
    const int64_t G = cache.layout.G, queries = std::max<int64_t>(1, kMaxRows / (H / G));
    const int64_t thread_scratch = attention_scratch_floats(H, G, cache.layout.D);
    int64_t items = 0;
    for (const SequenceSlice& s : batch.sequences) items += (s.num_tokens + queries - 1) / queries * G;
    context.pool->parallel_for(items, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t n = begin; n < end; ++n) {
        int64_t index = n;
        const SequenceSlice* s = batch.sequences.data();
        for (;; ++s) {
          const int64_t own = (s->num_tokens + queries - 1) / queries * G;
          if (index < own) break;
          index -= own;
        }
        // Late queries see most keys: hand out the heavy items first.
        const int64_t blocks = (s->num_tokens + queries - 1) / queries;
        const int64_t i = (blocks - 1 - index / G) * queries;
        item<T>(qkv, *s, H, cache, layer, index % G, i, std::min(queries, s->num_tokens - i),
                scratch + thread * thread_scratch, out);
      }
    });
  }

  static void run(const Context& context, const float* qkv, const Batch& batch, int64_t H,
                  const KvCache& cache, int64_t layer, float* scratch, float* out) {
    switch (cache.layout.type) {
      case KvType::f32: return run_type<float>(context, qkv, batch, H, cache, layer, scratch, out);
      case KvType::bf16: return run_type<uint16_t>(context, qkv, batch, H, cache, layer, scratch, out);
      case KvType::int8: return run_type<int8_t>(context, qkv, batch, H, cache, layer, scratch, out);
      default: CHECK(false, "cache of {}", kv_type_name(cache.layout.type));
    }
  }
};
