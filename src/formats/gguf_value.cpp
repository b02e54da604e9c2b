#include "base/error.h"
#include "formats/gguf.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr std::string_view kTypeNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                           "bool", "string", "array", "u64", "i64", "f64"};
constexpr size_t kTypeBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

}  // namespace

const char* gguf_type_name(GgufType type) { return kTypeNames[static_cast<size_t>(type)].data(); }

size_t gguf_type_bytes(GgufType type) { return kTypeBytes[static_cast<size_t>(type)]; }

bool GgufValue::is_integer() const {
  return type <= GgufType::i32 || type == GgufType::u64 || type == GgufType::i64;
}

bool GgufValue::is_array_of(GgufType wanted) const {
  return type == GgufType::array && element == wanted;
}

std::string_view GgufValue::text() const {
  CHECK(type == GgufType::string, "type {}", gguf_type_name(type));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

double GgufValue::number(uint64_t i) const {
  CHECK(i < count, "element {} of {}", i, count);
  const std::byte* p = bytes.data() + i * gguf_type_bytes(element);
  switch (element) {
    case GgufType::u8:
    case GgufType::boolean:
      return load_unaligned<uint8_t>(p);
    case GgufType::i8:
      return load_unaligned<int8_t>(p);
    case GgufType::u16:
      return load_unaligned<uint16_t>(p);
    case GgufType::i16:
      return load_unaligned<int16_t>(p);
    case GgufType::u32:
      return load_unaligned<uint32_t>(p);
    case GgufType::i32:
      return load_unaligned<int32_t>(p);
    case GgufType::f32:
      return load_unaligned<float>(p);
    case GgufType::u64:
      return static_cast<double>(load_unaligned<uint64_t>(p));
    case GgufType::i64:
      return static_cast<double>(load_unaligned<int64_t>(p));
    case GgufType::f64:
      return load_unaligned<double>(p);
    case GgufType::string:
    case GgufType::array:
      break;
  }
  CHECK(false, "type {}", gguf_type_name(element));
}

std::optional<uint64_t> GgufValue::unsigned_integer() const {
  if (!is_integer()) return std::nullopt;
  if (type == GgufType::u64) return load_unaligned<uint64_t>(bytes.data());
  if (type == GgufType::i64) {
    const auto value = load_unaligned<int64_t>(bytes.data());
    return value < 0 ? std::nullopt : std::optional<uint64_t>(value);
  }
  const double value = number();
  return value < 0 ? std::nullopt : std::optional<uint64_t>(static_cast<uint64_t>(value));
}

std::vector<std::string_view> GgufValue::strings() const {
  CHECK(is_array_of(GgufType::string), "element {}", gguf_type_name(element));
  std::vector<std::string_view> out;
  out.reserve(count);
  const std::byte* p = bytes.data();
  for (uint64_t i = 0; i < count; ++i) {
    const auto size = load_unaligned<uint64_t>(p);
    out.emplace_back(reinterpret_cast<const char*>(p + 8), size);
    p += 8 + size;
  }
  return out;
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto it = index.find(key);
  return it == index.end() ? nullptr : &metadata[it->second].second;
}

}  // namespace tandem
