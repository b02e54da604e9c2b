// An owned block of memory, 64-byte aligned, zeroed by the system on first touch, huge pages asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem {

class Buffer {
 public:
  Buffer() = default;
  // Reserves address space; a page costs memory from its first touch on. Throws no_memory.
  explicit Buffer(size_t size_bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }
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
};

// Memory handed out piece by piece and given back all at once: the weights of a model lie in a few
// large blocks, so that huge pages hold them and a step does not spend its time on address translation.
class Arena {
 public:
  // 64-byte aligned; zero until written. Valid as long as the arena.
  std::byte* take(size_t size_bytes);
  size_t used_bytes() const { return used_bytes_; }

 private:
  std::vector<Buffer> blocks_;
  size_t left_ = 0;        // free bytes at the end of the last block
  size_t used_bytes_ = 0;
};

}  // namespace tandem
