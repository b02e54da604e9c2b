#include "formats/gguf.h"

#include <algorithm>
#include <bit>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "base/utf8.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

// Far above every published model, far below what would cost memory or time.
constexpr uint64_t kMaxEntries = 65536;  // metadata keys, and tensors
constexpr uint64_t kMaxKeyBytes = 64 << 10;
constexpr uint64_t kMaxStringBytes = 64 << 20;
constexpr uint64_t kMaxElements = 16 << 20;
constexpr uint64_t kMaxAlignment = 64 << 10;
constexpr uint64_t kMaxNameBytes = 63;
// The shortest possible entries: key length, one byte of key, type, one byte of value; and name
// length, one byte of name, number of dimensions, one dimension, type, offset.
constexpr uint64_t kMinMetadataBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

// What GGUF calls its tensor types; empty: removed or never given.
constexpr std::string_view kTensorTypes[] = {
    "F32",     "F16",   "Q4_0",   "Q4_1",  "",      "",       "Q5_0", "Q5_1",    "Q8_0",
    "Q8_1",    "Q2_K",  "Q3_K",   "Q4_K",  "Q5_K",  "Q6_K",   "Q8_K", "IQ2_XXS", "IQ2_XS",
    "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",   "I16",     "I32",
    "I64",     "F64",   "IQ1_M",  "BF16",  "",      "",       "",     "TQ1_0",   "TQ2_0",
    "",        "",      "",       "MXFP4", "NVFP4"};

constexpr std::pair<uint32_t, Encoding> kEncodings[] = {
    {0, kF32},  {1, kF16},  {2, kQ4_0},  {3, kQ4_1},  {6, kQ5_0},  {7, kQ5_1},    {8, kQ8_0},
    {10, kQ2_K}, {11, kQ3_K}, {12, kQ4_K}, {13, kQ5_K}, {14, kQ6_K}, {20, kIQ4_NL}, {30, kBF16}};

// Reads the file from front to back; every read is checked against the end.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }

  std::span<const std::byte> take(uint64_t size, std::string_view what) {
    if (size > left()) {
      fail(ErrorKind::bad_file, "{}: {} at offset {} needs {} bytes, {} are left in the file",
           name_, what, offset_, size, left());
    }
    const auto piece = bytes_.subspan(offset_, size);
    offset_ += size;
    return piece;
  }
  template <typename T>
  T number(std::string_view what) {
    return load_unaligned<T>(take(sizeof(T), what).data());
  }
  std::string_view string(uint64_t max_bytes, std::string_view what) {
    const auto size = number<uint64_t>(what);
    if (size > max_bytes) {
      fail(ErrorKind::bad_file, "{}: {} at offset {} has {} bytes, at most {} are read", name_,
           what, offset_ - 8, size, max_bytes);
    }
    const auto piece = take(size, what);
    return {reinterpret_cast<const char*>(piece.data()), piece.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& name_;
  uint64_t offset_ = 0;
};

// What a file without GGUF's magic looks like.
std::string_view look_alike(std::string_view head) {
  const auto starts = [&](std::string_view prefix) {
    return head.substr(0, prefix.size()) == prefix;
  };
  if (starts("FUGG"))
    return "looks like a big-endian GGUF file: convert it with gguf-convert-endian";
  if (starts("ggml") || starts("lmgg") || starts("fmgg") || starts("tjgg")) {
    return "looks like a GGML or GGJT file from before GGUF: convert it to GGUF";
  }
  if (starts("GGML") || starts("GGJT") || starts("GGMF")) {
    return "looks like a GGML or GGJT file from before GGUF: convert it to GGUF";
  }
  if (starts("\x1f\x8b")) return "looks like a gzip archive: unpack it first";
  if (starts("PK\x03\x04")) return "looks like a zip archive: unpack it first";
  if (starts("version https://git-lfs")) return "is a Git LFS pointer: run git lfs pull";
  const size_t text = head.find_first_not_of(" \t\r\n");
  if (text != std::string_view::npos && head[text] == '<') {
    return "looks like a web page, perhaps an error page: download the file again";
  }
  return "is not a GGUF file";
}

uint32_t read_preamble(Reader& reader, std::span<const std::byte> bytes, const std::string& name) {
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()),
                              std::min<size_t>(bytes.size(), 64));
  if (head.size() >= 4 && head.substr(0, 4) != "GGUF") {
    fail(ErrorKind::bad_file, "{}: {} (starts with {}, expected 'GGUF')", name, look_alike(head),
         quote(head.substr(0, 4)));
  }
  reader.take(4, "the magic number 'GGUF'");
  const auto version = reader.number<uint32_t>("the version");
  if (version == 2 || version == 3) return version;
  if ((version & 0xFFFF) == 0 && version != 0) {
    fail(ErrorKind::bad_file,
         "{}: byte-swapped (big-endian) GGUF file, version field {:#010x}: "
         "convert it with gguf-convert-endian",
         name, version);
  }
  fail(ErrorKind::bad_file, "{}: GGUF version {}, expected 2 or 3{}", name, version,
       version > 3    ? ": newer than this program"
       : version == 1 ? ": convert it again"
                      : "");
}

