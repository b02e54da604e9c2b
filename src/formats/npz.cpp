#include "formats/npz.h"

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <span>

#include "base/error.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr uint32_t kEndSignature = 0x06054b50, kEnd64Signature = 0x06064b50,
                   kLocator64Signature = 0x07064b50, kEntrySignature = 0x02014b50,
                   kLocalSignature = 0x04034b50;
constexpr uint64_t kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20, kEntryBytes = 46,
                   kLocalBytes = 30;
constexpr uint64_t kMaxComment = 0xFFFF, kMaxMembers = 1 << 16;
constexpr uint64_t kMaxArrayHeader = 4096;  // of a .npy file; NumPy's own are 128 bytes
constexpr uint32_t kIn64 = 0xFFFFFFFF;      // the number stands in the ZIP64 field

// Little endian, at an offset that is known to lie inside.
template <typename T>
T read_at(std::span<const std::byte> bytes, uint64_t offset) {
  return load_unaligned<T>(bytes.data() + offset);
}

// The three numbers that a ZIP64 field replaces, in the field's order.
struct Sizes {
  uint64_t bytes, packed_bytes, header_offset;
};

// False when a number is missing.
bool read_zip64(std::span<const std::byte> extra, Sizes* sizes) {
  uint64_t* wanted[] = {&sizes->bytes, &sizes->packed_bytes, &sizes->header_offset};
  for (uint64_t at = 0; at + 4 <= extra.size();) {
    const auto id = read_at<uint16_t>(extra, at), size = read_at<uint16_t>(extra, at + 2);
    if (at + 4 + size > extra.size()) return false;
    uint64_t from = at + 4;
    at += 4u + size;
    if (id != 1) continue;
    for (uint64_t* number : wanted) {
      if (*number != kIn64) continue;
      if (from + 8 > at) return false;
      *number = read_at<uint64_t>(extra, from);
      from += 8;
    }
    return true;
  }
  return std::ranges::none_of(wanted, [](const uint64_t* n) { return *n == kIn64; });
}

// The value of a key in the header's Python dictionary, up to `end`; empty when it is not there.
std::string_view value_of(std::string_view header, std::string_view key, char end) {
  const size_t at = header.find(key);
  if (at == std::string_view::npos) return {};
  std::string_view value = header.substr(at + key.size());
  while (!value.empty() && (value.front() == ' ' || value.front() == ':')) value.remove_prefix(1);
  const size_t length = value.find(end, 1);
  return length == std::string_view::npos ? std::string_view() : value.substr(0, length + 1);
}

std::string_view unquoted(std::string_view text) {
  return text.size() < 2 ? text : text.substr(1, text.size() - 2);
}

}  // namespace

NpzFile::NpzFile(const std::filesystem::path& path) : file_(path) {
  const auto bytes = file_.bytes();
  const std::string where = path.string();
  uint64_t end = bytes.size() < kEndBytes ? 0 : bytes.size() - kEndBytes + 1;
  const uint64_t first = end > kMaxComment ? end - kMaxComment : 0;
  bool found = false;
  while (end > first && !found) found = read_at<uint32_t>(bytes, --end) == kEndSignature;
  if (!found || end + kEndBytes + read_at<uint16_t>(bytes, end + 20) != bytes.size()) {
    fail(ErrorKind::bad_file, "{}: no ZIP archive's end, expected an .npz file of masks", where);
  }
  uint64_t count = read_at<uint16_t>(bytes, end + 10), size = read_at<uint32_t>(bytes, end + 12),
           offset = read_at<uint32_t>(bytes, end + 16);
  const bool is_split = read_at<uint32_t>(bytes, end + 4) != 0;  // the numbers of two disks
  uint64_t directory_end = end;
  if (end >= kLocator64Bytes &&
      read_at<uint32_t>(bytes, end - kLocator64Bytes) == kLocator64Signature) {
    const auto end64 = read_at<uint64_t>(bytes, end - kLocator64Bytes + 8);
    if (end64 > end - kLocator64Bytes || end - kLocator64Bytes - end64 < kEnd64Bytes ||
        read_at<uint32_t>(bytes, end64) != kEnd64Signature) {
      fail(ErrorKind::bad_file, "{}: the ZIP64 end record is not where it should be", where);
    }
    count = read_at<uint64_t>(bytes, end64 + 32);
    size = read_at<uint64_t>(bytes, end64 + 40);
    offset = read_at<uint64_t>(bytes, end64 + 48);
    directory_end = end64;
  }
  if (is_split || count > kMaxMembers || size > directory_end || offset > directory_end - size) {
    fail(ErrorKind::bad_file,
         "{}: a directory of {} members, {} bytes at {}, expected one whole archive of at most {}",
         where, count, size, offset, kMaxMembers);
  }
  add_members(offset, size, count);
}

