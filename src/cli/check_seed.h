// The check of every --seed: CLI11 alone would wrap a negative one.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>

namespace tandem {

// Empty when `text` is a decimal uint64, else what is wrong with it.
inline std::string check_seed(const std::string& text) {
  uint64_t seed = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, seed);
  if (error == std::errc() && rest == end) return "";
  return "Value " + text + " not in range 0 to 18446744073709551615";
}

}  // namespace tandem
