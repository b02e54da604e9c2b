// EncodedMatrix -> the tensors of a module and what compressed-tensors' config says of them:
// float-quantized, E4M3 codes with a bf16 scale a row, a matrix or a block.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "compress/layer_weights.h"

namespace tandem {

// What must be known before a matrix is made.
struct EncodedShape {
  Encoding encoding;
  int64_t N = 0;
  int64_t K = 0;
  int64_t scale_rows = 1;  // as in EncodedMatrix

  bool is_one_scale() const { return encoding.group == 0 && scale_rows == N && N > 1; }
};

// The tensors of `module` ("model.layers.0.mlp.up_proj"); `make` gives the matrix anew for each.
// CHECKs that the encoding is fp8_channel or fp8_block.
std::vector<TensorSource> encoded_tensors(const std::string& module, const EncodedShape& shape,
                                          const std::function<EncodedMatrix()>& make);

// An entry of "config_groups". Inputs are a recipe's activations, "none", "dynamic" or "static", for
// blocks dynamic alone: CHECKed; `targets` are modules, or "Linear".
Json encoded_scheme_json(const EncodedShape& shape, const std::string& activations,
                         const std::vector<std::string>& targets);

}  // namespace tandem
