#include "formats/gguf_write_keys.h"

namespace tandem {
void GgufKeys::begin(std::string_view key, GgufType type) {
  put_text(key);
  put(static_cast<uint32_t>(type));
  ++count_;
}

void GgufKeys::begin_array(std::string_view key, GgufType element, uint64_t count) {
  begin(key, GgufType::array);
  put(static_cast<uint32_t>(element));
  put(count);
}

void GgufKeys::put_text(std::string_view text) {
  put(static_cast<uint64_t>(text.size()));
  bytes_ += text;
}

void GgufKeys::add_text(std::string_view key, std::string_view value) {
  begin(key, GgufType::string);
  put_text(value);
}

void GgufKeys::add_u32(std::string_view key, uint32_t value) {
  begin(key, GgufType::u32);
  put(value);
}

void GgufKeys::add_f32(std::string_view key, float value) {
  begin(key, GgufType::f32);
  put(value);
}

void GgufKeys::add_bool(std::string_view key, bool value) {
  begin(key, GgufType::boolean);
  put(static_cast<uint8_t>(value));
}

void GgufKeys::add_texts(std::string_view key, std::span<const std::string> values) {
  begin_array(key, GgufType::string, values.size());
  for (const std::string& value : values) put_text(value);
}

void GgufKeys::add_i32s(std::string_view key, std::span<const int32_t> values) {
  begin_array(key, GgufType::i32, values.size());
  for (const int32_t value : values) put(value);
}

void GgufKeys::add_f32s(std::string_view key, std::span<const float> values) {
  begin_array(key, GgufType::f32, values.size());
  for (const float value : values) put(value);
}

void GgufKeys::add_bytes(std::string_view key, std::string_view values) {
  begin_array(key, GgufType::u8, values.size());
  bytes_ += values;
}

}  // namespace tandem
