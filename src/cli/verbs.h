// The verbs of the program: each file of this room adds one subcommand. When it is chosen, `action` is
// set to what runs it; main calls it and returns its exit code.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace tandem {

using Action = std::function<int()>;

void add_run(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_info(CLI::App& app, Action& action);
void add_compress(CLI::App& app, Action& action);
void add_study(CLI::App& app, Action& action);
void add_report(CLI::App& app, Action& action);

}  // namespace tandem