void NpzFile::add_members(uint64_t offset, uint64_t size, uint64_t count) {
  const uint64_t end = offset + size;
  for (uint64_t i = 0; i < count; ++i) offset = add_member(offset, end);
  uint64_t packed = 0;
  for (const auto& [name, member] : members_) packed += member.packed_bytes;
  if (packed > file_.bytes().size()) {
    fail(ErrorKind::bad_file, "{}: members of {} bytes in a file of {}: they overlap",
         file_.path().string(), packed, file_.bytes().size());
  }
}

// One entry of the directory; the offset of the next.
uint64_t NpzFile::add_member(uint64_t offset, uint64_t end) {
  const auto bytes = file_.bytes();
  const std::string where = file_.path().string();
  if (end - offset < kEntryBytes || read_at<uint32_t>(bytes, offset) != kEntrySignature) {
    fail(ErrorKind::bad_file, "{}: the ZIP directory is cut at {}", where, offset);
  }
  const auto flags = read_at<uint16_t>(bytes, offset + 8);
  const auto method = read_at<uint16_t>(bytes, offset + 10);
  const uint64_t name_bytes = read_at<uint16_t>(bytes, offset + 28),
                 extra_bytes = read_at<uint16_t>(bytes, offset + 30),
                 comment_bytes = read_at<uint16_t>(bytes, offset + 32);
  const uint64_t next = offset + kEntryBytes + name_bytes + extra_bytes + comment_bytes;
  if (next > end) fail(ErrorKind::bad_file, "{}: the ZIP directory is cut at {}", where, offset);
  std::string name(reinterpret_cast<const char*>(bytes.data()) + offset + kEntryBytes, name_bytes);
  Sizes sizes{read_at<uint32_t>(bytes, offset + 24), read_at<uint32_t>(bytes, offset + 20),
              read_at<uint32_t>(bytes, offset + 42)};
  const bool sized =
      read_zip64(bytes.subspan(offset + kEntryBytes + name_bytes, extra_bytes), &sizes);
  if (!sized || (flags & 1) != 0 || (method != 0 && method != Z_DEFLATED) ||
      sizes.packed_bytes > bytes.size()) {
    fail(ErrorKind::bad_file,
         "{}: member {}: flags {:#x}, compression {}, {} bytes packed: expected a plain or deflated "
         "member that lies in the file",
         where, quote(name), flags, method, sizes.packed_bytes);
  }
  if (name.ends_with(".npy")) name.resize(name.size() - 4);
  const Member member{sizes.header_offset, sizes.packed_bytes, sizes.bytes,
                      read_at<uint32_t>(bytes, offset + 16), method == Z_DEFLATED};
  if (!members_.emplace(name, member).second) {
    fail(ErrorKind::bad_file, "{}: member {} stands twice", where, quote(name));
  }
  return next;
}

std::vector<std::string> NpzFile::names() const {
  std::vector<std::string> names;
  for (const auto& [name, member] : members_) names.push_back(name);
  return names;
}

