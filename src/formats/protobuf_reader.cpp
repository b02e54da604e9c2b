#include "formats/protobuf_reader.h"

#include "base/error.h"

namespace tandem {

void ProtobufReader::fail_here(const char* what) const {
  fail(ErrorKind::bad_file, "{}: byte {} of a message of {}: {}", where_, size_ - rest_.size(),
       size_, what);
}

uint64_t ProtobufReader::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) fail_here("a number is cut off");
    const auto byte = static_cast<uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  fail_here("a number has more than 10 bytes");
}

uint64_t ProtobufReader::fixed(size_t bytes) {
  if (rest_.size() < bytes) fail_here("a number is cut off");
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(rest_[i])) << (8 * i);
  }
  rest_.remove_prefix(bytes);
  return value;
}

std::optional<ProtobufReader::Field> ProtobufReader::next() {
  if (rest_.empty()) return std::nullopt;
  const uint64_t key = varint();
  Field field;
  field.number = static_cast<uint32_t>(key >> 3);
  if (field.number == 0 || key >> 32 != 0) fail_here("a field has no number");
  switch (key & 7) {
    case 0:
      field.value = varint();
      return field;
    case 1:
      field.value = fixed(8);
      return field;
    case 2: {
      const uint64_t bytes = varint();
      if (bytes > rest_.size()) fail_here("a text or message is longer than what holds it");
      field.bytes = rest_.substr(0, bytes);
      field.is_bytes = true;
      rest_.remove_prefix(bytes);
      return field;
    }
    case 5:
      field.value = fixed(4);
      return field;
    default:
      fail_here("a field of a type that is not known");
  }
}

}  // namespace tandem
