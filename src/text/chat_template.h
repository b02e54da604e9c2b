// A conversation -> the text a chat model was trained on, by the template in the model file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace tandem {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

class ChatTemplate {
 public:
  // Parses the subset of Jinja that this version knows. Throws bad_file naming what it does not
  // know.
  explicit ChatTemplate(const std::string& source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // Markup and content stay apart: each byte carries its origin, so special tokens in a message's
  // content are never recognised. bos and eos are the spellings the template may print.
  // Throws usage when the template itself refuses the conversation.
  std::vector<TextSpan> render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                               const std::string& bos, const std::string& eos) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem
