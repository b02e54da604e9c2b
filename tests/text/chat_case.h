// One case of the chat templates' golden file, as tests/oracle/chat_template_oracle.py writes it.
#pragma once

#include "base/json.h"
#include "text/chat_template.h"

namespace tandem {

// Saturday, 4 July 2026, 15:06:07: the oracle's clock shows the same.
inline std::tm golden_time() {
  std::tm time{};
  time.tm_year = 126;
  time.tm_mon = 6;
  time.tm_mday = 4;
  time.tm_hour = 15;
  time.tm_min = 6;
  time.tm_sec = 7;
  time.tm_wday = 6;
  time.tm_yday = 184;
  return time;
}

inline ChatInput chat_input(const Json& chat) {
  ChatInput input;
  input.messages = chat.at("messages");
  input.tools = chat.value("tools", Json());
  input.documents = chat.value("documents", Json());
  input.variables = chat.value("variables", Json::object());
  input.add_generation_prompt = chat.value("add_generation_prompt", false);
  input.bos = "<s>";
  input.eos = "</s>";
  input.clock = golden_time;
  return input;
}

}  // namespace tandem
