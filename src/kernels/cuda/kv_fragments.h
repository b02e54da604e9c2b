// The order of a page's elements on a GPU: the fragments of mma.sync m16n8k16 as they lie, so that
// each lane = 4 r + q reads 16 bytes beside its neighbours' and no element is shuffled.
//
// Both planes are four tiles of 16 tokens, one behind the other. A tile of K is cut into blocks of
// 64 channels: lane 4 r + q has the 16 channels from 16 q on of tokens r and r + 8. A tile of V is
// cut into tiles of 16 channels: the lane has channels r and r + 8 of tokens 2 q, 2 q + 1, 2 q + 8
// and 2 q + 9. The lanes' shares of 16 bytes make chunks of 512:
//   bf16       K: [token / 8][channel / 8 % 2] chunks a block   V: one a tile of 16 channels
//   fp8, int8  K: [token / 8] chunks a block                    V: one a pair of tiles
//   int4       K: one chunk a block, token r in its first half  V: one a group of four tiles
// int8 codes are kept plus 128. The eight int4 codes of a word lie so that (word >> 4 i) &
// 0x000F000F is a pair.
#pragma once

#include <cstdint>

namespace tandem {

// The bit at which the code of `bits` bits of (token in page, channel d) begins in its plane.
constexpr int64_t k_fragment_bit(int bits, int64_t D, int64_t token, int64_t d) {
  const int64_t tile = token / 16, half = token % 16 / 8, r = token % 8;
  const int64_t q = d % 64 / 16, j = d % 16;
  const int64_t block = tile * (D / 64) + d / 64, lane_bit = (r * 4 + q) * 128;
  if (bits == 16) return ((block * 2 + half) * 2 + j / 8) * 4096 + lane_bit + j % 8 * 16;
  if (bits == 8) return (block * 2 + half) * 4096 + lane_bit + j * 8;
  return block * 4096 + lane_bit + half * 64 + j / 8 * 32 + (j % 8 / 2 + 4 * (j % 2)) * 4;
}

constexpr int64_t v_fragment_bit(int bits, int64_t D, int64_t token, int64_t d) {
  const int64_t tile = token / 16, q = token % 8 / 2, odd = token % 2;
  const int64_t r = d % 8, word = d % 16 / 8 + 2 * (token % 16 / 8);  // of the lane's four pairs
  const int64_t channels = tile * (D / 16) + d / 16, lane_bit = (r * 4 + q) * 128;
  if (bits == 16) return channels * 4096 + lane_bit + word * 32 + odd * 16;
  if (bits == 8) return channels / 2 * 4096 + lane_bit + channels % 2 * 64 + word * 16 + odd * 8;
  return channels / 4 * 4096 + lane_bit + channels % 4 * 32 + (word + 4 * odd) * 4;
}

inline constexpr int kInt8Bias = 128;

}  // namespace tandem
