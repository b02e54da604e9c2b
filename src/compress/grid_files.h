// GridMatrix -> the tensors of a module and the quantization_config of a folder, in the layouts
// that the field's libraries read: compressed-tensors, GPTQ, AWQ (formats/compressed_tensors.h and
// qweight.h read them back).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/thread_pool.h"
#include "compress/integer_grid.h"
#include "formats/checkpoint.h"

namespace tandem {

enum class GridLayout : uint8_t {
  pack_quantized,  // compressed-tensors: 2, 3, 4, 8 bits
  int_quantized,   // compressed-tensors: bytes
  gptq,
  gptq_v2,  // 2, 3, 4, 8 bits, scales f16
  awq,      // AutoAWQ's GEMM: 4 bits, scales f16
};

// "compressed-tensors pack-quantized", "GPTQ v2", ...
std::string_view grid_layout_name(GridLayout layout);

// What must be known before a matrix is made.
struct GridShape {
  IntegerGrid grid;
  int64_t N = 0;
  int64_t K = 0;
  bool act_order = false;  // the matrix may have columns
};

// Throws usage naming what the layout cannot hold; `module` opens the message.
void check_layout(GridLayout layout, const std::string& module, const GridShape& shape);

// A matrix when it is wanted; where its codes are not, they may be left out.
using MakeGrid = std::function<std::shared_ptr<const GridMatrix>(bool with_codes)>;

// The tensors of `module` ("model.layers.0.mlp.up_proj"). `make` gives the matrix anew for each of
// them, since they are written far apart. The pool must outlive them. GPTQ v1 cannot say a zero point
// of 0: writing throws usage.
std::vector<TensorSource> grid_tensors(GridLayout layout, const std::string& module,
                                       const GridShape& shape, MakeGrid make, ThreadPool& pool);

// Modules of one grid.
struct GridGroup {
  IntegerGrid grid;
  bool act_order = false;
  std::vector<std::string> modules = {};  // by name; empty: all linear ones that no other group names
};

// "quantization_config" of config.json; `ignored` modules stay plain. Several groups are
// compressed-tensors' alone: CHECKed.
std::string grid_config_json(GridLayout layout, const std::vector<GridGroup>& groups,
                             const std::vector<std::string>& ignored);
// An entry of compressed-tensors' "config_groups", inputs unquantized.
Json grid_scheme_json(GridLayout layout, const GridGroup& group);
// The whole of them; every scheme names its "format".
std::string compressed_tensors_json(const std::vector<Json>& schemes,
                                    const std::vector<std::string>& ignored);

}  // namespace tandem
