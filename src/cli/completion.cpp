// tandem completion bash|zsh|fish: the shell's completion of verbs and options, from the parser's
// own tables.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "cli/model_options.h"
#include "cli/terminal.h"
#include "cli/verbs.h"

namespace tandem {
namespace {

struct Flag {
  std::string name;  // with its dashes
  std::string what;
  bool takes_value = false;
};

std::vector<Flag> flags_of(const CLI::App& app) {
  std::vector<Flag> flags;
  for (const CLI::Option* option : app.get_options()) {
    const bool takes_value = option->get_items_expected_max() > 0;
    for (const std::string& name : option->get_snames())
      flags.push_back({fmt::format("-{}", name), option->get_description(), takes_value});
    for (const std::string& name : option->get_lnames())
      flags.push_back({fmt::format("--{}", name), option->get_description(), takes_value});
  }
  return flags;
}

// A description between single quotation marks, safe in every shell here.
std::string quoted(std::string text) {
  std::erase(text, '\'');
  return fmt::format("'{}'", text);
}

// zsh splits "value:description" at the colon.
std::string zsh_entry(const std::string& name, std::string what) {
  for (char& c : what) {
    if (c == ':') c = ';';
  }
  return quoted(name + ":" + what);
}

std::string words(const std::vector<Flag>& flags) {
  std::string out;
  for (const Flag& flag : flags) {
    if (!out.empty()) out += " ";
    out += flag.name;
  }
  return out;
}

std::string bash_script(const CLI::App& app) {
  std::string verbs, cases;
  for (const CLI::App* verb : app.get_subcommands({})) {
    verbs += fmt::format("{} ", verb->get_name());
    cases += fmt::format("    {}) flags='{}' ;;\n", verb->get_name(), words(flags_of(*verb)));
  }
  return fmt::format(R"(_tandem() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} flags=''
  case ${{COMP_WORDS[1]}} in
{}  esac
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W '{}{}' -- "$word"))
  elif [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _tandem tandem
)",
                     cases, verbs, words(flags_of(app)));
}

std::string zsh_script(const CLI::App& app) {
  std::string verbs, cases;
  for (const CLI::App* verb : app.get_subcommands({})) {
    verbs += fmt::format(" {}", zsh_entry(verb->get_name(), verb->get_description()));
    cases += fmt::format("    {}) flags=(", verb->get_name());
    for (const Flag& flag : flags_of(*verb))
      cases += fmt::format(" {}", zsh_entry(flag.name, flag.what));
    cases += " ) ;;\n";
  }
  return fmt::format(R"(#compdef tandem
_tandem() {{
  local -a verbs flags
  verbs=({} )
  if (( CURRENT == 2 )); then
    _describe verb verbs
    return
  fi
  case $words[2] in
{}  esac
  if [[ $PREFIX == -* ]]; then
    _describe option flags
  else
    _files
  fi
}}
# Sourced, it registers itself; found in $fpath, it is called.
if [[ $funcstack[1] == _tandem ]]; then
  _tandem "$@"
else
  compdef _tandem tandem
fi
)",
                     verbs, cases);
}

std::string fish_script(const CLI::App& app) {
  std::string out;
  for (const CLI::App* verb : app.get_subcommands({})) {
    out += fmt::format("complete -c tandem -n __fish_use_subcommand -f -a {} -d {}\n",
                       verb->get_name(), quoted(verb->get_description()));
    for (const Flag& flag : flags_of(*verb)) {
      const bool is_long = flag.name.starts_with("--");
      out += fmt::format("complete -c tandem -n '__fish_seen_subcommand_from {}' -{} {}{} -d {}\n",
                         verb->get_name(), is_long ? "l" : "s", flag.name.substr(is_long ? 2 : 1),
                         flag.takes_value ? " -r" : "", quoted(flag.what));
    }
  }
  return out;
}

}  // namespace

void add_completion(CLI::App& app, Action& action) {
  const auto shell = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand("completion", "Print a shell's completion of these verbs");
  verb->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(one_of({"bash", "zsh", "fish"}))
      ->type_name("");
  verb->footer(
      "Examples:\n  source <(tandem completion bash)\n"
      "  tandem completion fish > ~/.config/fish/completions/tandem.fish");
  verb->callback([shell, &app, &action] {
    action = [shell, &app] {
      write_stdout(*shell == "bash"  ? bash_script(app)
                   : *shell == "zsh" ? zsh_script(app)
                                     : fish_script(app));
      return 0;
    };
  });
}

}  // namespace tandem
