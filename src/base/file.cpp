#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/error.h"

namespace tandem {
namespace {

// Opens a regular file for reading and gives its size; O_NONBLOCK keeps a FIFO from hanging.
int open_regular(const std::filesystem::path& path, size_t* size_bytes) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail(ErrorKind::bad_file, "{}: {}", path.string(), std::strerror(errno));
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    const int error = errno;
    ::close(fd);
    fail(ErrorKind::bad_file, "{}: {}", path.string(), std::strerror(error));
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(fd);
    fail(ErrorKind::bad_file, "{}: {}, expected a regular file", path.string(),
         S_ISDIR(status.st_mode) ? "is a directory" : "is not a regular file");
  }
  *size_bytes = static_cast<size_t>(status.st_size);
  return fd;
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const int fd = open_regular(path, &size_);
  if (size_ > 0) {
    void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    ::close(fd);
    if (data == MAP_FAILED) {
      fail(ErrorKind::bad_file, "{}: cannot be mapped: {}", path.string(), std::strerror(error));
    }
    data_ = static_cast<const std::byte*>(data);
  } else {
    ::close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(other.data_), size_(other.size_) {
  other.data_ = nullptr;
  other.size_ = 0;
}

void MappedFile::release_pages() const {
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_, MADV_DONTNEED);
}

void MappedFile::prefetch() const {
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_, MADV_WILLNEED);
}

std::string read_text_file(const std::filesystem::path& path, uint64_t max_bytes) {
  size_t size = 0;
  const int fd = open_regular(path, &size);
  if (size > max_bytes) {
    ::close(fd);
    fail(ErrorKind::bad_file, "{}: {} bytes, at most {} are read", path.string(), size, max_bytes);
  }
  std::string text(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t n = ::read(fd, text.data() + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int error = errno;
      ::close(fd);
      fail(ErrorKind::bad_file, "{}: {}", path.string(),
           n == 0 ? "became shorter while being read" : std::strerror(error));
    }
    done += static_cast<size_t>(n);
  }
  ::close(fd);
  return text;
}

void write_file_atomic(const std::filesystem::path& path,
                       const std::function<void(const ByteSink&)>& write,
                       const StagedPath& before_rename) {
  std::string temporary = path.string() + ".XXXXXX";
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  const auto give_up = [&](const char* doing, int error) {
    if (fd >= 0) {
      ::close(fd);
      ::unlink(temporary.c_str());
    }
    fail(ErrorKind::system, "{}: cannot {}: {}", path.string(), doing, std::strerror(error));
  };
  if (fd < 0) give_up("create", errno);
  try {
    write([&](std::span<const std::byte> piece) {
      size_t done = 0;
      while (done < piece.size()) {
        const ssize_t n = ::write(fd, piece.data() + done, piece.size() - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail(ErrorKind::system, "{}: cannot write: {}", path.string(), std::strerror(errno));
        done += static_cast<size_t>(n);
      }
    });
    if (before_rename) before_rename(temporary);
  } catch (...) {
    ::close(fd);
    ::unlink(temporary.c_str());
    throw;
  }
  if (::fchmod(fd, 0644) != 0 || ::fsync(fd) != 0) give_up("write", errno);
  if (::rename(temporary.c_str(), path.c_str()) != 0) give_up("rename", errno);
  ::close(fd);
}

void write_file_atomic(const std::filesystem::path& path, std::string_view text) {
  write_file_atomic(path, [&](const ByteSink& sink) {
    sink({reinterpret_cast<const std::byte*>(text.data()), text.size()});
  });
}

}  // namespace tandem
