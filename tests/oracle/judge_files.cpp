// Developer program of accept_oracle.py: judge_files gguf|safetensors FOLDER COUNT writes the seeds
// of the fuzz target of that name and COUNT neighbours of them to FOLDER/NUMBER, and prints for
// each a line: its number, a tab, and why the container is refused; nothing when it is accepted.
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "fuzz/target.h"

namespace {

using namespace tandem;

std::string refusal(bool gguf, const std::string& file) {
  const auto bytes = std::as_bytes(std::span(file));
  try {
    if (gguf) {
      parse_gguf(bytes, "file", GgufTensors::optional);
    } else {
      parse_safetensors(bytes, "file");
    }
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc == 4 ? argv[1] : "";
  if (name != "gguf" && name != "safetensors") {
    std::fputs("usage: judge_files gguf|safetensors FOLDER COUNT\n", stderr);
    return 2;
  }
  const bool gguf = name == "gguf";
  const fuzz::Target& target = gguf ? fuzz::gguf_target() : fuzz::safetensors_target();
  std::vector<std::string> files = target.seeds();
  const size_t num_seeds = files.size();
  Random random(1);
  const auto bytes = [&](std::string& text) { fuzz::change_bytes(text, random); };
  for (int i = std::atoi(argv[3]); i > 0; --i) {
    files.push_back(target.mutate(files[random.below(num_seeds)], random, bytes));
  }
  for (size_t number = 0; number < files.size(); ++number) {
    std::ofstream out(std::string(argv[2]) + "/" + std::to_string(number), std::ios::binary);
    if (!(out << files[number]).flush()) return 1;
    std::printf("%zu\t%s\n", number, refusal(gguf, files[number]).c_str());
  }
  return 0;
}
