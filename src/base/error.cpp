#include "base/error.h"

#include <cstdio>
#include <cstdlib>

#include "base/utf8.h"

namespace tandem {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage: return 2;
    case ErrorKind::bad_file: return 3;
    case ErrorKind::no_memory: return 4;
    case ErrorKind::no_device: return 5;
    case ErrorKind::quality_gate: return 6;
    case ErrorKind::system: return 1;
  }
  return 1;
}

std::string quote(std::string_view text, size_t max_bytes) {
  std::string out = "'";
  size_t i = 0;
  while (i < text.size()) {
    if (out.size() > max_bytes) {
      out += "...";
      break;
    }
    const size_t length = utf8_valid_length(text.substr(i));
    const unsigned char c = static_cast<unsigned char>(text[i]);
    // C1 controls (U+0080..U+009F) move a terminal's cursor as C0 controls do.
    const bool c1 = length == 2 && c == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    if (length == 0 || c < 0x20 || c == 0x7F || c1) {
      out += fmt::format("\\x{:02x}", c);
      ++i;
    } else {
      out.append(text.substr(i, length));
      i += length;
    }
  }
  return out + "'";
}

void check_failed(const char* file, int line, const char* condition, const std::string& values) {
  std::fprintf(stderr, "tandem: internal error: %s:%d: %s: %s\n", file, line, condition,
               values.c_str());
  std::abort();
}

}  // namespace tandem
