#include "text/chat_template.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

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

TEST(ChatTemplate, EqualsTheReference) {
  const Json cases =
      parse_json(read_text_file(TANDEM_TEST_DIR "/golden/text/chats.json", 1 << 20), "chats.json");
  EXPECT_GE(cases.size(), 80u);
  for (const Json& chat : cases) {
    std::vector<ChatMessage> messages;
    for (const Json& message : chat.at("messages")) {
      messages.push_back({message.at("role"), message.at("content")});
    }
    const ChatTemplate chat_template(chat.at("template").get<std::string>());
    const auto run = [&] {
      return joined(chat_template.render(messages, chat.at("add_generation_prompt"),
                                         chat.at("bos_token"), chat.at("eos_token")));
    };
    if (chat.at("expected").is_null()) {
      EXPECT_THROW(run(), Error);
    } else {
      EXPECT_EQ(run(), chat.at("expected").get<std::string>());
    }
  }
}

TEST(ChatTemplate, KeepsMarkupAndContentApart) {
  const ChatTemplate chat_template(
      "{% for m in messages %}{{ '<|' + m.role | upper + '|>' ~ m['content'] | trim }}"
      "{{ m.content[3:5] ~ eos_token }}{% endfor %}{{ bos_token }}");
  const std::vector<TextSpan> spans =
      chat_template.render({{"user", " <|im_end|> "}}, true, "<s>", "</s>");
  const std::vector<std::pair<std::string, bool>> expected = {
      {"<|", true}, {"USER", false}, {"|>", true}, {"<|im_end|>im", false}, {"</s><s>", true}};
  ASSERT_EQ(spans.size(), expected.size());
  for (size_t i = 0; i < spans.size(); ++i) {
    EXPECT_EQ(spans[i].text, expected[i].first);
    EXPECT_EQ(spans[i].is_markup, expected[i].second);
  }
}

TEST(ChatTemplate, PartsAndJsonKeepTheirOrigin) {
  const ChatTemplate chat_template(
      "{{ messages[0].content.split('|')[1] }}{{ messages[0].content | tojson }}");
  const std::vector<TextSpan> spans =
      chat_template.render({{"user", "a|\n"}}, true, "<s>", "</s>");
  const std::vector<std::pair<std::string, bool>> expected = {
      {"\n", false}, {"\"", true}, {"a|\\n", false}, {"\"", true}};
  ASSERT_EQ(spans.size(), expected.size());
  for (size_t i = 0; i < spans.size(); ++i) {
    EXPECT_EQ(spans[i].text, expected[i].first);
    EXPECT_EQ(spans[i].is_markup, expected[i].second);
  }
}

TEST(ChatTemplate, NamesWhatItDoesNotKnowWithItsLine) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"\n{{ 'a' | urlize }}", "line 2: filter 'urlize'"},
      {"{{ 1 is divisibleby(3) }}", "test 'divisibleby'"},
      {"{{ 'a'.splitlines() }}", "method 'splitlines'"},
      {"{{ range(1000000000) }}", "function 'range'"},
      {"\n\n{% macro f() %}{{ f() }}{% endmacro %}", "line 3: tag 'macro'"},
      {"{% raw %}", "tag 'raw'"},
      {"{% endif %}", "tag 'endif'"},
      {"{% for m in messages %}{{ loop.cycle }}{% endfor %}", "loop.cycle"},
      {"{{ messages.__class__ }}", "__class__"},
      {"{{ messages['a':'b'] }}", "slice"},
      {"{{ messages[::2] }}", "step"},
      {"{{ 1.5 }}", "decimal integers"},
      {"{{ 99999999999999999999 }}", "integer above"},
      {"{{ 7 // 2 }}", "//"},
      {"{{ {'a': 1} }}", "{"},
      {"{{ '\\q' }}", "escape"},
      {"{{ 1 < 2 < 3 }}", "chained"},
      {"{{ (1, 2) }}", "tuples"},
      {"{{ 'a", "without an end"},
      {"{{ 1", "without an end"},
      {"{# a", "without an end"},
      {"{% if true %}", "endif"},
      {"{{ }}", "expected an expression"},
      {"{% for x in messages if x %}{% endfor %}", "%}"},
      {"\xFF", "UTF-8"},
  };
  for (const auto& [source, expected] : cases) {
    EXPECT_NE(refusal(source).find(expected), std::string::npos) << source << "\n"
                                                                 << refusal(source);
  }
}

TEST(ChatTemplate, RefusesOperationsThatValuesDoNotHave) {
  for (const char* source :
       {"{{ messages[999].role }}", "{{ missing.x }}", "{{ messages }}", "{{ messages[0] }}",
        "{{ 'A' * 1000000000 }}", "{{ 1 + 'a' }}", "{{ 1 < 'a' }}", "{{ 1 in 2 }}", "{{ 5 % 0 }}",
        "{{ 9223372036854775807 + 1 }}", "{{ -9223372036854775807 - 2 }}", "{{ 1 | first }}",
        "{% for m in none %}{% endfor %}", "{% set messages.x = 1 %}", "{{ '\\u00e9' | upper }}",
        "{% set n = namespace() %}{% set n.x = n %}", "{{ 1 | length }}"}) {
    EXPECT_NE(refusal(source).find("line 1"), std::string::npos)
        << source << " " << refusal(source);
  }
  EXPECT_EQ(render("{{ none.x }}{{ messages[999] }}{{ (-9223372036854775807 - 1) % -1 }}"), "0");
}

TEST(ChatTemplate, StaysWithinItsLimits) {
  const std::string deep(100'000, '(');
  EXPECT_NE(refusal("{{ " + deep + " }}").find("nested"), std::string::npos);
  std::string sum = "{{ 1", nots = "{{ ", minus = "{{ ", blocks, subscripts = "{{ messages";
  for (int i = 0; i < 20'000; ++i) {
    sum += "+1", nots += "not ", minus += "-", blocks += "{% if 1 %}", subscripts += "[0]";
  }
  for (const std::string& source :
       {sum + " }}", nots + "1 }}", minus + "1 }}", blocks, subscripts + " }}"}) {
    EXPECT_NE(refusal(source).find("nested"), std::string::npos) << refusal(source);
  }
  EXPECT_NE(refusal(std::string(1 << 20, 'a')).find("bytes"), std::string::npos);

  const std::string twice = "{% for a in x %}{% for a in x %}{% for a in x %}{% for a in x %}";
  const std::string end = "{% endfor %}{% endfor %}{% endfor %}{% endfor %}";
  std::string list = "{% set x = [0";
  for (int i = 0; i < 99; ++i) list += ",0";
  list += "] %}{% set n = namespace(v='a', l=[]) %}";
  EXPECT_NE(refusal(list + twice + end).find("steps"), std::string::npos);
  EXPECT_NE(refusal(list + twice + "{% set n.v = n.v + n.v %}" + end).find("bytes"),
            std::string::npos);
  EXPECT_NE(refusal(list + twice + "{% set n.l = [n.l] %}" + end).find("nested"),
            std::string::npos);
  EXPECT_NE(refusal(list + twice + "{% set n.l = n.l + [1] %}" + end).find("bytes"),
            std::string::npos);
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

}  // namespace
}  // namespace tandem
