#include "text/chat_template.h"

#include <algorithm>
#include <chrono>

#include "text/jinja/interpreter.h"
#include "text/jinja/parse.h"

namespace tandem {
namespace {

using jinja::TaggedText;
using jinja::Value;
using jinja::Work;

constexpr std::string_view kRoles[] = {"system", "developer", "user",    "assistant",
                                       "model",  "tool",      "ipython", "function"};

std::tm local_time() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm local{};
  localtime_r(&now, &local);
  return local;
}

// `insert` and `append` bound the nesting, so that of the recursion too.
Value value_of(Work& work, const Json& json) {
  const jinja::Descent descent(work);
  switch (json.type()) {
    case Json::value_t::null:
      return jinja::None();
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<int64_t>();
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > INT64_MAX) {
        fail(ErrorKind::usage, "chat: the number {} does not fit 64 bits", json.get<uint64_t>());
      }
      return json.get<int64_t>();
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return jinja::text_value(TaggedText(json.get_ref<const std::string&>(), false));
    case Json::value_t::array: {
      auto list = std::make_shared<jinja::List>();
      for (const Json& item : json) append(work, *list, value_of(work, item));
      return jinja::ListPtr(std::move(list));
    }
    case Json::value_t::object: {
      auto dict = std::make_shared<jinja::Dict>();
      for (const auto& [key, item] : json.items()) {
        insert(work, *dict, jinja::text_value(TaggedText(key, false)), value_of(work, item));
      }
      return jinja::DictPtr(std::move(dict));
    }
    default:
      fail(ErrorKind::usage, "chat: a value of type {} is not JSON", json.type_name());
  }
}

// transformers passes what a model thought under the three names that templates read.
Json with_reasoning_names(const Json& message) {
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    const auto found = message.find(name);
    if (found == message.end() || found->is_null()) continue;
    Json named = Json::object({{"thinking", *found}});
    named.update(message);
    named["reasoning_content"] = *found;
    return named;
  }
  return message;
}

Value message_value(Work& work, const Json& message) {
  if (!message.is_object()) {
    fail(ErrorKind::usage, "chat: found a message that is {}, expected an object",
         message.type_name());
  }
  auto dict = std::make_shared<jinja::Dict>(
      *std::get<jinja::DictPtr>(value_of(work, with_reasoning_names(message))));
  const auto role = message.find("role");
  if (role != message.end() && role->is_string()) {
    const std::string& name = role->get_ref<const std::string&>();
    const bool is_known = std::ranges::find(kRoles, name) != std::end(kRoles);
    insert(work, *dict, jinja::markup_value("role"), jinja::text_value(TaggedText(name, is_known)));
  }
  return jinja::DictPtr(std::move(dict));
}

std::vector<TextSpan> spans_of(const TaggedText& text) {
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

}  // namespace

struct ChatTemplate::Impl {
  jinja::Body body;
};

ChatTemplate::ChatTemplate(const std::string& source)
    : impl_(std::make_unique<Impl>(Impl{jinja::parse(source)})) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::vector<TextSpan> ChatTemplate::render(const ChatInput& input) const {
  Work work;
  jinja::Variables variables;
  for (const auto& [name, value] : input.variables.items()) variables[name] = value_of(work, value);
  auto messages = std::make_shared<jinja::List>();
  for (const Json& message : input.messages) {
    append(work, *messages, message_value(work, message));
  }
  variables["messages"] = jinja::ListPtr(std::move(messages));
  variables["tools"] = value_of(work, input.tools);
  variables["documents"] = value_of(work, input.documents);
  variables["add_generation_prompt"] = input.add_generation_prompt;
  if (!input.bos.empty()) variables["bos_token"] = jinja::markup_value(input.bos);
  if (!input.eos.empty()) variables["eos_token"] = jinja::markup_value(input.eos);
  jinja::Interpreter interpreter(std::move(variables), input.clock ? input.clock : local_time);
  return spans_of(interpreter.run(impl_->body));
}

std::vector<TextSpan> ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                           bool add_generation_prompt, const std::string& bos,
                                           const std::string& eos) const {
  ChatInput input;
  for (const ChatMessage& message : messages) {
    input.messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  input.add_generation_prompt = add_generation_prompt;
  input.bos = bos;
  input.eos = eos;
  return render(input);
}

}  // namespace tandem
