// The part of a Hugging Face folder that compressed-tensors defines: quantization_config and the
// tensor groups it stands for become Weights.
//   int-quantized:   NAME.weight int8 [N,K], NAME.weight_scale [N,1] ([N,K/g] in groups, [1])
//   float-quantized: NAME.weight E4M3 [N,K], NAME.weight_scale [N,1], [1] or [N/128,K/128] rounded up
//   both: NAME.input_scale [1] where the scale of the activations is fixed
//   sparse-24-bitmask: NAME.compressed [N,K/2], NAME.bitmask U8 [N,K/8], NAME.shape int64 [2,1]; of
//   float-quantized and int-quantized codes as of plain numbers. Of pack-quantized ones, which the
//   library does not define: NAME.compressed int32 [N,K/16], the nibbles kept
//   pack-quantized:  NAME.weight_packed int32 [N, K bits/32], fields along K, code = q +
//   2^(bits-1); NAME.weight_scale [N,K/g], NAME.weight_shape int64 [2]
//   marlin-24: formats/marlin24.h, read only
// Asymmetric: NAME.weight_zero_point, int8 of the scales' shape; packed: int32 [N bits/32, K/g],
// fields along N, zero = z + 2^(bits-1). NAME.weight_g_idx int32 [K], the group of each channel:
// act-order.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/byte_weights.h"
#include "formats/checkpoint.h"
#include "formats/module_pattern.h"
#include "formats/safetensors.h"

namespace tandem {

// What one of config_groups makes of its modules.
struct WeightScheme {
  enum class Kind : uint8_t {
    bytes,     // E4M3, or int8 that meets int8: `bytes` says how they are scaled
    integers,  // bits, groups and zero points as below, in bytes or in words
  };
  enum class Scales : uint8_t { tensor, channel, group };

  Kind kind = Kind::bytes;
  ByteScheme bytes = {};
  bool all_linear = true;              // a target is "Linear"
  std::vector<ModulePattern> targets;  // the others
  bool in_words = false;               // pack-quantized
  int bits = 8;
  Scales scales = Scales::channel;
  int64_t group = 0;  // Scales::group only
  bool symmetric = true;
  bool is_marlin24 = false;  // formats/marlin24.h
  bool reorders = false;  // actorder "group": weight_g_idx may be in any order
};

struct QuantizationConfig {
  std::vector<WeightScheme> schemes;
  std::vector<ModulePattern> ignored;  // modules left in plain numbers: "lm_head"
  bool has_masks = false;              // sparse-24-bitmask: NAME.compressed for NAME.weight

  // Of names before patterns before "Linear", and of equals the first; nullptr: left in plain
  // numbers.
  const WeightScheme* scheme_of(std::string_view module) const;
};

// `json` is config.json's quantization_config. Throws bad_file naming what this version does not
// know.
QuantizationConfig read_quantization_config(const Json& json, const std::string& where);

// The tensors of a file as weights, in file order; every linear layer must be as the config says.
// What has to be repacked is among `planes`, unmade; scales that stand for several rows are repeated
// in buffers that `memory` gets. Both null without a quantization.
std::vector<NamedTensor> read_weights(const SafetensorsFile& file,
                                      const std::optional<QuantizationConfig>& quantization,
                                      const std::string& where, RepackedPlanes* planes = nullptr,
                                      std::vector<std::shared_ptr<const Buffer>>* memory = nullptr);

}  // namespace tandem
