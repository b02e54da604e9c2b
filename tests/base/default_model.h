// Where the set-up puts the default model; a test that needs it skips when it is not there.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace tandem {

inline std::filesystem::path default_model() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path root = cache != nullptr && *cache == '/'
                                         ? std::filesystem::path(cache)
                                         : std::filesystem::path(home ? home : "") / ".cache";
  return root / "tandem" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf";
}

}  // namespace tandem
