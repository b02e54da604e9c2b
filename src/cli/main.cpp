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
#include "cli/usage_error.h"
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
  // One line that steers no terminal, whatever a library's message holds.
  std::ranges::replace_if(
      line, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  write_stderr("tandem: error: " + line + "\n");
  return code;
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

// A switch given twice or with a value is refused, as any other option is.
void make_switches_strict(CLI::App& app) {
  for (CLI::App* verb : app.get_subcommands({})) {
    for (CLI::Option* option : verb->get_options()) {
      if (option->get_items_expected_max() > 0 || option == verb->get_help_ptr()) continue;
      option->disable_flag_override()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
    }
  }
}

void add_verbs(CLI::App& app, Action& action) {
  add_run(app, action);
  add_chat(app, action);
  add_inspect(app, action);
  add_info(app, action);
  add_compress(app, action);
  add_methods(app, action);
  add_verify(app, action);
  add_study(app, action);
  add_report(app, action);
  add_bench(app, action);
  add_eval(app, action);
  add_completion(app, action);
  make_switches_strict(app);
}

int main_verbs(int argc, char** argv) {
  CLI::App app("Runs, compresses and measures large language models in every precision.", "tandem");
  Action action;
  app.get_formatter()->label("SUBCOMMAND", "VERB");
  app.get_formatter()->label("Subcommands", "Verbs");
  app.set_version_flag("--version",
                       fmt::format("tandem {} ({}, {})", version(), commit(), compiler()));
  app.require_subcommand(1);
  add_verbs(app, action);
  app.footer(kExamples);  // after the verbs, which would inherit it
  const std::vector<std::string> typed(argv + std::min(argc, 1), argv + argc);
  std::vector<std::string> arguments = typed;
  if (!arguments.empty() && arguments.front() == "bench") {
    for (std::string& argument : arguments) argument = bench_spelling(argument);
  }
  std::ranges::reverse(arguments);  // as the parser wants them
  try {
    app.parse(arguments);
  } catch (const CLI::Success& request) {  // --help, --version
    std::ostringstream out, err;
    app.exit(request, out, err);
    const std::string text = out.str();
    return run_action([&] { return write_stdout(text.ends_with('\n') ? text : text + "\n"), 0; });
  } catch (const CLI::ParseError& error) {
    return report_error(explain_usage(app, error, typed), exit_code(ErrorKind::usage));
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
