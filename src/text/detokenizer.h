// A stream of tokens -> a stream of text that is always whole characters, with stop strings cut exactly.
#pragma once

#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace tandem {

class Detokenizer {
 public:
  // At most 4 stop strings, none empty. The tokenizer must outlive this.
  explicit Detokenizer(const Tokenizer& tokenizer, std::vector<std::string> stops = {});

  // Text that has become certain with this token: whole UTF-8 characters that cannot be the start of a
  // stop string. Bytes that can never become a character turn into U+FFFD.
  std::string push(int32_t token);
  // What was held back; an unfinished character becomes U+FFFD.
  std::string finish();
  // True once a stop string has been met: the text before it has been given out, nothing follows.
  bool stopped() const { return stopped_; }

 private:
  std::string take(bool final);

  const Tokenizer& tokenizer_;
  std::vector<std::string> stops_;
  std::string bytes_;    // bytes of an unfinished character
  std::string pending_;  // whole characters that may begin a stop string
  bool first_ = true;
  bool stopped_ = false;
};

}  // namespace tandem
