// Developer program of chat_template_oracle.py: reads on stdin a JSON list of {template, messages,
// tools, documents, variables, add_generation_prompt} and writes for each one
// line: the spans as a JSON list of [text, is_markup], or {"error": kind and message}.
#include <iostream>
#include <iterator>

#include "base/error.h"
#include "text/chat_case.h"

namespace {

tandem::Json render(const tandem::Json& chat) {
  tandem::Json spans = tandem::Json::array();
  const tandem::ChatTemplate chat_template(chat.at("template").get<std::string>());
  for (const tandem::TextSpan& span : chat_template.render(tandem::chat_input(chat))) {
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
