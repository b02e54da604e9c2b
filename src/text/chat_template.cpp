#include "text/chat_template.h"

#include "text/jinja_eval.h"
#include "text/jinja_parse.h"

namespace tandem {

struct ChatTemplate::Impl {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(const std::string& source)
    : impl_(std::make_unique<Impl>(Impl{jinja::parse(source)})) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::vector<TextSpan> ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                           bool add_generation_prompt, const std::string& bos,
                                           const std::string& eos) const {
  using jinja::TaggedText;
  using jinja::text_value;
  auto list = std::make_shared<jinja::List>();
  for (const ChatMessage& message : messages) {
    auto entry = std::make_shared<jinja::Dict>();
    entry->entries = {{"role", text_value(TaggedText(message.role, false))},
                      {"content", text_value(TaggedText(message.content, false))}};
    list->items.push_back(std::move(entry));
  }
  // tools and documents are none, as Hugging Face passes them when a caller gives none.
  const TaggedText text =
      jinja::render(impl_->body, {{"messages", jinja::ListPtr(std::move(list))},
                                  {"add_generation_prompt", add_generation_prompt},
                                  {"bos_token", text_value(TaggedText(bos, true))},
                                  {"eos_token", text_value(TaggedText(eos, true))},
                                  {"tools", jinja::None()},
                                  {"documents", jinja::None()}});
  std::vector<TextSpan> spans;
  for (size_t begin = 0; begin < text.size();) {
    const char origin = text.is_markup[begin];
    size_t end = text.is_markup.find(origin == 0 ? '\1' : '\0', begin);
    if (end == std::string::npos) end = text.size();
    spans.push_back({text.bytes.substr(begin, end - begin), origin != 0});
    begin = end;
  }
  return spans;
}

}  // namespace tandem
