// What the verbs that run a study have in common: where its text lies, the program that its
// children run, how it tells of its progress.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "study/run.h"

namespace tandem {

// MODEL --model, --text, --fresh
void add_study_options(CLI::App& verb, std::string& model, std::string& text, bool& fresh);

// `given` or the set-up's text, with its hash, into the settings. Throws usage when it is not
// there.
void set_study_text(const std::string& given, StudySettings& settings);

// This program, as a study starts it for its children.
std::string program_path();

// On a terminal one line that is rewritten, elsewhere one line a task.
void print_progress(const StudyProgress& progress);

}  // namespace tandem
