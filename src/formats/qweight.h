// The part of a Hugging Face folder that GPTQ and AWQ define: a linear layer is three tensors of
// integers and scales, which become a Weight of int4_group or int*_zero when a kernel wants them.
// G groups of channels share a scale; words are int32, fields start at the lowest bit.
//   gptq      NAME.qweight [K bits/32, N]: fields along K      NAME.qzeros [G, N bits/32]: along N,
//   v1
//             one less than the zero point; v2 the zero point  NAME.scales [G, N]
//             NAME.g_idx [K]: the group of each channel; missing: k / group
//   awq gemm  NAME.qweight [K, N/8]: along N, nibble i of a word is column kAwqOrder[i] of its
//   eight
//             NAME.qzeros [G, N/8] likewise                    NAME.scales [G, N]
//   awq gemv  NAME.qweight [N, K/8]: along K                   NAME.qzeros [N, Z]: along G, padded
//             NAME.scales [N, 8 Z]
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "formats/checkpoint.h"
#include "formats/safetensors.h"

namespace tandem {

// Nibble i of a word of AutoAWQ's GEMM layout holds this one of its eight columns.
inline constexpr int kAwqOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};

struct QweightConfig {
  enum class Layout : uint8_t { gptq, awq_gemm, awq_gemv };
  Layout layout = Layout::gptq;
  int bits = 4;
  int64_t group = 0;               // 0: the whole row
  bool zeros_less_one = false;     // GPTQ v1
  bool symmetric = false;          // GPTQ says so: every zero point is 2^(bits - 1)
  bool reorders = false;           // GPTQ: desc_act, g_idx may be in any order
  std::vector<std::string> plain;  // parts of the names of modules left in plain numbers
  std::vector<std::string>
      quantized;  // ends of the names of those quantized; empty: all linear ones

  std::string name() const;  // "GPTQ v2", "AWQ gemm"
};

// Whether config.json's quantization_config is GPTQ's or AWQ's.
bool is_qweight(const Json& json);

// Throws bad_file naming what this version does not know.
QweightConfig read_qweight_config(const Json& json, const std::string& where);

// The tensors of a file as weights, in file order; the planes of the quantized ones are among
// `planes`, unmade. `bytes` must outlive them. Throws bad_file.
std::vector<NamedTensor> read_qweights(const SafetensorsFile& file, const QweightConfig& config,
                                       const std::string& where, RepackedPlanes* planes,
                                       std::vector<std::string>* warnings);

}  // namespace tandem
