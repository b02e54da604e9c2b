// How every kernel here is launched: the next kernel's blocks may become resident while this one's
// finish (programmatic dependent launch). So every kernel calls launch_dependents() first and
// wait_for_inputs() before it touches anything that an earlier kernel of the step wrote, or writes
// anything at all.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/cuda_device.h"

namespace tandem {

__device__ __forceinline__ void launch_dependents() {
  asm volatile("griddepcontrol.launch_dependents;");
}
__device__ __forceinline__ void wait_for_inputs() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

// `cluster` neighbouring blocks along x run at once and see each other's shared memory; it divides
// grid.x.
template <typename... Params, typename... Args>
void launch_clusters(const Context& context, void (*kernel)(Params...), unsigned cluster, dim3 grid,
                     dim3 block, size_t shared_bytes, Args... args) {
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = cluster;
  attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = cuda_stream(context);
  config.attrs = attributes;
  config.numAttrs = cluster > 1 ? 2 : 1;
  CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...));
}

template <typename... Params, typename... Args>
void launch(const Context& context, void (*kernel)(Params...), dim3 grid, dim3 block,
            size_t shared_bytes, Args... args) {
  launch_clusters(context, kernel, 1, grid, block, shared_bytes, args...);
}

inline unsigned blocks_for(int64_t count, int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

}  // namespace tandem
