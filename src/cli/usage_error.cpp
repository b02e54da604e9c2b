#include "cli/usage_error.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace tandem {
namespace {

// Insertions, deletions, replacements and swaps of neighbours that turn a into b.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

// The closest candidate, if a slip of the fingers could have made `word` of it, or the only one
// that begins with it; else empty.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  constexpr size_t kLongestName = 64;
  if (word.size() > kLongestName) return "";
  std::string best;
  size_t best_distance = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  if (!best.empty() || word.size() < 3) return best;
  const auto begins = [&](const std::string& candidate) { return candidate.starts_with(word); };
  const auto first = std::ranges::find_if(candidates, begins);
  return std::ranges::count_if(candidates, begins) == 1 ? *first : "";
}

std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  return flags;
}

// What the parser could not place, with the nearest thing it knows.
std::string explain_unexpected(CLI::App& app, const std::vector<std::string>& arguments) {
  const auto verbs = app.get_subcommands();
  const CLI::App& scope = verbs.empty() ? app : *verbs.front();
  const std::vector<std::string> unexpected = app.remaining(true);
  if (unexpected.empty()) return "";
  std::string word = unexpected.front().substr(0, unexpected.front().find('='));
  const bool is_flag = word.size() > 1 && word[0] == '-';
  std::string kind = "argument";
  std::vector<std::string> candidates;
  if (is_flag) {
    kind = "option";
    candidates = flags_of(scope);
  } else if (verbs.empty()) {
    kind = "verb";
    for (const CLI::App* verb : app.get_subcommands({})) candidates.push_back(verb->get_name());
  }
  std::string suggestion = nearest(word, candidates);
  // bench reads "-npl" as "--npl": named as it was typed.
  constexpr size_t kLongestShort = 5;  // "--npl"
  const auto typed = [&](const std::string& text) {
    return std::ranges::find(arguments, text) != arguments.end();
  };
  if (word.starts_with("--") && !typed(word) && typed(word.substr(1))) {
    word.erase(0, 1);
    if (!suggestion.empty() && suggestion.size() <= kLongestShort) suggestion.erase(0, 1);
  }
  const std::string message = fmt::format("unknown {} {}", kind, quote(word));
  if (!suggestion.empty()) return message + "; did you mean " + suggestion + "?";
  return message + "; see tandem " + (verbs.empty() ? "" : scope.get_name() + " ") + "--help";
}

// Cuts `text` at the separator; false, with nothing changed, when it is not there.
bool cut(std::string_view& text, std::string_view separator, std::string_view& before) {
  const size_t at = text.find(separator);
  if (at == std::string_view::npos) return false;
  before = text.substr(0, at);
  text.remove_prefix(at + separator.size());
  return true;
}

bool drop_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

// The parser's own sentence as one of ours: its parts hold what the user typed as it is.
std::string reworded(const std::string& message, const std::string& verb) {
  std::string_view text = message, name, value;
  if (drop_suffix(text, " is required")) {
    return fmt::format("no {} given; see tandem {} --help", text, verb);
  }
  if (drop_suffix(text, " was given a disallowed flag override")) {
    return fmt::format("--{} takes no value", text);
  }
  if (cut(text, "Could not convert: ", name) && cut(text, " = ", name)) {
    return fmt::format("{}: found {}, expected a number", name, quote(text));
  }
  if (!cut(text, ": ", name)) return message;
  if (cut(text, "At Most 1 required but received ", value)) {
    return fmt::format("{}: given {} times, expected once", name, text);
  }
  if (cut(text, " required ", value) && drop_suffix(text, " missing")) {
    return fmt::format("{}: no value given, expected {}", name, text);
  }
  if (text.starts_with("Value ") && cut(text, " not in range ", value)) {
    value.remove_prefix(std::string_view("Value ").size());
    constexpr size_t kLongestRange = 50;  // the largest double, written out, says nothing
    if (text.size() > kLongestRange) text = "a number that is not negative";
    return fmt::format("{}: found {}, expected {}", name, quote(value), text);
  }
  if (cut(text, " not in {", value) && drop_suffix(text, "}")) {
    return fmt::format("{}: found {}, expected one of {}", name, quote(value), text);
  }
  return message;
}

}  // namespace

std::string explain_usage(CLI::App& app, const CLI::ParseError& error,
                          const std::vector<std::string>& arguments) {
  // A mistyped flag often causes a second complaint (its value, a missing option): the typo comes
  // first.
  const std::string unexpected = explain_unexpected(app, arguments);
  if (!unexpected.empty()) return unexpected;
  const auto verbs = app.get_subcommands();
  if (verbs.empty()) return "no verb given; see tandem --help";
  return reworded(error.what(), verbs.front()->get_name());
}

}  // namespace tandem
