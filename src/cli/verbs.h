// The verbs of the program: each file of this room adds one subcommand. When it is chosen, `action` is
// set to what runs it; main calls it and returns its exit code.
#pragma once

#include <functional>
#include <string>

namespace CLI {
class App;
}

namespace tandem {

using Action = std::function<int()>;

void add_run(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_info(CLI::App& app, Action& action);
void add_compress(CLI::App& app, Action& action);
void add_methods(CLI::App& app, Action& action);
void add_verify(CLI::App& app, Action& action);
void add_study(CLI::App& app, Action& action);
void add_report(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_chat(CLI::App& app, Action& action);
void add_completion(CLI::App& app, Action& action);

// llama-bench has flags of several letters after one dash, which the parser would read as several
// flags: "-npl" -> "--npl". Any other argument as it is.
std::string bench_spelling(const std::string& argument);

}  // namespace tandem
