// The part of a Hugging Face folder that compressed-tensors defines: quantization_config and the
// tensor groups it stands for become Weights.
//   int-quantized:   NAME.weight int8 [N,K], NAME.weight_scale [N,1]
//   float-quantized: NAME.weight E4M3 [N,K], NAME.weight_scale [N,1]
//   pack-quantized: NAME.weight_packed int32 [N,K/8], NAME.weight_scale [N,K/g], NAME.weight_shape
//   int64 [2]
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/checkpoint.h"
#include "formats/safetensors.h"

namespace tandem {

struct QuantizationConfig {
  // Of the linear layers: int8_channel (int-quantized), int4_group (pack-quantized), fp8_channel or
  // fp8_weight (float-quantized, with and without quantized activations).
  Packing packing = Packing::int8_channel;
  int64_t group = 0;                 // elements that share a scale; int4_group only
  std::vector<std::string> ignored;  // modules left in plain numbers: "lm_head"
};

// `json` is config.json's quantization_config. Throws bad_file naming what this version does not
// know.
QuantizationConfig read_quantization_config(const Json& json, const std::string& where);

// The tensors of a file as weights, in file order; every linear layer must be as the config says.
std::vector<NamedTensor> read_weights(const SafetensorsFile& file,
                                      const std::optional<QuantizationConfig>& quantization,
                                      const std::string& where);

}  // namespace tandem
