#include "kernels/cuda/cuda_device.h"

#include <cstring>

#include "base/error.h"
#include "kernels/cuda/cublas.h"
#include "kernels/rows.h"

namespace tandem {

void cuda_failed(cudaError_t error, const char* what) {
  const bool memory = error == cudaErrorMemoryAllocation;
  fail(memory ? ErrorKind::no_memory : ErrorKind::system, "CUDA: {}: {}", what,
       cudaGetErrorString(error));
}

void cuda_check_failed(const char* file, int line, const char* condition,
                       std::initializer_list<int64_t> values) {
  check_failed(file, line, condition, fmt::format("{}", fmt::join(values, " ")));
}

void cuda_refuse(const char* sentence, int64_t found) {
  fail(ErrorKind::no_device, "{} {}", sentence, found);
}

CudaDevice::CudaDevice(int index) : index_(index), name_(fmt::format("cuda:{}", index)) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    fail(ErrorKind::no_device, "no NVIDIA GPU can be used: {}",
         error != cudaSuccess ? cudaGetErrorString(error) : "the driver lists none");
  }
  if (index >= count)
    fail(ErrorKind::no_device, "{}: there are {} GPUs, numbered from 0", name_, count);
  CUDA_CHECK(cudaSetDevice(index));
  cudaDeviceProp properties;
  CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  description_ = fmt::format("{}, compute capability {}.{}", properties.name, properties.major,
                             properties.minor);
  if (properties.major != 9 || properties.minor != 0) {
    fail(ErrorKind::no_device, "{} is an {}; this build's kernels run on 9.0", name_, description_);
  }
  multiprocessors_ = properties.multiProcessorCount;
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  cublas_ = Cublas::open();
  if (cublas_ != nullptr) workspace_ = Buffer(kWorkspaceBytes, this);
}

CudaDevice::~CudaDevice() {
  cublas_.reset();
  scratch_ = Buffer();
  workspace_ = Buffer();
  cudaStreamDestroy(stream_);
}

std::byte* CudaDevice::allocate(size_t size_bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, size_bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(ErrorKind::no_memory, "{}: {} bytes wanted, {} free", name_, size_bytes, free_bytes());
  }
  CUDA_CHECK(error);
  CUDA_CHECK(cudaMemset(data, 0, size_bytes));
  CUDA_CHECK(cudaDeviceSynchronize());
  return static_cast<std::byte*>(data);
}

void CudaDevice::release(std::byte* data) noexcept { cudaFree(data); }

uint64_t CudaDevice::free_bytes() const {
  size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return free;
}

void CudaDevice::upload(void* to, const void* from, size_t size_bytes) {
  // From the host or, for weights made there, from the device.
  CUDA_CHECK(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDefault, stream_));
  CUDA_CHECK(cudaStreamSynchronize(stream_));
}

void CudaDevice::download(void* to, const void* from, size_t size_bytes) {
  CUDA_CHECK(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToHost, stream_));
  CUDA_CHECK(cudaStreamSynchronize(stream_));
}

void CudaDevice::synchronize() { CUDA_CHECK(cudaStreamSynchronize(stream_)); }

std::unique_ptr<DeviceStep> CudaDevice::make_step(const StepLimits& limits, int64_t H,
                                                  const KvLayout& layout) {
  return std::make_unique<CudaStep>(*this, stream_, limits, H, layout);
}

void CudaDevice::run(DeviceStep& step, const std::function<void()>& launch) {
  static_cast<CudaStep&>(step).run(launch);
}

std::byte* CudaDevice::scratch(size_t size_bytes) {
  if (scratch_.size_bytes() < size_bytes) {
    synchronize();
    scratch_ = Buffer();
    scratch_ = Buffer(size_bytes, this);
  }
  return scratch_.data();
}

std::byte* CudaDevice::Pinned::allocate(size_t size_bytes) {
  void* data = nullptr;
  CUDA_CHECK(cudaMallocHost(&data, size_bytes));
  std::memset(data, 0, size_bytes);
  return static_cast<std::byte*>(data);
}

void CudaDevice::Pinned::release(std::byte* data) noexcept { cudaFreeHost(data); }

std::shared_ptr<Device> open_cuda_device(int index) { return std::make_shared<CudaDevice>(index); }

}  // namespace tandem
