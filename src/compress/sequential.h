// The engine of calibrated compression: true-sequential, streaming by layer. Within a layer the sets
// are compressed one after the other (qkv, o, gate_up, down), each on the inputs that the compressed
// weights before it make; each linear runs once over the calibration rows. Memory holds one layer,
// the residual stream and one set's inputs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "compress/calibration_rows.h"
#include "compress/step.h"
#include "formats/checkpoint.h"
#include "kernels/float_work.h"

namespace tandem {

struct SequentialProgress {
  int64_t layer = 0;
  int64_t num_layers = 0;
  LinearSet set = LinearSet::qkv;  // the one being worked on
  double share = 0;  // of the sets that no earlier run has finished, 0 to 1
};

using Steps = std::vector<std::unique_ptr<Step>>;

// Works through all layers and leaves each as `folder`/layer-N.safetensors; layers that are there
// already are read instead. `finished` sees each. `rows` may be null where no step needs inputs.
// `progress` may throw to end the work; finished layers stay. Throws usage when two steps give one matrix its result.
// With `device`, the rows run over the layers there, and so do steps that can; throws no_memory with
// the bytes wanted and free.
void compress_layers(const Checkpoint& source, const Steps& steps, const CalibrationRows* rows,
                     const std::filesystem::path& folder, ThreadPool& pool,
                     const std::function<void(const SequentialProgress&)>& progress,
                     const std::function<void(int64_t layer, const LayerWeights&)>& finished,
                     FloatWork* device = nullptr);

std::filesystem::path layer_file(const std::filesystem::path& folder, int64_t layer);

// Bytes of the activations of all rows, while they run through a layer.
uint64_t calibration_bytes(const ModelConfig& config, const CalibrationRows& rows);
// Of those that compress_layers holds for these steps.
uint64_t calibration_bytes(const ModelConfig& config, const Steps& steps,
                           const CalibrationRows& rows);

// The same in a device's memory.
uint64_t device_calibration_bytes(const ModelConfig& config, const CalibrationRows& rows);

bool needs_inputs(const Steps& steps);

}  // namespace tandem
