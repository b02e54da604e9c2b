// The wire format of Protocol Buffers, one field at a time and never beyond its bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tandem {

class ProtobufReader {
 public:
  struct Field {
    uint32_t number = 0;
    uint64_t value = 0;      // a varint, or a fixed 32- or 64-bit number's bits
    std::string_view bytes;  // a string, or a message
    bool is_bytes = false;
  };

  // where: the file, for messages.
  ProtobufReader(std::string_view message, std::string where)
      : rest_(message), size_(message.size()), where_(std::move(where)) {}

  // Empty at the end of the message. Throws bad_file on bytes that are no field.
  std::optional<Field> next();

 private:
  uint64_t varint();
  uint64_t fixed(size_t bytes);
  [[noreturn]] void fail_here(const char* what) const;

  std::string_view rest_;
  size_t size_;
  std::string where_;
};

}  // namespace tandem
