#include "text/vocabulary.h"

#include <bit>
#include <functional>

#include "base/error.h"
#include "base/utf8.h"

namespace tandem {
namespace {

constexpr size_t kMaxTokens = size_t{4} << 20;
constexpr uint32_t kNumStandIns = 0x144;  // code points below this may stand for a byte
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, SentencePiece's space

// By code point: the byte it stands for, or -1.
const std::array<int16_t, kNumStandIns>& stand_in_bytes() {
  static const auto table = [] {
    std::array<int16_t, kNumStandIns> bytes;
    bytes.fill(-1);
    for (int b = 0; b < 256; ++b) {
      bytes[byte_stand_ins()[static_cast<size_t>(b)]] = static_cast<int16_t>(b);
    }
    return bytes;
  }();
  return table;
}

// Appends the bytes that a spelling in stand-ins means; false on a character that stands for none.
bool append_stand_ins(std::string_view spelling, std::string& out) {
  while (!spelling.empty()) {
    const size_t length = utf8_valid_length(spelling);
    const uint32_t c = utf8_code_point(spelling, length);
    const int byte = c < kNumStandIns ? stand_in_bytes()[c] : -1;
    if (byte < 0) return false;
    out += static_cast<char>(byte);
    spelling.remove_prefix(length);
  }
  return true;
}

void append_marked(std::string_view spelling, std::string& out) {
  for (size_t mark; (mark = spelling.find(kSpaceMark)) != std::string_view::npos;) {
    out.append(spelling.substr(0, mark)).push_back(' ');
    spelling.remove_prefix(mark + kSpaceMark.size());
  }
  out.append(spelling);
}

// The byte of "<0xHH>", or -1.
int parse_byte_token(std::string_view spelling) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling[5] != '>') return -1;
  const int high = digit(spelling[3]), low = digit(spelling[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace

const std::array<uint16_t, 256>& byte_stand_ins() {
  static const auto table = [] {
    std::array<uint16_t, 256> stand_ins{};
    uint16_t next = 0x100;
    for (uint16_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      stand_ins[b] = printable ? b : next++;
    }
    return stand_ins;
  }();
  return table;
}

Vocabulary::Vocabulary(const TokenizerSpec& spec) : spellings_(spec.tokens), types_(spec.types) {
  if (spellings_.empty() || spellings_.size() > kMaxTokens) {
    fail(ErrorKind::bad_file, "tokenizer: found {} tokens, expected 1 to {}", spellings_.size(),
         kMaxTokens);
  }
  if (types_.size() != spellings_.size()) {
    fail(ErrorKind::bad_file, "tokenizer: found {} token types for {} tokens", types_.size(),
         spellings_.size());
  }
  build_index();
  byte_ids_.fill(-1);
  arena_begin_.reserve(spellings_.size() + 1);
  for (int32_t id = 0; id < size(); ++id) add_bytes(id, spec.kind);
  arena_begin_.push_back(arena_.size());
  if (spec.kind == TokenizerKind::byte_bpe) {
    for (size_t b = 0; b < 256; ++b) {
      std::string symbol;
      utf8_append(symbol, byte_stand_ins()[b]);
      byte_ids_[b] = find(symbol);
    }
  }
}

void Vocabulary::build_index() {
  index_.assign(std::bit_ceil(spellings_.size() * 2), -1);
  const size_t mask = index_.size() - 1;
  for (int32_t id = 0; id < size(); ++id) {
    const std::string_view text = spelling(id);
    if (text.empty()) fail(ErrorKind::bad_file, "tokenizer: token {} is empty", id);
    if (!utf8_valid(text)) {
      fail(ErrorKind::bad_file, "tokenizer: token {} is not UTF-8: {}", id, quote(text));
    }
    size_t slot = std::hash<std::string_view>{}(text)&mask;
    for (; index_[slot] >= 0; slot = (slot + 1) & mask) {
      if (spelling(index_[slot]) == text) {
        fail(ErrorKind::bad_file, "tokenizer: tokens {} and {} are both {}", index_[slot], id,
             quote(text));
      }
    }
    index_[slot] = id;
  }
}

void Vocabulary::add_bytes(int32_t id, TokenizerKind kind) {
  arena_begin_.push_back(arena_.size());
  const std::string_view text = spelling(id);
  switch (type(id)) {
    case TokenType::control:
    case TokenType::unknown:
      return;
    case TokenType::byte: {
      const int byte = parse_byte_token(text);
      if (byte < 0) {
        fail(ErrorKind::bad_file, "tokenizer: byte token {} is {}, expected <0x00> to <0xFF>", id,
             quote(text));
      }
      int32_t& of_byte = byte_ids_[static_cast<size_t>(byte)];
      if (of_byte >= 0) {
        fail(ErrorKind::bad_file, "tokenizer: byte tokens {} and {} are both {}", of_byte, id,
             quote(text));
      }
      of_byte = id;
      arena_.push_back(static_cast<char>(byte));
      return;
    }
    case TokenType::normal:
      if (kind == TokenizerKind::byte_bpe) {
        if (append_stand_ins(text, arena_)) return;
        // No bytes merge to this one: it is spelled as it reads and comes from no text.
        arena_.resize(arena_begin_.back());
        types_[static_cast<size_t>(id)] = TokenType::unused;
      }
      break;
    case TokenType::user_defined:
    case TokenType::unused:
      break;
  }
  if (kind == TokenizerKind::byte_bpe) {
    arena_.append(text);  // added tokens are spelled as they read
  } else {
    append_marked(text, arena_);
  }
}

int32_t Vocabulary::find(std::string_view text) const {
  const size_t mask = index_.size() - 1;
  size_t slot = std::hash<std::string_view>{}(text)&mask;
  while (index_[slot] >= 0 && spelling(index_[slot]) != text) slot = (slot + 1) & mask;
  return index_[slot];
}

std::string_view Vocabulary::bytes(int32_t id) const {
  const size_t begin = arena_begin_[static_cast<size_t>(id)];
  return std::string_view(arena_).substr(begin, arena_begin_[static_cast<size_t>(id) + 1] - begin);
}

}  // namespace tandem
