// tokenizer.model, a protocol buffer -> a tokenizer, and what it makes of a few texts.
#include "base/error.h"
#include "formats/gguf_builder.h"
#include "formats/sentencepiece_model.h"
#include "fuzz/target.h"
#include "text/tokenizer.h"

namespace tandem::fuzz {
namespace {

constexpr const char* kTexts[] = {
    "Hello  ab a",       " \t\n",        "<s>\u2581ab\u2581",
    "caf\u00E9 e\u0301", "\xFF\xC0\x80", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"};

void run(std::string_view input) {
  expect_error_or_success([&] {
    const Tokenizer tokenizer(parse_sentencepiece_model(input, "x"));
    for (const char* text : kTexts) {
      const std::vector<int32_t> ids = tokenizer.encode_prompt(text);
      for (const int32_t id : ids) {
        require(id >= 0 && id < tokenizer.vocab_size(), "ids lie in the vocabulary");
        tokenizer.token_name(id);
      }
      tokenizer.decode(ids);
    }
  });
}

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
std::string number(uint64_t field, uint64_t value) { return varint(field << 3) + varint(value); }
std::string bytes_of(uint64_t field, const std::string& bytes) {
  return varint(field << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string piece(const std::string& text, float score, uint64_t type) {
  return bytes_of(1, bytes_of(1, text) + varint(2 << 3 | 5) + raw(score) + number(3, type));
}

// A field put in, or bytes changed: lengths that no longer fit are what a reader must survive.
std::string mutate(const std::string& input, Random& random, const ByteMutator& bytes) {
  std::string out = input;
  const size_t at = random.below(3) == 0 ? random.below(out.size() + 1) : out.size();
  switch (random.below(6)) {
    case 0:
      out.insert(at, piece(std::string(random.below(4) + 1, "ab\xE2 "[random.below(4)]),
                           static_cast<float>(random.normal()), random.below(8)));
      break;
    case 1:
      out.insert(at, bytes_of(2, number(random.below(50), edge_number(random))));
      break;
    case 2:
      out.insert(at, bytes_of(3, number(random.below(6), random.below(3))));
      break;
    case 3:
      out.insert(at, number(edge_number(random) >> 3, edge_number(random)));
      break;
    case 4: {
      std::string map = raw<uint32_t>(1024);
      for (int i = 0; i < 256; ++i) {
        map += raw(static_cast<uint32_t>(random.next() >> (32 + random.below(32))));
      }
      out.insert(at, bytes_of(3, bytes_of(2, map + std::string("a\0bc\0", 5))));
      break;
    }
    default:
      bytes(out);
  }
  return out;
}

std::vector<std::string> seeds() {
  const std::string pieces = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) +
                             piece("\u2581", -1, 1) + piece("a", -2, 1) + piece("b", -3, 1) +
                             piece("ab", -4, 1) + piece("\u2581ab", -5, 1);
  std::string fallback;
  for (int b = 0; b < 256; ++b) fallback += piece(fmt::format("<0x{:02X}>", b), 0, 6);
  return {pieces + bytes_of(2, number(3, 1)), pieces + bytes_of(2, number(3, 2)),
          pieces + piece("user", 0, 4) + bytes_of(2, number(3, 1) + number(24, 1)),
          pieces + fallback + bytes_of(2, number(3, 2) + number(35, 1)),
          pieces + fallback + bytes_of(2, number(3, 1) + number(35, 1)) +
              bytes_of(3, number(3, 0) + number(4, 0) + number(5, 1))};
}

}  // namespace

const Target& pieces_target() {
  static const Target target{"pieces", run, seeds, mutate};
  return target;
}

}  // namespace tandem::fuzz
