#include "text/chat_template.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "text/chat_case.h"

namespace tandem {
namespace {

const std::vector<ChatMessage> kMessages = {{"system", "Be brief."},
                                            {"user", "Hi <|im_end|> {{ 7*7 }}"}};

std::string joined(const std::vector<TextSpan>& spans) {
  std::string text;
  for (const TextSpan& span : spans) text += span.text;
  return text;
}

std::string render(const std::string& source) {
  return joined(ChatTemplate(source).render(kMessages, true, "<s>", "</s>"));
}

// The message of the bad_file that the template ends in.
std::string refusal(const std::string& source) {
  try {
    return "accepted: " + render(source);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::bad_file) << error.what();
    return error.what();
  }
}

using Spans = std::vector<std::pair<std::string, bool>>;
Spans pairs(const std::vector<TextSpan>& spans) {
  Spans pairs;
  for (const TextSpan& span : spans) pairs.emplace_back(span.text, span.is_markup);
  return pairs;
}

TEST(ChatTemplate, EqualsTheReference) {
  const Json golden = parse_json(
      read_text_file(TANDEM_TEST_DIR "/golden/templates/chats.json", 1 << 20), "chats.json");
  int num_rendered = 0, num_refused = 0;
  for (const Json& chat : golden.at("cases")) {
    const std::string name = chat.at("name");
    const auto run = [&] {
      const ChatTemplate chat_template(chat.at("template").get<std::string>());
      return joined(chat_template.render(chat_input(golden.at("chats").at(chat.at("chat")))));
    };
    if (chat.at("expected").is_null()) {
      EXPECT_THROW(run(), Error) << name << ": " << chat.at("template");
      ++num_refused;
      continue;
    }
    try {
      EXPECT_EQ(run(), chat.at("expected").get<std::string>()) << name;
    } catch (const Error& error) {
      ADD_FAILURE() << name << ": " << error.what();
    }
    ++num_rendered;
  }
  EXPECT_GE(num_rendered, 60);
  EXPECT_GE(num_refused, 120);
}

TEST(ChatTemplate, KeepsMarkupAndContentApart) {
  const ChatTemplate chat_template(
      "{% for m in messages %}{{ '<|' + m.role | upper + '|>' ~ m['content'] | trim }}"
      "{{ m.content[3:5] ~ eos_token }}{% endfor %}{{ bos_token }}");
  const Spans known = {{"<|USER|>", true}, {"<|im_end|>im", false}, {"</s><s>", true}};
  EXPECT_EQ(pairs(chat_template.render({{"user", " <|im_end|> "}}, true, "<s>", "</s>")), known);
  // Only a role that models know may be part of a token.
  const Spans unknown = {
      {"<|", true}, {"IM_END", false}, {"|>", true}, {"ab", false}, {"</s><s>", true}};
  EXPECT_EQ(pairs(chat_template.render({{"im_end", "ab"}}, true, "<s>", "</s>")), unknown);
}

TEST(ChatTemplate, EveryWayOfTextKeepsItsOrigin) {
  const std::string content = "a|\nB";
  const std::vector<std::pair<const char*, Spans>> cases = {
      {"{{ c.split('|')[1] }}", {{"\nB", false}}},
      {"{{ c.rsplit('|', 1)[0] }}", {{"a", false}}},
      {"{{ c | tojson }}", {{"\"", true}, {"a|\\nB", false}, {"\"", true}}},
      {"{{ {c: 1} | tojson }}", {{"{\"", true}, {"a|\\nB", false}, {"\": 1}", true}}},
      {"{{ c.replace('|', '<>') }}", {{"a", false}, {"<>", true}, {"\nB", false}}},
      {"{{ 'x-y'.replace('-', c) }}", {{"x", true}, {"a|\nB", false}, {"y", true}}},
      {"{{ c[::-1] }}", {{"B\n|a", false}}},
      {"{{ c | upper ~ c.lower() }}", {{"A|\nBa|\nb", false}}},
      {"{{ c | indent(1) }}", {{"a|", false}, {"\n ", true}, {"B", false}}},
      {"{{ '<%s>' % c }}", {{"<", true}, {"a|\nB", false}, {">", true}}},
      {"{{ '<{}>'.format(c) }}", {{"<", true}, {"a|\nB", false}, {">", true}}},
      {"{{ [c] }}", {{"['", true}, {"a|\\nB", false}, {"']", true}}},
      {"{{ [c, c] | join('+') }}", {{"a|\nB", false}, {"+", true}, {"a|\nB", false}}},
      {"{{ c | e }}{{ '<' | safe + c }}", {{"a|\nB", false}, {"<", true}, {"a|\nB", false}}},
      {"{% set t %}<{{ c }}{% endset %}{{ t | trim }}", {{"<", true}, {"a|\nB", false}}},
      {"{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(c) }}",
       {{"[", true}, {"a|\nB", false}, {"]", true}}},
      {"{% for x in c %}{{ x }}{% endfor %}", {{"a|\nB", false}}},
      {"{{ c | length }}{{ c == 'a|\\nB' }}", {{"4True", true}}},
      {"{{ tools[0].name }}{{ messages[0].tool_calls[0].id }}", {{"<tool><id>", false}}},
      {"{{ c.center(6, '-') }}", {{"-", true}, {"a|\nB", false}, {"-", true}}},
  };
  ChatInput input;
  input.messages = {
      {{"role", "user"}, {"content", content}, {"tool_calls", Json::array({{{"id", "<id>"}}})}}};
  input.tools = Json::array({{{"name", "<tool>"}}});
  for (const auto& [source, expected] : cases) {
    const ChatTemplate chat_template("{% set c = messages[0].content %}" + std::string(source));
    EXPECT_EQ(pairs(chat_template.render(input)), expected) << source;
  }
}

TEST(ChatTemplate, NamesWhatItDoesNotKnowWithItsLine) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"\n{{ 'a' | urlize }}", "line 2: filter 'urlize'"},
      {"\n\n{{ 1 is nope }}", "line 3: test 'nope'"},
      {"\n{{ 'a'.encode() }}", "line 2: function 'encode'"},
      {"{{ nope(1) }}", "function 'nope'"},
      {"{% endif %}", "tag 'endif'"},
      {"{% include 'x' %}", "tag 'include'"},
      {"{{ range(1000000000) }}", "a range of more than 100000 items"},
      {"{{ 'A' * 1000000000 }}", "bytes of text"},
      {"{{ 'a'.center(1000000000000) }}", "bytes of text"},
      {"{{ [1] | tojson(indent=1000000000000) }}", "an indent of"},
      {"{{ '%99999999d' % 1 }}", "width"},
      {"{{ 99999999999999999999 }}", "does not fit"},
      {"{{ 9223372036854775807 + 1 }}", "64 bits"},
      {"{{ -9223372036854775807 - 2 }}", "64 bits"},
      {"{{ 3 ** 99 }}", "64 bits"},
      {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion deeper than"},
      {"{% set n = namespace() %}{% set n.x = n %}", "a namespace inside a value"},
      {"{{ messages.append(1) }}", "function 'append'"},
      {"{{ [1] | map('string') }}", "a generator cannot be printed"},
      {"{{ 'a", "without an end"},
      {"{{ 1", "without an end"},
      {"{# a", "without an end"},
      {"{% if true %}", "endif"},
      {"{{ }}", "expected an expression"},
      {"\xFF", "UTF-8"},
  };
  for (const auto& [source, expected] : cases) {
    EXPECT_NE(refusal(source).find(expected), std::string::npos) << source << "\n"
                                                                 << refusal(source);
    EXPECT_EQ(refusal(source).find('\n'), std::string::npos);
  }
}

TEST(ChatTemplate, BytesThatAreNotUtf8AreCharacters) {
  const ChatTemplate chat_template(
      "{{ messages[0].content | length }}{{ messages[0].content[1:] | upper }}"
      "{{ messages[0].content | tojson }}");
  EXPECT_EQ(joined(chat_template.render({{"user", "\xFFz\xC3"}}, false, "", "")),
            "3Z\xC3\"\xFFz\xC3\"");
}

TEST(ChatTemplate, StaysWithinItsLimits) {
  const std::string deep(100'000, '(');
  EXPECT_NE(refusal("{{ " + deep + " }}").find("nested"), std::string::npos);
  std::string sum = "{{ 1", nots = "{{ ", minus = "{{ ", blocks, subscripts = "{{ messages";
  std::string lists = "{{ ", objects = "{{ ", ifs = "{{ 1", calls = "{{ dict(a=";
  std::string targets = "{% set ";
  for (int i = 0; i < 20'000; ++i) {
    sum += "+1", nots += "not ", minus += "-", blocks += "{% if 1 %}", subscripts += "[0]";
    lists += "[", objects += "{1:", ifs += " if 1 else 1", calls += "dict(a=", targets += "(";
  }
  for (const std::string& source :
       {sum + " }}", nots + "1 }}", minus + "1 }}", blocks, subscripts + " }}", lists + " }}",
        objects + " }}", ifs + " }}", calls + " }}", targets + " %}"}) {
    EXPECT_NE(refusal(source).find("nested"), std::string::npos) << refusal(source);
  }
  EXPECT_NE(refusal(std::string(1 << 20, 'a')).find("bytes"), std::string::npos);

  const std::string twice = "{% for a in x %}{% for a in x %}{% for a in x %}{% for a in x %}";
  const std::string end = "{% endfor %}{% endfor %}{% endfor %}{% endfor %}";
  const std::string list = "{% set x = range(100) %}{% set n = namespace(v='a', l=[]) %}";
  const std::vector<std::pair<const char*, const char*>> loops = {
      {"", "steps"},
      {"{% set n.v = n.v + n.v %}", "bytes"},
      {"{% set n.l = [n.l] %}", "nested"},
      {"{% set n.l = {1: n.l} %}", "nested"},
      {"{% set n.l = n.l + [1] %}", "bytes"},
      {"{{ x | list | tojson(indent=1000) }}", "bytes"},
      {"{{ 'a' * 10000 }}", "bytes"},
  };
  for (const auto& [body, expected] : loops) {
    const std::string message = refusal(list + twice + body + end);
    EXPECT_NE(message.find(expected), std::string::npos) << body << ": " << message;
  }
}

TEST(ChatTemplate, ItsOwnRefusalIsTheUsersError) {
  try {
    render("{{ raise_exception('roles must alternate') }}");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::usage);
    EXPECT_NE(std::string(error.what()).find("roles must alternate"), std::string::npos);
  }
}

TEST(ChatTemplate, WhatAModelThoughtHasThreeNames) {
  ChatInput input;
  input.messages = {{{"role", "assistant"}, {"content", "x"}, {"thinking", "t"}}};
  EXPECT_EQ(joined(ChatTemplate("{{ messages[0].reasoning_content }}{{ messages[0].thinking }}")
                       .render(input)),
            "tt");
}

TEST(ChatTemplate, TellsTheLocalTimeByItself) {
  const std::string year = render("{{ strftime_now('%Y') }}");
  EXPECT_EQ(year.size(), 4u);
  EXPECT_GE(year, "2024");
}

TEST(ChatTemplate, RefusesMessagesThatAreNoObjects) {
  ChatInput input;
  input.messages = {"hello"};
  EXPECT_THROW(ChatTemplate("x").render(input), Error);
}

}  // namespace
}  // namespace tandem
