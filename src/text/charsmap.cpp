#include "text/charsmap.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"

namespace tandem {
namespace {

static_assert(std::endian::native == std::endian::little, "units are read as they lie");

// Far above every published rule. An array that leads back into itself would walk over the whole text.
constexpr size_t kMaxRuleBytes = 256;

// A unit of the double array: bits 0-7 the label, 8 whether a string ends here, 9 whether the
// offset counts in 256, 10-31 the offset; of a value, bit 31 set and the rest the value.
bool ends_string(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000FF; }
uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 0x200) >> 6); }

}  // namespace

Charsmap::Charsmap(std::string_view bytes) {
  uint32_t size = 0;
  if (bytes.size() < sizeof size) {
    fail(ErrorKind::bad_file, "tokenizer: the character map has {} bytes, expected at least {}",
         bytes.size(), sizeof size);
  }
  std::memcpy(&size, bytes.data(), sizeof size);
  bytes.remove_prefix(sizeof size);
  if (size == 0 || size % sizeof(uint32_t) != 0 || size > bytes.size()) {
    fail(ErrorKind::bad_file,
         "tokenizer: the character map has an array of {} bytes in the {} that follow, expected a "
         "multiple of 4 that fits",
         size, bytes.size());
  }
  units_.resize(size / sizeof(uint32_t));
  std::memcpy(units_.data(), bytes.data(), size);
  replacements_ = bytes.substr(size);
  if (replacements_.empty() || replacements_.back() != '\0') {
    fail(ErrorKind::bad_file, "tokenizer: the last replacement of the character map has no end");
  }
  for (size_t begin = 0; begin < replacements_.size();) {
    const size_t end = replacements_.find('\0', begin);
    longest_replacement_ = std::max(longest_replacement_, end - begin);
    begin = end + 1;
  }
}

Charsmap::Match Charsmap::find(std::string_view text, bool shortest) const {
  Match best;
  if (units_.empty()) return best;
  uint32_t at = offset_of(units_[0]);
  for (size_t i = 0; i < std::min(text.size(), kMaxRuleBytes); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    at ^= byte;
    if (at >= units_.size() || label_of(units_[at]) != byte) break;
    const uint32_t unit = units_[at];
    at ^= offset_of(unit);
    if (!ends_string(unit)) continue;
    if (at >= units_.size() || value_of(units_[at]) >= replacements_.size()) break;
    best = {i + 1, std::string_view(replacements_.data() + value_of(units_[at]))};
    if (shortest) break;
  }
  return best;
}

}  // namespace tandem
