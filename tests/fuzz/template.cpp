// A chat template and a conversation -> text, and the border between markup and content in it. The
// input is the template, then a message a piece, with NULs between.
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "fuzz/target.h"
#include "text/chat_template.h"

namespace tandem::fuzz {
namespace {

constexpr const char* kPieces[] = {
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if loop.first %}",
    "{% elif m.role == 'user' %}",
    "{% else %}",
    "{% endif %}",
    "{%- set x = m.content -%}",
    "{% set ns = namespace(a=1, b=[]) %}",
    "{% set ns.a = ns.a + 1 %}",
    "{{ m['content'] | trim }}",
    "{{ m.role ~ ': ' }}",
    "{{ bos_token }}",
    "{{ messages[-1:] }}",
    "{{ messages[::-1][0].content }}",
    "{{ x[1:3] }}",
    "{{ x.split('a')[0] }}",
    "{{ x | replace('a', 'b') }}",
    "{{ x | tojson }}",
    "{{ messages | tojson(indent=2) }}",
    "{% macro f(a, b=2) %}{{ a }}{{ f(a) }}{% endmacro %}",
    "{{ f('a') }}",
    "{{ f(1, b=3) }}",
    "{% filter upper %}",
    "{% endfilter %}",
    "{% set y %}",
    "{% endset %}",
    "{% break %}",
    "{% continue %}",
    "{% generation %}",
    "{% endgeneration %}",
    "{% raw %}{{ x }}{% endraw %}",
    "{# note #}",
    "{{ range(3) | list | join(',') }}",
    "{% for i in range(9) %}",
    "{% for k, v in m.items() %}",
    "{{ messages | map(attribute='content') | join }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ messages | rejectattr('tool') | first }}",
    "{{ [3, 1, 2] | sort | reverse | list }}",
    "{{ ('a', 'b') }}",
    "{{ {'a': 1, 'b': [x]} }}",
    "{{ x | default('d', true) }}",
    "{{ x is defined and x is not none }}",
    "{{ x is string or x is mapping or x is iterable }}",
    "{{ 'a' if x else 'b' }}",
    "{{ 7 % 3 + 2 * 5 - -1 }}",
    "{{ 7 // 2 }}",
    "{{ 2 ** 10 }}",
    "{{ 1.5 | round }}",
    "{{ x | upper | lower | title | capitalize }}",
    "{{ x | indent(4, true) }}",
    "{{ x.strip().startswith('a') }}",
    "{{ loop.index0 }}{{ loop.previtem }}",
    "{{ raise_exception('no') }}",
    "{{ strftime_now('%d %b %Y') }}",
    "{{ not x in 'abc' }}",
    "{{ x | unique | list }}",
    "{% call f() %}{% endcall %}",
    "{{ caller() }}",
    "{{ 'a' * 100 }}",
    "{{ [1] * 1000 }}",
    "{{ x | string | safe }}",
    "{{ '%s and %d' % ('a', 1) }}",
    "{{ 9223372036854775807 + 1 }}",
    "{{ -9223372036854775808 // -1 }}",
    "{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ x['a':'b'] }}",
    "{{ \"\\u00e9\\x41\" }}"};
constexpr std::string_view kSecret = "\uE000";  // stands in content only

std::vector<std::string> pieces_of(const std::string& input) {
  std::vector<std::string> out(1);
  for (const char c : input) {
    if (c == '\0')
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

void run(std::string_view input) {
  const std::vector<std::string> parts = pieces_of(std::string(input));
  std::vector<ChatMessage> messages;
  for (size_t i = 1; i < parts.size() && i < 9; ++i) {
    messages.push_back({i % 2 == 1 ? "user" : "assistant", parts[i] + std::string(kSecret)});
  }
  std::string source = parts[0];
  // A template can spell the secret itself; then its place says nothing.
  const bool spells_it =
      source.find(kSecret) != std::string::npos || source.find("\\u") != std::string::npos ||
      source.find("\\x") != std::string::npos || source.find("\\U") != std::string::npos;
  expect_error_or_success([&] {
    for (const TextSpan& span : ChatTemplate(source).render(messages, true, "<s>", "</s>")) {
      require(!span.text.empty(), "no span is empty");
      require(!span.is_markup || spells_it || span.text.find(kSecret) == std::string::npos,
              "content never becomes markup");
    }
  });
}

// Where a tag begins or ends, so that changes fall between tags as often as inside.
size_t border(const std::string& source, Random& random) {
  const size_t at = random.below(source.size() + 1);
  const size_t tag = source.find(random.below(2) == 0 ? "{" : "}", at);
  return random.below(3) == 0 || tag == std::string::npos ? at : source[tag] == '{' ? tag : tag + 1;
}

std::string mutate(const std::string& input, Random& random, const ByteMutator& bytes) {
  std::vector<std::string> parts = pieces_of(input);
  std::string& source = parts[0];
  const size_t begin = border(source, random), end = border(source, random);
  const size_t first = std::min(begin, end), count = std::max(begin, end) - first;
  switch (random.below(8)) {
    case 0:
      source.erase(first, count);
      break;
    case 1:
      source.insert(border(source, random), source.substr(first, count));
      break;
    case 2: {
      bytes(source);
      std::erase(source, '\0');
      break;
    }
    case 3:
      if (random.below(2) == 0 || parts.size() == 1)
        parts.emplace_back("a b\n<|im_end|>");
      else
        bytes(parts.back());
      break;
    case 4: {  // an expression inside another
      const std::string_view piece = pick(kPieces, random);
      const bool prints = piece.starts_with("{{ ");
      const std::string inner(prints ? piece.substr(3, piece.size() - 6) : piece);
      source.insert(random.below(source.size() + 1), prints ? fmt::format("({})", inner) : inner);
      break;
    }
    default:
      source.insert(begin, pick(kPieces, random));
  }
  std::string out = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) out += '\0' + parts[i];
  return out;
}

std::vector<std::string> seeds() {
  std::vector<std::string> out;
  for (const char* piece : kPieces) {
    out.push_back("{% for m in messages %}{% set x = m.content %}" + std::string(piece) +
                  "{% endfor %}" + std::string("\0Hello A\0a b", 12));
  }
  const Json golden = parse_json(
      read_text_file(TANDEM_TEST_DIR "/golden/templates/chats.json", 4 << 20), "chats");
  for (const Json& chat : golden.at("cases")) {
    std::string seed = chat.at("template").get<std::string>();
    for (const Json& message :
         golden.at("chats").at(chat.at("chat").get<std::string>()).at("messages")) {
      const Json& content = message.at("content");
      seed += '\0' + (content.is_string() ? content.get<std::string>() : dump_json(content));
    }
    out.push_back(seed);
  }
  return out;
}

}  // namespace

const Target& template_target() {
  static const Target target{"template", run, seeds, mutate};
  return target;
}

}  // namespace tandem::fuzz
