// Files: read-only mappings, whole-file reads with a cap, and writes that never leave a half file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace tandem {

// A regular file mapped read-only. Throws bad_file for what is missing, unreadable, or not a regular
// file (a FIFO or a device would hang). A file cut short while mapped raises SIGBUS: cli/main turns
// that into one line and exit 3.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  MappedFile(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // Gives the pages back to the system; a later access reads them from the file again.
  void release_pages() const;
  // Starts reading the file into the page cache.
  void prefetch() const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Throws bad_file if it cannot be read or is larger than max_bytes.
std::string read_text_file(const std::filesystem::path& path, uint64_t max_bytes);

// Writes to a temporary name in the same folder, syncs, then renames: the old file or the new one,
// never a part of it. `write` gets a sink for consecutive pieces. `before_rename`, where given, gets
// the whole file under its temporary name and may still change its bytes or throw. Throws system.
using ByteSink = std::function<void(std::span<const std::byte>)>;
using StagedPath = std::function<void(const std::filesystem::path& staged)>;
void write_file_atomic(const std::filesystem::path& path,
                       const std::function<void(const ByteSink&)>& write,
                       const StagedPath& before_rename = {});
void write_file_atomic(const std::filesystem::path& path, std::string_view text);

}  // namespace tandem