std::vector<uint8_t> NpzFile::unpack(std::string_view name, const Member& member) const {
  const auto bytes = file_.bytes();
  const auto refuse = [&](const char* what) {
    fail(ErrorKind::bad_file, "{}: array {}: {}", file_.path().string(), quote(name), what);
  };
  const uint64_t at = member.header_offset;
  if (bytes.size() < kLocalBytes || at > bytes.size() - kLocalBytes ||
      read_at<uint32_t>(bytes, at) != kLocalSignature) {
    refuse("its header is not where the directory says");
  }
  const uint64_t begin = at + kLocalBytes + read_at<uint16_t>(bytes, at + 26) +
                         read_at<uint16_t>(bytes, at + 28);
  if (begin > bytes.size() || bytes.size() - begin < member.packed_bytes) refuse("its bytes are cut");
  const auto* packed = reinterpret_cast<const uint8_t*>(bytes.data()) + begin;
  std::vector<uint8_t> out(static_cast<size_t>(member.bytes));
  if (!member.is_deflated) {
    if (member.packed_bytes != member.bytes) refuse("its sizes differ though it is not compressed");
    std::copy_n(packed, member.bytes, out.begin());
  } else {
    // zlib counts in 32 bits.
    if (std::max(member.packed_bytes, member.bytes) > std::numeric_limits<uInt>::max()) {
      refuse("it is larger than 4 GiB");
    }
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) refuse("zlib cannot start");
    stream.next_in = const_cast<Bytef*>(packed);
    stream.avail_in = static_cast<uInt>(member.packed_bytes);
    stream.next_out = out.data();
    stream.avail_out = static_cast<uInt>(out.size());
    const int status = inflate(&stream, Z_FINISH);
    const bool whole = status == Z_STREAM_END && stream.avail_out == 0;
    inflateEnd(&stream);
    if (!whole) refuse("its compressed bytes are not what the directory says");
  }
  if (crc32_z(0, out.data(), out.size()) != member.crc) refuse("its checksum is wrong");
  return out;
}

std::vector<uint8_t> NpzFile::read_bytes(std::string_view name, uint64_t count) const {
  const std::string where = fmt::format("{}: array {}", file_.path().string(), quote(name));
  const auto found = members_.find(name);
  if (found == members_.end()) fail(ErrorKind::bad_file, "{}: missing", where);
  if (found->second.bytes < count || found->second.bytes - count > kMaxArrayHeader) {
    fail(ErrorKind::bad_file, "{}: {} bytes, expected a .npy array of {}", where,
         found->second.bytes, count);
  }
  std::vector<uint8_t> bytes = unpack(name, found->second);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const bool is_long = bytes.size() > 6 && bytes[6] >= 2;
  const uint64_t prefix = is_long ? 12 : 10;
  if (!text.starts_with("\x93NUMPY") || bytes.size() < prefix) {
    fail(ErrorKind::bad_file, "{}: expected a .npy array", where);
  }
  const uint64_t length = is_long ? load_unaligned<uint32_t>(bytes.data() + 8)
                                  : load_unaligned<uint16_t>(bytes.data() + 8);
  if (length > bytes.size() - prefix) fail(ErrorKind::bad_file, "{}: its header is cut", where);
  const std::string_view header = text.substr(prefix, length);
  const std::string_view type = value_of(header, "'descr'", '\''),
                         shape = value_of(header, "'shape'", ')');
  if (type.starts_with("'|O") || type.starts_with("'O")) {
    fail(ErrorKind::bad_file, "{}: pickled Python objects, which are never read", where);
  }
  if (type != "'|u1'" || shape != fmt::format("({},)", count) ||
      bytes.size() - prefix - length != count) {
    fail(ErrorKind::bad_file, "{}: dtype {} shape {}, expected '|u1' '({},)'", where,
         quote(unquoted(type)), quote(shape), count);
  }
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(prefix + length));
  return bytes;
}

}  // namespace tandem