uint64_t read_count(Reader& reader, std::string_view what, uint64_t min_bytes_each,
                    const std::string& name) {
  const auto count = reader.number<uint64_t>(what);
  if (count > kMaxEntries || count * min_bytes_each > reader.left()) {
    fail(ErrorKind::bad_file, "{}: {} is {}, at most {} are read and {} fit in the file", name,
         what, count, kMaxEntries, reader.left() / min_bytes_each);
  }
  return count;
}

GgufType read_type(Reader& reader, std::string_view key, const std::string& name) {
  const auto type = reader.number<uint32_t>("a value type");
  if (type > static_cast<uint32_t>(GgufType::f64)) {
    fail(ErrorKind::bad_file, "{}: key {}: unknown value type {}", name, quote(key), type);
  }
  return static_cast<GgufType>(type);
}

void check_booleans(std::span<const std::byte> bytes, std::string_view key,
                    const std::string& name) {
  for (const std::byte b : bytes) {
    if (b > std::byte{1}) {
      fail(ErrorKind::bad_file, "{}: key {}: boolean byte {}, expected 0 or 1", name, quote(key),
           static_cast<int>(b));
    }
  }
}

GgufValue read_value(Reader& reader, std::span<const std::byte> file, std::string_view key,
                     const std::string& name) {
  GgufValue value;
  value.type = value.element = read_type(reader, key, name);
  if (value.type == GgufType::array) {
    value.element = read_type(reader, key, name);
    if (value.element == GgufType::array) {
      fail(ErrorKind::bad_file, "{}: key {}: an array of arrays is not supported", name,
           quote(key));
    }
    value.count = reader.number<uint64_t>("an array length");
    if (value.count > kMaxElements) {
      fail(ErrorKind::bad_file, "{}: key {}: array of {} elements, at most {} are read", name,
           quote(key), value.count, kMaxElements);
    }
  } else if (value.type == GgufType::string) {
    const auto text = reader.string(kMaxStringBytes, "a string");
    value.bytes = std::as_bytes(std::span(text));
    return value;
  }
  if (value.element == GgufType::string) {
    const uint64_t begin = reader.offset();
    for (uint64_t i = 0; i < value.count; ++i) reader.string(kMaxStringBytes, "an array's string");
    value.bytes = file.subspan(begin, reader.offset() - begin);
  } else {
    value.bytes = reader.take(value.count * gguf_type_bytes(value.element), "a value");
  }
  if (value.element == GgufType::boolean) check_booleans(value.bytes, key, name);
  return value;
}

void check_key(std::string_view key, const std::string& name) {
  const bool printable = std::all_of(key.begin(), key.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && c != 0x7F;
  });
  if (key.empty()) fail(ErrorKind::bad_file, "{}: a metadata key is empty", name);
  if (!printable || !utf8_valid(key)) {
    fail(ErrorKind::bad_file,
         "{}: metadata key {} holds control characters or bytes that are not UTF-8", name,
         quote(key));
  }
}

