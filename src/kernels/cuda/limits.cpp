// What a GPU reaches when nothing but one limit is exercised.
#include <algorithm>
#include <functional>

#include "base/error.h"
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/device_work.h"

namespace tandem {
namespace {

constexpr uint64_t kMostStreamBytes = uint64_t{8} << 30;  // far beyond any cache
constexpr int kLaunches = 1000;                           // in one graph
constexpr int64_t kGemmSize = 8192;
constexpr double kGemmSeconds = 0.5;  // long enough for clocks and power to settle

// Seconds between two points of the stream.
class Stopwatch {
 public:
  explicit Stopwatch(cudaStream_t stream) : stream_(stream) {
    CUDA_CHECK(cudaEventCreate(&begin_));
    CUDA_CHECK(cudaEventCreate(&end_));
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  double seconds(const std::function<void()>& work) {
    CUDA_CHECK(cudaEventRecord(begin_, stream_));
    work();
    CUDA_CHECK(cudaEventRecord(end_, stream_));
    CUDA_CHECK(cudaEventSynchronize(end_));
    float milliseconds = 0;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return 1e-3 * milliseconds;
  }
  // The shortest of several, after one that is not counted.
  double best(int times, const std::function<void()>& work) {
    seconds(work);
    double least = seconds(work);
    for (int i = 1; i < times; ++i) least = std::min(least, seconds(work));
    return least;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

void fill_random(CudaDevice& device, Buffer& buffer, const Encoding& encoding, int64_t K) {
  RandomRows rows;
  CHECK(random_rows_of(encoding, K, 1, rows), "{}", encoding.name());
  Buffer scales(65536, &device);
  const auto N = static_cast<int64_t>(buffer.size_bytes()) / rows.row_bytes;
  cuda_random_rows(rows, N, buffer.data(), scales.data(), device.stream());
  device.synchronize();
}

double launch_seconds(CudaDevice& device, Stopwatch& watch) {
  const cudaStream_t stream = device.stream();
  cuda_empty_kernel(stream);
  device.synchronize();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kLaunches; ++i) cuda_empty_kernel(stream);
  CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  const double best = watch.best(5, [&] { CUDA_CHECK(cudaGraphLaunch(exec, stream)); });
  CUDA_CHECK(cudaGraphExecDestroy(exec));
  CUDA_CHECK(cudaGraphDestroy(graph));
  return best / kLaunches;
}

// Products of square matrices of one type for kGemmSeconds, or nothing where cuBLASLt has none.
void add_gemm(CudaDevice& device, Stopwatch& watch, ActType type, const Encoding& encoding,
              DeviceLimits& limits) {
  constexpr int64_t n = kGemmSize;
  const auto element = static_cast<int64_t>(encoding.row_bytes(n)) / n;
  Buffer w(static_cast<size_t>(n * n * element), &device), x(w.size_bytes(), &device);
  Buffer y(static_cast<size_t>(n * n * 4), &device);
  fill_random(device, w, encoding, n);
  fill_random(device, x, encoding, n);
  const MatmulCall call{type, n, n, n, w.data(), n, x.data(), n, y.data(), n, false};
  if (!device.cublas()->matmul(call, device.stream())) return;
  const auto once = [&] { device.cublas()->matmul(call, device.stream()); };
  const int count = std::clamp(static_cast<int>(kGemmSeconds / watch.best(3, once)), 1, 10000);
  const double seconds = watch.seconds([&] {
    for (int i = 0; i < count; ++i) once();
  });
  limits.gemms.push_back(
      {act_type_name(type), n, 2.0 * n * n * n * static_cast<double>(count) / seconds});
}

}  // namespace

DeviceLimits cuda_measure_limits(CudaDevice& device) {
  DeviceLimits limits;
  Stopwatch watch(device.stream());
  {
    limits.stream_bytes = std::min(kMostStreamBytes, device.free_bytes() / 2) / 4096 * 4096;
    Buffer data(limits.stream_bytes, &device), out(16, &device);
    fill_random(device, data, kBF16, 2048);
    const auto bytes = static_cast<double>(limits.stream_bytes);
    limits.read_bytes_per_second = bytes / watch.best(5, [&] {
      cuda_read_stream(data.data(), limits.stream_bytes, out.as<uint32_t>(),
                       device.multiprocessors(), device.stream());
    });
    // Half of it onto the other half: as many bytes read and written together.
    limits.copy_bytes_per_second = bytes / watch.best(5, [&] {
      CUDA_CHECK(cudaMemcpyAsync(data.data() + limits.stream_bytes / 2, data.data(),
                                 limits.stream_bytes / 2, cudaMemcpyDeviceToDevice,
                                 device.stream()));
    });
  }
  limits.launch_seconds = launch_seconds(device, watch);
  if (device.cublas() != nullptr) {
    add_gemm(device, watch, ActType::bf16, kBF16, limits);
    add_gemm(device, watch, ActType::f16, kF16, limits);
    add_gemm(device, watch, ActType::int8_token, int8_channel(ScaleType::bf16), limits);
    add_gemm(device, watch, ActType::fp8_token, fp8_channel(ScaleType::bf16), limits);
  }
  return limits;
}

}  // namespace tandem
