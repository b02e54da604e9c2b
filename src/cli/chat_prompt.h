// A conversation -> the tokens that a model expects, by its own template: what run and chat share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/checkpoint.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tandem {

// The tool definitions in a file: a JSON array of objects, in the form that the template wants.
// Throws bad_file for anything else.
Json read_tools(const std::string& path);

class ChatPrompt {
 public:
  // Keeps the tokenizer. tools: as read_tools gives them, or null. Throws usage when the model has
  // no template, with `instead` as what to do then.
  ChatPrompt(const Checkpoint& checkpoint, const Tokenizer& tokenizer, Json tools,
             std::string_view instead);

  // Up to where the answer begins. Throws usage when the template refuses the conversation, or when
  // it shows the model nothing of the tools.
  std::vector<int32_t> encode(const std::vector<ChatMessage>& messages) const;

 private:
  std::string path_;
  const Tokenizer& tokenizer_;
  ChatTemplate template_;
  Json tools_;
};

}  // namespace tandem
