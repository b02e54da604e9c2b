// An owned block of memory: the host's, 64-byte aligned, zeroed by the system on first touch, huge pages asked
// for; or a device's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem {

// Memory that is not the host's: its addresses mean nothing to the host but as numbers.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  // 256-byte aligned and zero. Throws no_memory with the bytes wanted and free.
  virtual std::byte* allocate(size_t size_bytes) = 0;
  virtual void release(std::byte* data) noexcept = 0;
};

class Buffer {
 public:
  Buffer() = default;
  // Host: reserves address space; a page costs memory from its first touch on. `device` must outlive the
  // buffer. Throws no_memory.
  explicit Buffer(size_t size_bytes, DeviceMemory* device = nullptr);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }
  // Host: gives the memory back and keeps the addresses, which fault until open(): zero again. CHECKed.
  void close();
  void open();
  template <typename T>
  T* as(size_t offset_bytes = 0) {
    return reinterpret_cast<T*>(data_ + offset_bytes);
  }
  template <typename T>
  const T* as(size_t offset_bytes = 0) const {
    return reinterpret_cast<const T*>(data_ + offset_bytes);
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  DeviceMemory* device_ = nullptr;  // null: the host
};

// Memory handed out piece by piece and given back all at once: the weights of a model lie in a few
// large blocks, so that huge pages hold them and a step does not spend its time on address translation.
class Arena {
 public:
  explicit Arena(DeviceMemory* device = nullptr) : device_(device) {}
  // 64-byte aligned (a device's: 256); zero until written. Valid as long as the arena.
  std::byte* take(size_t size_bytes);
  size_t used_bytes() const { return used_bytes_; }

 private:
  DeviceMemory* device_;
  std::vector<Buffer> blocks_;
  size_t left_ = 0;        // free bytes at the end of the last block
  size_t used_bytes_ = 0;
};

}  // namespace tandem
