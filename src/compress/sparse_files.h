// A pruned matrix -> the tensors of a sparse-24-bitmask folder: the values kept beside a mask of
// their places, so that it runs as 2:4 and not dense with zeros. formats/compressed_tensors.h reads
// them back.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "compress/layer_weights.h"

namespace tandem {

// What the matrix runs as: bf16_24 without a result, int8_channel_24 or int4_group_24 of a grid,
// fp8_channel_24 of E4M3. `quantizes_inputs`: a scale a token goes with its 8 bits. Throws usage,
// opening with `module`, for one that is not pruned and for a result that has no 2:4 form.
Encoding sparse_encoding(const std::string& module, const LinearWork& work, bool quantizes_inputs);

// The tensors of `module`, [N, K] of sparse_encoding's. `work` gives the matrix anew for each of
// them, since they are written far apart.
std::vector<TensorSource> sparse_tensors(const std::string& module, const Encoding& encoding,
                                         int64_t N, int64_t K,
                                         std::function<const LinearWork&()> work);

// "sparsity_config" of quantization_config; `ignored` modules are dense.
Json sparsity_config_json(const std::vector<std::string>& ignored);

}  // namespace tandem
