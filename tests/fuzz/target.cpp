#include "fuzz/target.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"

namespace tandem::fuzz {

void expect_error_or_success(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    require(error.what()[0] != '\0', "an error has a message");
  }
}

void require(bool holds, std::string_view what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: broken property: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

uint64_t edge_number(Random& random) {
  switch (random.below(5)) {
    case 0:
      return random.below(9);
    case 1:
      return (uint64_t{1} << random.below(64)) + random.below(3) - 1;
    case 2:
      return UINT64_MAX - random.below(66);
    case 3:
      return static_cast<uint64_t>(INT64_MAX) / (1 + random.below(300)) + random.below(2);
    default:
      return random.next() >> random.below(64);
  }
}

void change_bytes(std::string& text, Random& random) {
  for (uint64_t i = random.below(4) + 1; i > 0; --i) {
    const size_t at = random.below(text.size() + 1);
    switch (random.below(3)) {
      case 0:
        text.insert(at, 1, static_cast<char>(random.next()));
        break;
      case 1:
        if (at < text.size()) text.erase(at, 1 + random.below(8));
        break;
      default:
        if (at < text.size()) text[at] = static_cast<char>(random.next());
    }
  }
}

ScratchFolder::ScratchFolder() {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path memory = "/dev/shm";
  const fs::path parent = fs::is_directory(memory, error) ? memory : fs::temp_directory_path();
  path_ = (parent / "tandem_fuzz.XXXXXX").string();
  require(::mkdtemp(path_.data()) != nullptr, "a scratch folder can be made");
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void ScratchFolder::write(const std::string& name, std::string_view bytes) const {
  const std::string file = path_ + "/" + name;
  std::FILE* out = std::fopen(file.c_str(), "wb");
  require(out != nullptr, "a scratch file can be opened");
  require(std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size(),
          "a scratch file is written");
  require(std::fclose(out) == 0, "a scratch file is written");
}

}  // namespace tandem::fuzz
