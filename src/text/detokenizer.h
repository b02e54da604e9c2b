// A stream of tokens -> a stream of text that is always whole characters, with stop strings cut
// exactly.
#pragma once

#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace tandem {

class Detokenizer {
 public:
  // At most 4 stop strings of valid UTF-8, none empty, else throws usage. The tokenizer must
  // outlive this. A text that continues another one keeps the leading space that decode() takes
  // away.
  explicit Detokenizer(const Tokenizer& tokenizer, std::vector<std::string> stops = {},
                       bool continues_text = false);

  // Text that has become certain with this token: whole UTF-8 characters that cannot be the start
  // of a stop string. Bytes that can never become a character turn into U+FFFD.
  std::string push(int32_t token);
  // What was held back; an unfinished character becomes U+FFFD.
  std::string finish();
  // True once a stop string has been met: the text before it has been given out, nothing follows.
  // Of several stop strings the first to be complete counts, the longest of those that end
  // together.
  bool stopped() const { return stopped_; }

 private:
  // A stop string and how much of it the text ends with (Knuth, Morris and Pratt: linear in any
  // text).
  struct Stop {
    std::string text;
    std::vector<size_t> fallback;  // by matched length - 1: the next shorter length to try
    size_t matched = 0;
  };

  std::string take(bool final);
  // Advances every stop string by one byte; the length of the longest one completed, or 0.
  size_t advance(char byte);

  const Tokenizer& tokenizer_;
  std::vector<Stop> stops_;
  std::string bytes_;    // bytes of an unfinished character
  std::string pending_;  // whole characters that may begin a stop string
  bool at_start_;
  bool stopped_ = false;
};

}  // namespace tandem
