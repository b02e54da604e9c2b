// argv -> one verb, and every error -> one line on standard error and an exit code:
//   0 ok   1 system   2 usage   3 bad model file   4 memory   5 device   6 quality gate   130
//   interrupted
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <new>
#include <system_error>

#include "base/error.h"
#include "base/version.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace tandem {
namespace {

constexpr const char* kExamples = R"(Examples:
  tandem run -p "The capital of France is" -n 16
  tandem run model.gguf --chat -p "Why is the sky blue?" --temperature 0.7
  tandem study --profile quick

`tandem VERB --help` lists the options of a verb. Data goes to standard output, everything else to
standard error. Exit codes: 0 ok, 1 system, 2 usage, 3 bad model file, 4 memory, 5 device or
instruction set missing, 6 quality gate, 130 interrupted.)";

int report_error(std::string_view message, int code) {
  std::string line(message);
  std::ranges::replace(line, '\n', ' ');  // one line, whatever a library's message holds
  write_stderr("tandem: error: " + line + "\n");
  return code;
}

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

// The closest candidate, if a slip of the fingers could have made `word` of it; else empty.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::vector<std::string> flags_of(const CLI::App& app) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  return flags;
}

// What the parser could not place, with the nearest thing it knows.
std::string explain_unexpected(CLI::App& app) {
  const auto verbs = app.get_subcommands();
  const CLI::App& scope = verbs.empty() ? app : *verbs.front();
  const std::vector<std::string> unexpected = app.remaining(true);
  if (unexpected.empty()) return "";
  const std::string word = unexpected.front().substr(0, unexpected.front().find('='));
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
  const std::string message = fmt::format("unknown {} {}", kind, quote(word));
  const std::string suggestion = nearest(word, candidates);
  if (!suggestion.empty()) return message + "; did you mean " + suggestion + "?";
  return message + "; see tandem " + (verbs.empty() ? "" : scope.get_name() + " ") + "--help";
}

int report_parse_error(CLI::App& app, const CLI::ParseError& error) {
  const int usage = exit_code(ErrorKind::usage);
  // A mistyped flag often causes a second complaint (its value, a missing option): the typo comes
  // first.
  const std::string unexpected = explain_unexpected(app);
  if (!unexpected.empty()) return report_error(unexpected, usage);
  if (app.get_subcommands().empty()) return report_error("no verb given; see tandem --help", usage);
  return report_error(error.what(), usage);
}

int run_action(const Action& action) {
  try {
    const int code = action();
    // What printf-like calls left in the buffer: a full disk shows only here.
    if (std::fflush(stdout) != 0) {
      throw std::system_error(errno, std::generic_category(), "cannot write to standard output");
    }
    return code;
  } catch (const OutputClosed&) {
    return 0;
  } catch (const Error& error) {
    return report_error(error.what(), exit_code(error.kind));
  } catch (const std::bad_alloc&) {
    return report_error("not enough memory", exit_code(ErrorKind::no_memory));
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::broken_pipe) return 0;
    return report_error(error.what(), exit_code(ErrorKind::system));
  } catch (const std::exception& error) {
    return report_error(error.what(), exit_code(ErrorKind::system));
  }
}

int main_verbs(int argc, char** argv) {
  CLI::App app("Runs, compresses and measures large language models in every precision.", "tandem");
  Action action;
  app.set_version_flag("--version",
                       fmt::format("tandem {} ({}, {})", version(), commit(), compiler()));
  app.require_subcommand(1);
  add_run(app, action);
  add_inspect(app, action);
  add_info(app, action);
  add_compress(app, action);
  add_study(app, action);
  add_report(app, action);
  add_bench(app, action);
  add_eval(app, action);
  add_chat(app, action);
  add_completion(app, action);
  app.footer(kExamples);  // after the verbs, which would inherit it
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (!arguments.empty() && arguments.front() == "bench") {
    for (std::string& argument : arguments) {
      if (const char* spelling = bench_spelling(argument)) argument = spelling;
    }
  }
  std::ranges::reverse(arguments);  // as the parser wants them
  try {
    app.parse(arguments);
  } catch (const CLI::Success& request) {  // --help, --version
    std::ostringstream out, err;
    app.exit(request, out, err);
    return run_action([&] { return write_stdout(out.str()), 0; });
  } catch (const CLI::ParseError& error) {
    return report_parse_error(app, error);
  }
  CHECK(action != nullptr, "verb without an action");
  return run_action(action);
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  tandem::prepare_process();
  return tandem::main_verbs(argc, argv);
}
