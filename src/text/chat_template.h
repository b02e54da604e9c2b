// A conversation -> the text a chat model was trained on, by the template in the model file.
#pragma once

#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "text/tokenizer.h"

namespace tandem {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// What a template sees. Objects keep the order of their keys.
struct ChatInput {
  Json messages = Json::array();    // objects: role, content and any other keys, as tool_calls
  Json tools;                       // a list of JSON schemas, or null: none
  Json documents;                   // a list of objects, or null: none
  Json variables = Json::object();  // anything else that the template asks for: enable_thinking
  bool add_generation_prompt = true;
  std::string bos,
      eos;  // spellings; empty: the model has none, and the template finds it undefined
  std::function<std::tm()> clock;  // what strftime_now tells; empty: the local time
};

class ChatTemplate {
 public:
  // Throws bad_file with the line for what is not Jinja and for tags, filters and tests that this
  // version does not know.
  explicit ChatTemplate(const std::string& source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // The text that transformers' apply_chat_template gives. Markup and content stay apart: each byte
  // carries its origin, so special tokens in what a user or a model wrote are never recognised. The
  // names of the roles that models know are markup, as templates make tokens of them.
  // Throws usage when the template itself refuses the conversation; bad_file with the line for an
  // operation on values it is not made for, and when a limit of jinja/work.h is passed.
  std::vector<TextSpan> render(const ChatInput& input) const;
  std::vector<TextSpan> render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                               const std::string& bos, const std::string& eos) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem
