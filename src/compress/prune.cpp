#include "compress/prune.h"

#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "compress/mask24.h"
#include "compress/rtn.h"

namespace tandem {

uint64_t mask_seed(uint64_t seed, std::string_view tensor) {
  return seed + std::stoull(hash_hex(tensor).substr(0, 16), nullptr, 16);
}

void check_prunable(std::string_view tensor, int64_t K) {
  if (K % 4 == 0) return;
  fail(ErrorKind::usage, "{}: width {}, expected a multiple of 4 to prune 2 of each 4 weights",
       quote(tensor), K);
}

TensorSource pruned_source(RowStream& stream, const NamedTensor& tensor, const Recipe& recipe) {
  CHECK(recipe.pruning != Pruning::none, "recipe {}", recipe.name);
  const Weight& w = tensor.weight;
  check_prunable(tensor.name, w.K);
  const size_t row_bytes = kBF16.row_bytes(w.K);
  const bool is_random = recipe.pruning == Pruning::random;
  const uint64_t seed = mask_seed(recipe.seed, tensor.name);
  return {tensor.name,
          "BF16",
          {w.N, w.K},
          static_cast<uint64_t>(w.N) * row_bytes,
          [&stream, &tensor, row_bytes, is_random, seed](const ByteSink& sink) {
            const int64_t K = tensor.weight.K;
            const auto make_row = [&](int64_t n, float* row, std::byte* out) {
              const std::span<float> values(row, static_cast<size_t>(K));
              std::vector<uint8_t> kept(static_cast<size_t>(K / 4));
              decode_row(tensor.weight, n, row);
              if (!round_row_to_bf16(row, K)) return false;
              if (is_random) {
                keep_random_of_row(seed, n, kept);
              } else {
                keep_largest_of_row(values, kept);
              }
              apply_mask_row(kept, values);
              store_row_bf16(row, K, out);
              return true;
            };
            stream.write(tensor.name, tensor.weight.N, K, row_bytes, "bf16", make_row, sink);
          }};
}

}  // namespace tandem
