#include "kernels/cuda/cuda_device.h"

#include <cstring>

#include "base/error.h"
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/device_work.h"
#include "kernels/cuda/older/generations.h"
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

namespace {

std::string cuda_version(int number) {
  return fmt::format("{}.{}", number / 1000, number % 1000 / 10);
}

// The devices there are. Each way to have none is said in its own words.
int device_count() {
  int count = 0, driver = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return count;
  cudaDriverGetVersion(&driver);
  if (driver == 0) {
    fail(ErrorKind::no_device, "no NVIDIA GPU can be used: libcuda.so.1, the driver, is not found");
  }
  if (error == cudaErrorInsufficientDriver) {
    fail(ErrorKind::no_device, "the NVIDIA driver runs CUDA {}; expected {} or newer",
         cuda_version(driver), cuda_version(CUDART_VERSION));
  }
  fail(ErrorKind::no_device, "no NVIDIA GPU can be used: {}",
       error != cudaSuccess ? cudaGetErrorString(error) : "the driver lists none");
}

// The generation whose kernels a GPU of this capability runs: the newest of this build that it can,
// or `cap`. Hopper's machine code runs on Hopper alone, the others' PTX on what is newer.
const Generation& choose_generation(const DeviceFacts& facts, int capability,
                                    std::string_view cap) {
  std::string names;
  for (const Generation& generation : built_generations()) {
    const bool runs =
        generation.capability == 90 ? capability == 90 : capability >= generation.capability;
    if (runs && (cap.empty() || cap == generation.name)) return generation;
    names += (names.empty() ? "" : ", ") + std::string(generation.name);
  }
  fail(ErrorKind::no_device, "{} is an {}; {}this build has kernels for {}", facts.name,
       facts.description(), cap.empty() ? "" : fmt::format("it cannot run {}, ", cap), names);
}

}  // namespace

DeviceFacts describe_cuda_device(int index, std::string_view cap) {
  DeviceFacts facts;
  facts.name = fmt::format("cuda:{}", index);
  if (const int count = device_count(); index >= count) {
    fail(ErrorKind::no_device, "{}: there {} {} GPU{}, numbered from 0", facts.name,
         count == 1 ? "is" : "are", count, count == 1 ? "" : "s");
  }
  cudaDeviceProp properties;
  CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  facts.model = properties.name;
  facts.capability = fmt::format("{}.{}", properties.major, properties.minor);
  facts.generation = choose_generation(facts, 10 * properties.major + properties.minor, cap).name;
  facts.is_capped = !cap.empty();
  char address[32] = "";
  CUDA_CHECK(cudaDeviceGetPCIBusId(address, sizeof address, index));
  facts.pci_address = address;
  int driver = 0;
  CUDA_CHECK(cudaDriverGetVersion(&driver));
  facts.driver_cuda = cuda_version(driver);
  facts.memory_bytes = properties.totalGlobalMem;
  facts.cache_bytes = static_cast<uint64_t>(properties.l2CacheSize);
  facts.multiprocessors = properties.multiProcessorCount;
  return facts;
}

CudaDevice::CudaDevice(int index, std::string_view cap) {
  const DeviceFacts facts = describe_cuda_device(index, cap);
  for (const Generation& generation : kGenerations) {
    if (facts.generation == generation.name) isa_ = generation.isa;
  }
  name_ = facts.name;
  description_ = facts.description();
  multiprocessors_ = facts.multiprocessors;
  CUDA_CHECK(cudaSetDevice(index));
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  if (isa_ == kGenerations[0].isa) cublas_ = Cublas::open();
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

std::string CudaDevice::gemm_library() const {
  if (cublas_ == nullptr) return "";
  const uint64_t version = cublas_->version();
  return fmt::format("cuBLASLt {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

DeviceLimits CudaDevice::measure_limits() { return cuda_measure_limits(*this); }

void CudaDevice::random_rows(const RandomRows& rows, int64_t N, std::byte* data,
                             std::byte* scales) {
  cuda_random_rows(rows, N, data, scales, stream_);
  synchronize();
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
  return std::make_unique<CudaStep>(*this, limits, H, layout);
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

std::shared_ptr<Device> open_cuda_device(int index, std::string_view cap) {
  return std::make_shared<CudaDevice>(index, cap);
}

}  // namespace tandem
