// A GGUF file's container, versions 2 and 3: bytes <-> metadata values and tensor entries, as views
// into the mapped file. The rules are safetensors': every count is bounded by the bytes that are
// left, tensors lie side by side in file order without holes, and the file ends where the last one
// does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/checkpoint.h"

namespace tandem {

enum class GgufType : uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};
const char* gguf_type_name(GgufType type);
size_t gguf_type_bytes(GgufType type);  // 0 for strings and arrays

// One metadata value, checked to lie within the file.
struct GgufValue {
  GgufType type = GgufType::u8;
  GgufType element = GgufType::u8;   // arrays only; never an array
  uint64_t count = 1;                // elements of an array
  std::span<const std::byte> bytes;  // the elements, little endian; strings without their length

  bool is_integer() const;  // any of the eight integer types
  bool is_array_of(GgufType type) const;
  std::string_view text() const;  // type string
  // Element i of numbers or booleans, widened; exact for what fits a double.
  double number(uint64_t i = 0) const;
  // The integer, or nothing when it is negative or not an integer.
  std::optional<uint64_t> unsigned_integer() const;
  // The elements of an array of strings.
  std::vector<std::string_view> strings() const;
};

struct GgufTensor {
  std::string_view name;          // 1..63 of [A-Za-z0-9._-]
  int num_dims = 0;               // 1..4
  std::array<int64_t, 4> dims{};  // dims[0] is contiguous; each at least 1
  Encoding encoding;
  std::span<const std::byte> bytes;
};

struct GgufFile {
  uint32_t version = 0;
  std::vector<std::pair<std::string_view, GgufValue>> metadata;  // in file order
  std::vector<GgufTensor> tensors;                               // in file order

  // nullptr when there is none.
  const GgufValue* find(std::string_view key) const;

  std::map<std::string_view, size_t> index;  // key -> position in metadata
};

// Files that hold a vocabulary alone have no tensors.
enum class GgufTensors : uint8_t { required, optional };

// `name` opens every message. Throws bad_file; views point into `bytes`.
GgufFile parse_gguf(std::span<const std::byte> bytes, const std::string& name,
                    GgufTensors tensors = GgufTensors::required);

// GGUF's number for an encoding that read_tensor knows: CHECKed.
uint32_t gguf_tensor_type(const Encoding& encoding);

struct Family;
// GGUF's name for a tensor that Hugging Face names so in this family; empty: it has none.
std::string gguf_tensor_name(std::string_view name, const Family& family);

// Reads a model of a family that families.h lists. Throws bad_file, no_memory when the weights cannot fit.
Checkpoint read_gguf(const std::filesystem::path& path);

}  // namespace tandem
