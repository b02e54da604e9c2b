// What the parser of the command line refused -> one sentence of ours.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace tandem {

// `arguments` as they were typed. Something unknown comes first, with the nearest thing there is.
std::string explain_usage(CLI::App& app, const CLI::ParseError& error,
                          const std::vector<std::string>& arguments);

}  // namespace tandem
