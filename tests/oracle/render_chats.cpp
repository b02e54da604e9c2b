// Developer program of chat_template_oracle.py: render_chats [TOKENIZER] reads on stdin a JSON list
// of {template, messages, tools, documents, variables, add_generation_prompt} and writes for each
// one line: the spans as a JSON list of [text, is_markup], or {"error": kind and message}. With a
// tokenizer (a GGUF file, or a folder of tokenizer files), the line is a list of token ids.
#include <iostream>
#include <iterator>
#include <optional>

#include "base/error.h"
#include "formats/tokenizer_file.h"
#include "text/chat_case.h"

namespace {

tandem::Json render(const tandem::Json& chat, const std::optional<tandem::Tokenizer>& tokenizer) {
  const tandem::ChatTemplate chat_template(chat.at("template").get<std::string>());
  const std::vector<tandem::TextSpan> spans = chat_template.render(tandem::chat_input(chat));
  if (tokenizer) return tokenizer->encode(spans);
  tandem::Json list = tandem::Json::array();
  for (const tandem::TextSpan& span : spans) list.push_back({span.text, span.is_markup});
  return list;
}

}  // namespace

int main(int argc, char** argv) {
  std::optional<tandem::Tokenizer> tokenizer;
  if (argc > 1) tokenizer.emplace(tandem::read_tokenizer(argv[1]));
  const std::string input(std::istreambuf_iterator<char>(std::cin), {});
  for (const tandem::Json& chat : tandem::Json::parse(input)) {
    try {
      std::cout << tandem::dump_json(render(chat, tokenizer)) << "\n";
    } catch (const tandem::Error& error) {
      const char* kind = error.kind == tandem::ErrorKind::usage ? "usage: " : "bad_file: ";
      std::cout << tandem::dump_json({{"error", std::string(kind) + error.what()}}) << "\n";
    }
  }
  return 0;
}
