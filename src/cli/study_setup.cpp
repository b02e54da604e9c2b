#include "cli/study_setup.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "cli/model_path.h"
#include "cli/terminal.h"

namespace tandem {
namespace {

std::string duration(double seconds) {
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  return whole < 60 ? fmt::format("{} s", whole)
                    : fmt::format("{} min {:02} s", whole / 60, whole % 60);
}

}  // namespace

void add_study_options(CLI::App& verb, std::string& model, std::string& text, bool& fresh) {
  verb.add_option("MODEL,--model", model,
                  "GGUF file or Hugging Face folder (default: the set-up's model)")
      ->type_name("PATH");
  verb.add_option("--text", text, "Prose for prompts and perplexity (default: the set-up's)")
      ->type_name("FILE");
  verb.add_flag("--fresh", fresh, "Measure again what this study has already");
}

void set_study_text(const std::string& given, StudySettings& settings) {
  settings.text_path = given.empty() ? cache_folder() / "texts/developers-reference.txt"
                                     : std::filesystem::path(given);
  if (!std::filesystem::exists(settings.text_path)) {
    fail(ErrorKind::usage, "{}: no such text; give one with --text FILE (some 50 kB of prose)",
         settings.text_path.string());
  }
  settings.text_hash = hash_hex(std::as_bytes(MappedFile(settings.text_path).bytes()));
}

std::string program_path() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

void print_progress(const StudyProgress& progress) {
  const bool is_terminal = stderr_is_terminal();
  if (progress.what.empty()) {
    if (is_terminal) write_stderr("\r\x1b[K");
    return;
  }
  const std::string left =
      progress.seconds_left < 0 ? "" : ", about " + duration(progress.seconds_left) + " left";
  write_stderr(fmt::format("{}[{}/{}] {}{}{}", is_terminal ? "\r\x1b[K" : "", progress.done + 1,
                           progress.total, progress.what, left, is_terminal ? "" : "\n"));
}

}  // namespace tandem