uint64_t alignment_of(const GgufFile& file, const std::string& name) {
  const GgufValue* value = file.find("general.alignment");
  if (value == nullptr) return 32;
  if (value->type != GgufType::u32) {
    fail(ErrorKind::bad_file, "{}: general.alignment is of type {}, expected u32", name,
         gguf_type_name(value->type));
  }
  const uint64_t alignment = *value->unsigned_integer();
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > kMaxAlignment) {
    fail(ErrorKind::bad_file, "{}: general.alignment is {}, expected a power of two from 8 to {}",
         name, alignment, kMaxAlignment);
  }
  return alignment;
}

Encoding tensor_encoding(uint32_t type, const std::string& where) {
  for (const auto& [id, encoding] : kEncodings) {
    if (id == type) return encoding;
  }
  if (type < std::size(kTensorTypes) && !kTensorTypes[type].empty()) {
    fail(ErrorKind::bad_file,
         "{}: type {} is not supported by this version (supported: F32, F16, BF16, Q4_0, Q4_1, "
         "Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL)",
         where, kTensorTypes[type]);
  }
  fail(ErrorKind::bad_file, "{}: unknown tensor type {}", where, type);
}

void check_tensor_name(std::string_view tensor, const std::string& name) {
  const bool plain = std::all_of(tensor.begin(), tensor.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
  if (tensor.empty() || !plain) {
    fail(ErrorKind::bad_file,
         "{}: tensor name {} is empty or holds something else than letters, digits, "
         "'.', '_' and '-'",
         name, quote(tensor));
  }
}

// An entry whose size in bytes is known to be at most the file's; gives the offset it claims.
uint64_t read_tensor(Reader& reader, uint64_t file_bytes, const std::string& name,
                     GgufTensor* tensor, uint64_t* size_bytes) {
  tensor->name = reader.string(kMaxNameBytes, "a tensor name");
  check_tensor_name(tensor->name, name);
  const std::string where = fmt::format("{}: tensor {}", name, quote(tensor->name));
  const auto num_dims = reader.number<uint32_t>("a number of dimensions");
  if (num_dims < 1 || num_dims > 4) {
    fail(ErrorKind::bad_file, "{}: {} dimensions, expected 1 to 4", where, num_dims);
  }
  tensor->num_dims = static_cast<int>(num_dims);
  tensor->dims = {1, 1, 1, 1};
  uint64_t rows = 1;
  for (uint32_t i = 0; i < num_dims; ++i) {
    const auto dim = reader.number<int64_t>("a dimension");
    // No element is smaller than a quarter of a byte, so a larger dimension cannot be in the file.
    if (dim < 1 || static_cast<uint64_t>(dim) / 4 > file_bytes) {
      fail(ErrorKind::bad_file, "{}: dimension {} is {}, expected 1 to {}", where, i, dim,
           4 * file_bytes);
    }
    tensor->dims[i] = dim;
    const auto product =
        i == 0 ? std::optional<uint64_t>(1) : checked_mul(rows, static_cast<uint64_t>(dim));
    if (!product) fail(ErrorKind::bad_file, "{}: the product of its dimensions overflows", where);
    rows = *product;
  }
  tensor->encoding = tensor_encoding(reader.number<uint32_t>("a tensor type"), where);
  const int64_t K = tensor->dims[0], block = tensor->encoding.block();
  if (K % block != 0) {
    fail(ErrorKind::bad_file, "{}: rows of {} elements, expected a multiple of {} for {}", where, K,
         block, tensor->encoding.name());
  }
  const auto size = checked_mul(rows, tensor->encoding.row_bytes(K));
  if (!size || *size > file_bytes) {
    fail(ErrorKind::bad_file, "{}: its dimensions need {} bytes, the file has {}", where,
         size ? fmt::to_string(*size) : "more than 2^64", file_bytes);
  }
  *size_bytes = *size;
  return reader.number<uint64_t>("a tensor offset");
}

struct Extent {
  uint64_t offset;  // from the start of the data section
  uint64_t size_bytes;
};

// Each tensor begins at the padded end of the one before it, and the file ends with the last one.
void place_tensors(GgufFile& file, const std::vector<Extent>& extents, uint64_t data_begin,
                   uint64_t alignment, std::span<const std::byte> bytes, const std::string& name) {
  uint64_t expected = 0, end = 0;
  for (size_t i = 0; i < extents.size(); ++i) {
    GgufTensor& tensor = file.tensors[i];
    if (extents[i].offset != expected) {
      fail(ErrorKind::bad_file,
           "{}: tensor {}: offset {}, expected {} (the padded end of the tensor "
           "before it)",
           name, quote(tensor.name), extents[i].offset, expected);
    }
    const auto sum = checked_add(expected, extents[i].size_bytes);
    const auto padded = sum ? checked_align(*sum, alignment) : std::nullopt;
    const auto in_file = padded ? checked_add(data_begin, *sum) : std::nullopt;
    if (!in_file || *in_file > bytes.size()) {
      fail(ErrorKind::bad_file,
           "{}: tensor {} ends beyond the file of {} bytes: the file is cut short or "
           "its header is wrong",
           name, quote(tensor.name), bytes.size());
    }
    tensor.bytes = bytes.subspan(data_begin + expected, extents[i].size_bytes);
    end = *in_file;
    expected = *padded;
  }
  // Writers differ in whether they pad the last tensor.
  if (bytes.size() != end && bytes.size() != data_begin + expected) {
    fail(ErrorKind::bad_file,
         "{}: {} bytes long, expected {} (the end of the last tensor) or {} with "
         "padding",
         name, bytes.size(), end, data_begin + expected);
  }
}

}  // namespace

GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string& name,
                    GgufTensors tensors) {
  if (bytes.empty()) fail(ErrorKind::bad_file, "{}: the file is empty", name);
  GgufFile file;
  Reader reader(bytes, name);
  file.version = read_preamble(reader, bytes, name);
  const uint64_t num_tensors = read_count(reader, "the number of tensors", kMinTensorBytes, name);
  const uint64_t num_keys =
      read_count(reader, "the number of metadata keys", kMinMetadataBytes, name);

  file.metadata.reserve(num_keys);
  for (uint64_t i = 0; i < num_keys; ++i) {
    const auto key = reader.string(kMaxKeyBytes, "a metadata key");
    check_key(key, name);
    if (!file.index.emplace(key, i).second) {
      fail(ErrorKind::bad_file, "{}: metadata key {} stands twice", name, quote(key));
    }
    file.metadata.emplace_back(key, read_value(reader, bytes, key, name));
  }
  const uint64_t alignment = alignment_of(file, name);

  std::vector<Extent> extents(num_tensors);
  std::set<std::string_view> names;
  file.tensors.resize(num_tensors);
  for (uint64_t i = 0; i < num_tensors; ++i) {
    extents[i].offset =
        read_tensor(reader, bytes.size(), name, &file.tensors[i], &extents[i].size_bytes);
    if (!names.insert(file.tensors[i].name).second) {
      fail(ErrorKind::bad_file, "{}: tensor {} stands twice", name, quote(file.tensors[i].name));
    }
  }
  if (num_tensors == 0) {
    if (tensors == GgufTensors::optional) return file;
    fail(ErrorKind::bad_file, "{}: holds no tensors", name);
  }
  const uint64_t data_begin = *checked_align(reader.offset(), alignment);
  place_tensors(file, extents, data_begin, alignment, bytes, name);
  return file;
}

uint32_t gguf_tensor_type(const Encoding& encoding) {
  for (const auto& [id, known] : kEncodings) {
    if (known == encoding) return id;
  }
  CHECK(false, "{} is no GGUF type", encoding.name());
}

}  // namespace tandem
