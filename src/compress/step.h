// A step of a recipe. A recipe is an ordered list of them; for each layer
//
//   1. every step, in order, may prepare the whole layer: change the floats so that the layer's
//      function stays (fold factors from a linear into the norm or linear that feeds it) or nearly
//      (clip);
//   2. for each set in order (qkv, o, gate_up, down) every step, in order, may change the set's
//      floats, the norm that feeds it, mark pruned weights, or give its matrices their result.
//
// After a set's steps the engine replaces its floats by what the results decode to, so that all
// later inputs come from the compressed weights. A step leaves matrices alone that its options leave
// out, and must keep what earlier steps did: a pruned weight stays 0, a matrix with a result is done.
#pragma once

#include <memory>
#include <string_view>

#include "compress/layer_work.h"
#include "compress/step_options.h"

namespace tandem {

// What must be measured for a step.
struct StepNeeds {
  bool inputs = false;        // run_set reads SetWork::inputs
  bool gram = false;          // and their gram (in layer_inputs too)
  bool layer_inputs = false;  // prepare_layer reads LayerWork::inputs
  bool search = false;        // prepare_layer reads LayerWork::search
  // With SetWork::device, run_set reads the gram there and nothing else of the inputs.
  bool device_gram = false;
};

class Step {
 public:
  virtual ~Step() = default;
  virtual StepNeeds needs() const = 0;
  // Whether it gives the matrix its result: two steps that do contradict each other.
  virtual bool gives_result(int64_t layer, Linear linear) const = 0;
  virtual void prepare_layer(LayerWork&) {}
  virtual void run_set(SetWork&) {}
};

// A method by name: the row that makes its step. `spec` holds the options; the maker reads and so
// checks all of them. Throws usage.
struct Method {
  std::string_view name;
  std::unique_ptr<Step> (*make)(const StepSpec& spec, const ModelConfig& config);
};

}  // namespace tandem
