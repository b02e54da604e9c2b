#include "text/utf8_replace.h"

#include "base/utf8.h"

namespace tandem {
namespace {

// Bytes at the start of text that begin some character without completing it; 0 when the first byte
// begins none. text must not start with a valid character.
size_t partial_bytes(std::string_view text) {
  // A beginning is a beginning if some continuation makes it valid; the extreme ones suffice,
  // because only the second byte is ever restricted.
  for (size_t length = text.size() < 3 ? text.size() : 3; length > 0; --length) {
    for (const char* tail : {"\x80\x80\x80", "\xBF\xBF\xBF"}) {
      std::string candidate(text.substr(0, length));
      candidate += tail;
      if (utf8_valid_length(candidate) > length) return length;
    }
  }
  return 0;
}

}  // namespace

size_t append_replacing(std::string_view bytes, bool final, std::string& out) {
  size_t at = 0;
  while (at < bytes.size()) {
    const std::string_view rest = bytes.substr(at);
    if (const size_t length = utf8_valid_length(rest)) {
      out.append(rest.substr(0, length));
      at += length;
      continue;
    }
    const size_t partial = partial_bytes(rest);
    if (partial == rest.size() && !final) break;
    out += "\xEF\xBF\xBD";
    at += partial > 0 ? partial : 1;
  }
  return at;
}

}  // namespace tandem
