// Weights of nf4 and fp4 as they lie on the GPU: pieces of 16 rows x 128 channels, 1152 bytes each,
// one after another: [N / 16][pieces][rows 0-7, 8-15][lane][16 bytes], then absmax [16 rows][2],
// f32. Lane 4 r + q holds row r, of each 64 channels the channels 16 q ... 16 q + 15, as the file
// has them: a byte is two neighbours, the first in its high nibble.
#pragma once

#include "kernels/cuda/piece.cuh"
#include "kernels/cuda/tile.cuh"

namespace tandem {

struct LookupPiece {
  static constexpr int kGroup = 64;  // channels that share absmax
  static constexpr int kGroups = kPieceChannels / kGroup;
  static constexpr int kAbsmaxAt = 1024;
  static constexpr int kBytes = kAbsmaxAt + kTileRows * kGroups * 4;
};

struct Lookup {
  const uint8_t* w;
  const uint16_t* x;  // [T, ldx], bf16
  int64_t ldx;
  float* y;
  int64_t ldy;
  int pieces;  // of a row
  int K, N, T;
  bool accumulate;
  float values[16];
};

}  // namespace tandem
