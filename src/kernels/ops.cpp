#include "kernels/ops.h"

namespace tandem {

const char* kv_type_name(KvType type) {
  switch (type) {
    case KvType::f32: return "f32";
    case KvType::bf16: return "bf16";
    case KvType::int8: return "int8";
    case KvType::fp8: return "fp8";
    case KvType::int4: return "int4";
  }
  return "?";
}

int64_t attention_scratch_floats(int64_t H, int64_t G, int64_t D) {
  // Rows of a query block (at most 12 queries of one kv head, or one query's heads): q, out and the
  // scores of one page, and the running maxima and sums.
  const int64_t rows = H / G > 12 ? H / G : 12;
  const int64_t D_padded = (D + 15) / 16 * 16;
  return rows * (2 * D_padded + kPageTokens + 2) + 64;
}

}  // namespace tandem
