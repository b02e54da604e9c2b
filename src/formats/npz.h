// NumPy's .npz: a ZIP archive of .npy arrays. Of it what masks need: one-dimensional arrays of bytes.
// Nothing is unpacked before its stated size is known to be the size wanted, so that an archive
// cannot fill the memory; pickled objects are never read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"

namespace tandem {

class NpzFile {
 public:
  // Throws bad_file when it is no ZIP archive, is cut, encrypted, spread over several files, or has
  // members that overlap, share a name or are compressed otherwise than by DEFLATE.
  explicit NpzFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  // Of the arrays, without ".npy", in byte order.
  std::vector<std::string> names() const;
  // The elements of an array of `count` bytes (dtype uint8, shape (count,)). Throws bad_file when it is
  // missing, of another type or shape, cut, or fails its checksum.
  std::vector<uint8_t> read_bytes(std::string_view name, uint64_t count) const;

 private:
  struct Member {
    uint64_t header_offset = 0;  // of the local header
    uint64_t packed_bytes = 0, bytes = 0;
    uint32_t crc = 0;
    bool is_deflated = false;
  };
  void add_members(uint64_t offset, uint64_t size, uint64_t count);
  uint64_t add_member(uint64_t offset, uint64_t end);
  std::vector<uint8_t> unpack(std::string_view name, const Member& member) const;

  MappedFile file_;
  std::map<std::string, Member, std::less<>> members_;
};

}  // namespace tandem
