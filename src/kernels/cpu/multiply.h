// c[M,N] += alpha * a[M,K] . b[K,N] (kernels/multiply.h).
//
// Both factors are packed, kDepth of K at a time, into panels in which a register tile reads
// consecutively: of a kRows rows, [K][kRows]; of b kColumns columns, [K][kColumns]. The tile is
// kRows x 3 vectors of sums: a step of k loads 3 vectors, broadcasts kRows numbers and does
// 3 kRows FMAs. A panel of b (96 KiB in AVX-512) stays in L2 while the a panels of a block pass.
#pragma once

template <class S>
struct TiledMultiply {
  using F = typename S::F;
  static constexpr int kVectors = 3;
  static constexpr int kColumns = kVectors * S::kLanes;
  static constexpr int kRows = S::kLanes == 16 ? 8 : 4;  // sums: 24 of 32 registers, or 12 of 16
  static constexpr int64_t kDepth = 512;
  static constexpr int64_t kBlockRows = 128;  // rows of a task: its part of a is 256 KiB

  // Panels [p][K][width] of lines [0, count) of `view`, whose line i holds view(i, k); lines beyond
  // are zero.
  static void pack(ThreadPool& pool, const MatrixView& view, int64_t count, int64_t K, int64_t width,
                   float* out) {
    const int64_t panels = (count + width - 1) / width;
    pool.parallel_for(panels, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t lines = std::min(width, count - p * width);
        const float* from = view.data + p * width * view.row_stride;
        pack_panel(from, view, lines, K, width, out + p * K * width);
      }
    });
  }

  static void pack_panel(const float* from, const MatrixView& view, int64_t lines, int64_t K,
                         int64_t width, float* out) {
    if (view.row_stride == 1) {
      for (int64_t k = 0; k < K; ++k, out += width) {
        std::memcpy(out, from + k * view.column_stride, static_cast<size_t>(lines) * sizeof(float));
        std::fill(out + lines, out + width, 0.0f);
      }
      return;
    }
    // Sixteen numbers of a line share a cache line: they are read while it is there.
    for (int64_t k0 = 0; k0 < K; k0 += 16) {
      const int64_t count = std::min<int64_t>(16, K - k0);
      for (int64_t i = 0; i < width; ++i) {
        const float* line = from + i * view.row_stride + k0 * view.column_stride;
        for (int64_t k = 0; k < count; ++k) {
          out[(k0 + k) * width + i] = i < lines ? line[k * view.column_stride] : 0.0f;
        }
      }
    }
  }

  // c[kRows, kColumns] += alpha * a . b of two panels.
  static void tile(const float* a, const float* b, int64_t K, float alpha, float* c, int64_t ldc) {
    F sums[kRows][kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) sums[i][j] = S::zero();
    }
    for (int64_t k = 0; k < K; ++k, a += kRows, b += kColumns) {
      F right[kVectors];
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) right[j] = S::load(b + j * S::kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < kRows; ++i) {
        const F left = S::set(a[i]);
#pragma GCC unroll 3
        for (int j = 0; j < kVectors; ++j) sums[i][j] = S::fma(left, right[j], sums[i][j]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) {
        float* out = c + i * ldc + j * S::kLanes;
        S::store(out, S::fma(S::set(alpha), sums[i][j], S::load(out)));
      }
    }
  }

  // The same at the edge of c, of which rows x columns are there.
  static void edge_tile(const float* a, const float* b, int64_t K, float alpha, float* c,
                        int64_t ldc, int64_t rows, int64_t columns) {
    float whole[kRows * kColumns] = {};
    for (int64_t i = 0; i < rows; ++i) std::copy_n(c + i * ldc, columns, whole + i * kColumns);
    tile(a, b, K, alpha, whole, kColumns);
    for (int64_t i = 0; i < rows; ++i) std::copy_n(whole + i * kColumns, columns, c + i * ldc);
  }

  // Rows [first, last) of c against one panel of b, which holds the columns from `column` on.
  static void block(const Product& p, const float* a, const float* b, int64_t K, int64_t first,
                    int64_t last, int64_t column) {
    const int64_t columns = std::min<int64_t>(kColumns, p.N - column);
    for (int64_t i = first; i < last; i += kRows) {
      if (p.upper_only && column + columns <= i) return;
      const int64_t rows = std::min<int64_t>(kRows, p.M - i);
      float* c = p.c + i * p.ldc + column;
      if (rows == kRows && columns == kColumns) {
        tile(a + i * K, b, K, p.alpha, c, p.ldc);
      } else {
        edge_tile(a + i * K, b, K, p.alpha, c, p.ldc, rows, columns);
      }
    }
  }

  static void run(ThreadPool& pool, const Product& p) {
    if (p.M == 0 || p.N == 0) return;
    const int64_t row_panels = (p.M + kRows - 1) / kRows;
    const int64_t column_panels = (p.N + kColumns - 1) / kColumns;
    const int64_t depth = std::min(kDepth, p.K);
    Buffer a(static_cast<size_t>(row_panels * kRows * depth) * sizeof(float));
    Buffer b(static_cast<size_t>(column_panels * kColumns * depth) * sizeof(float));
    // Tasks: blocks of rows times runs of columns, enough of them that threads end together.
    const int64_t row_blocks = (p.M + kBlockRows - 1) / kBlockRows;
    const int64_t runs = std::min<int64_t>(column_panels, 1 + 8 * pool.size() / row_blocks);
    for (int64_t k = 0; k < p.K; k += kDepth) {
      const int64_t K = std::min(kDepth, p.K - k);
      MatrixView left = p.a, right = p.b.transposed();
      left.data += k * left.column_stride;
      right.data += k * right.column_stride;
      pack(pool, left, p.M, K, kRows, a.as<float>());
      pack(pool, right, p.N, K, kColumns, b.as<float>());
      pool.parallel_for(row_blocks * runs, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t task = begin; task < end; ++task) {
          const int64_t first = task / runs * kBlockRows, last = std::min(first + kBlockRows, p.M);
          const int64_t run = task % runs;
          for (int64_t j = run * column_panels / runs; j < (run + 1) * column_panels / runs; ++j) {
            block(p, a.as<float>(), b.as<float>() + j * kColumns * K, K, first, last, j * kColumns);
          }
        }
      });
    }
  }
};
