// How long launches take within a CUDA graph, as those of a decode step do.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cuda/cuda_device.h"

namespace tandem {

// Seconds of one of `launches` launches that `record` makes.
inline double time_graph(CudaDevice& device, int launches, const std::function<void()>& record) {
  record();
  device.synchronize();
  CUDA_CHECK(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeThreadLocal));
  record();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  CUDA_CHECK(cudaStreamEndCapture(device.stream(), &graph));
  CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin = nullptr, end = nullptr;
  CUDA_CHECK(cudaEventCreate(&begin));
  CUDA_CHECK(cudaEventCreate(&end));
  std::vector<float> milliseconds(9);
  for (float& ms : milliseconds) {
    CUDA_CHECK(cudaEventRecord(begin, device.stream()));
    CUDA_CHECK(cudaGraphLaunch(exec, device.stream()));
    CUDA_CHECK(cudaEventRecord(end, device.stream()));
    CUDA_CHECK(cudaEventSynchronize(end));
    CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
  }
  CUDA_CHECK(cudaGraphExecDestroy(exec));
  CUDA_CHECK(cudaGraphDestroy(graph));
  std::sort(milliseconds.begin(), milliseconds.end());
  return milliseconds[milliseconds.size() / 2] * 1e-3 / launches;
}

}  // namespace tandem
