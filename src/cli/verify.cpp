// tandem verify DIR | FILE
#include <CLI/CLI.hpp>
#include <memory>

#include "base/error.h"
#include "cli/terminal.h"
#include "cli/verbs.h"
#include "compress/manifest.h"

namespace tandem {
namespace {

int verify(const std::string& path) {
  const std::vector<std::string> problems = verify_compressed(path);
  for (const std::string& problem : problems) write_stdout(problem + "\n");
  if (problems.empty()) {
    write_stdout(path + ": is as its manifest says\n");
    return 0;
  }
  fail(ErrorKind::bad_file, "{}: {} problem{} found, listed on standard output", path,
       problems.size(), problems.size() == 1 ? "" : "s");
}

}  // namespace

void add_verify(CLI::App& app, Action& action) {
  auto path = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand("verify", "Check a compressed model against its manifest");
  verb->add_option("MODEL", *path, "Folder or GGUF file that compress wrote")
      ->required()
      ->type_name("");
  verb->footer(
      "Prints each problem on a line: hashes of files, encodings and shapes of matrices.\n"
      "Ends with 0 when all fits, with 3 when not or when there is no manifest.\n"
      "Example:\n  tandem verify model-int4");
  verb->callback([path, &action] { action = [path] { return verify(*path); }; });
}

}  // namespace tandem
