// fuzz_seeds FOLDER: writes FOLDER/TARGET/NUMBER for every seed of every target.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "fuzz/target.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  for (const tandem::fuzz::Target* target : tandem::fuzz::all_targets()) {
    const std::filesystem::path folder = std::filesystem::path(argv[1]) / target->name;
    std::filesystem::create_directories(folder);
    size_t number = 0;
    for (const std::string& seed : target->seeds()) {
      std::ofstream file(folder / std::to_string(number++), std::ios::binary);
      if (!(file << seed).flush()) {
        std::fprintf(stderr, "fuzz_seeds: cannot write into %s\n", folder.c_str());
        return 1;
      }
    }
  }
  return 0;
}
