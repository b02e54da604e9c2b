// Developer program of tokenizer_chat_oracle.py: reads on stdin a JSON list of {template, messages,
// add_generation_prompt, bos_token, eos_token} and writes for each one line: the spans as a JSON
// list of [text, is_markup], or {"error": kind and message}.
#include <iostream>
#include <iterator>

#include "base/error.h"
#include "base/json.h"
#include "text/chat_template.h"

namespace {

tandem::Json render(const tandem::Json& chat) {
  std::vector<tandem::ChatMessage> messages;
  for (const auto& message : chat.at("messages")) {
    messages.push_back({message.at("role"), message.at("content")});
  }
  tandem::Json spans = tandem::Json::array();
  const tandem::ChatTemplate chat_template(chat.at("template").get<std::string>());
  for (const tandem::TextSpan& span :
       chat_template.render(messages, chat.at("add_generation_prompt"), chat.at("bos_token"),
                            chat.at("eos_token"))) {
    spans.push_back({span.text, span.is_markup});
  }
  return spans;
}

}  // namespace

int main() {
  const std::string input(std::istreambuf_iterator<char>(std::cin), {});
  for (const tandem::Json& chat : tandem::Json::parse(input)) {
    try {
      std::cout << tandem::dump_json(render(chat)) << "\n";
    } catch (const tandem::Error& error) {
      const char* kind = error.kind == tandem::ErrorKind::usage ? "usage: " : "bad_file: ";
      std::cout << tandem::dump_json({{"error", std::string(kind) + error.what()}}) << "\n";
    }
  }
  return 0;
}
