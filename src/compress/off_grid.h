// The off-grid twin of a model: the same function, other numbers. A model that was quantized before
// lies on a grid, which the same grid reproduces without loss; its twin lies on none, so that a
// method is judged by what it costs a model that no grid fits.
//
// Each channel gets a factor, log-uniform in [0.8, 1.25], in four places of a layer, and what reads
// the channel its inverse:
//   either norm's weights          against the columns of q, k, v and of gate, up
//   the rows of v (and its bias)   against the columns of o of that group's heads
//   the rows of up (and its bias)  against the columns of down
// The final norm stays: the output matrix may be the embedding.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/model_config.h"

namespace tandem {

// Element [n, k] of a tensor is to be multiplied by rows[n] * columns[k]; empty: by 1.
struct ChannelFactors {
  std::vector<double> rows, columns;

  bool is_identity() const { return rows.empty() && columns.empty(); }
};

// Of the tensor of this name (Hugging Face's), the same for the same seed.
ChannelFactors off_grid_factors(const ModelConfig& config, std::string_view tensor, uint64_t seed);

}  // namespace tandem
