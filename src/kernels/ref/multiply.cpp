// c += alpha * a . b as it is written down: the truth for the fast ones.
#include "base/error.h"
#include "kernels/rows.h"

namespace tandem {

void ref_multiply(ThreadPool& pool, const Product& p) {
  pool.parallel_for(p.M, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = p.upper_only ? i : 0; j < p.N; ++j) {
        float sum = 0;
        for (int64_t k = 0; k < p.K; ++k) {
          sum += p.a.data[i * p.a.row_stride + k * p.a.column_stride] *
                 p.b.data[k * p.b.row_stride + j * p.b.column_stride];
        }
        p.c[i * p.ldc + j] += p.alpha * sum;
      }
    }
  });
}

}  // namespace tandem
