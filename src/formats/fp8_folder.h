// Hugging Face folders with quant_method fp8, as vLLM and DeepSeek have them: a linear layer is
//   NAME.weight E4M3 [N, K] with NAME.weight_scale, one number or [N, 1], or, where the config names
//   weight_block_size, NAME.weight_scale_inv [N / 128, K / 128], both rounded up. It multiplies.
//   NAME.input_scale, one number: activation_scheme "static"
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "formats/byte_weights.h"
#include "formats/checkpoint.h"

namespace tandem {

struct Fp8Config {
  bool has_input_scales = false;
  int64_t block_rows = 0;           // 0: a scale for the tensor or a row
  std::vector<std::string> ignored;  // modules left in plain numbers: "lm_head"
};

// Whether config.json's quantization_config has quant_method fp8.
bool is_fp8_config(const Json& json);

// Throws bad_file naming what this version does not know.
Fp8Config read_fp8_config(const Json& json, const std::string& where);

// The tensors of a file as weights, in file order; scales that stand for several rows are repeated in
// buffers that `memory` gets. Throws bad_file.
std::vector<NamedTensor> read_fp8_weights(const SafetensorsFile& file, const Fp8Config& config,
                                          const std::string& where,
                                          std::vector<std::shared_ptr<const Buffer>>* memory);

}  // namespace tandem
