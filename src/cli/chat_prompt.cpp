#include "cli/chat_prompt.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxToolsBytes = 1u << 20;

const std::string& template_of(const Checkpoint& checkpoint, std::string_view instead) {
  if (checkpoint.tokenizer.chat_template.empty()) {
    fail(ErrorKind::usage, "{} has no chat template; {}", checkpoint.path.string(), instead);
  }
  return checkpoint.tokenizer.chat_template;
}

bool same_text(const std::vector<TextSpan>& a, const std::vector<TextSpan>& b) {
  return std::ranges::equal(a, b, {}, &TextSpan::text, &TextSpan::text);
}

}  // namespace

Json read_tools(const std::string& path) {
  const std::string name = quote(path, 400);
  Json tools = parse_json(read_text_file(path, kMaxToolsBytes), name);
  if (!tools.is_array() || tools.empty()) {
    fail(ErrorKind::bad_file, "{}: found {}, expected an array of tool definitions", name,
         tools.is_array() ? "an empty array" : tools.type_name());
  }
  for (size_t i = 0; i < tools.size(); ++i) {
    if (tools[i].is_object()) continue;
    fail(ErrorKind::bad_file, "{}: tool {}: found {}, expected an object", name, i + 1,
         tools[i].type_name());
  }
  return tools;
}

ChatPrompt::ChatPrompt(const Checkpoint& checkpoint, const Tokenizer& tokenizer, Json tools,
                       std::string_view instead)
    : path_(checkpoint.path.string()),
      tokenizer_(tokenizer),
      template_(template_of(checkpoint, instead)),
      tools_(std::move(tools)) {}

std::vector<int32_t> ChatPrompt::encode(const std::vector<ChatMessage>& messages) const {
  const auto name = [&](int32_t id) { return id < 0 ? std::string() : tokenizer_.token_name(id); };
  ChatInput input;
  for (const ChatMessage& message : messages) {
    input.messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  input.bos = name(tokenizer_.bos_id());
  input.eos = name(tokenizer_.eos_id());
  input.tools = tools_;
  const std::vector<TextSpan> text = template_.render(input);
  if (!tools_.is_null()) {
    input.tools = Json();
    if (same_text(text, template_.render(input))) {
      fail(ErrorKind::usage, "--tools: the chat template of {} ignores tools", path_);
    }
  }
  return tokenizer_.encode(text);
}

}  // namespace tandem
