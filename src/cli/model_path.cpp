#include "cli/model_path.h"

#include <cstdlib>

#include "base/error.h"
#include "cli/hub_cache.h"

namespace tandem {

std::filesystem::path cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path root;
  if (cache != nullptr && *cache == '/') {  // the XDG standard ignores relative paths
    root = cache;
  } else {
    root = std::filesystem::path(home != nullptr ? home : "/") / ".cache";
  }
  return root / "tandem";
}

std::filesystem::path default_model_path() { return cache_folder() / "models" / kDefaultModelName; }

std::filesystem::path default_calibration_text() {
  const std::filesystem::path file = cache_folder() / "texts" / "debian-reference.txt";
  if (std::filesystem::exists(file)) return file;
  fail(ErrorKind::usage,
       "the recipe needs calibration text, and {} is not there: `tools/setup.sh calibration` "
       "installs it, or name a text with --calibration FILE",
       file.string());
}

std::filesystem::path resolve_model_path(const std::string& given) {
  std::error_code error;
  if (!given.empty()) {
    if (std::filesystem::exists(given, error) || !is_hub_id(given)) return given;
    return find_in_hub_cache(hub_cache_path(), given);
  }
  std::filesystem::path path = default_model_path();
  if (!std::filesystem::exists(path, error)) {
    fail(ErrorKind::usage,
         "no model given and the default model is not at {}; fetch it with 'make study' or "
         "tools/setup.sh, or give the path of a GGUF file or a Hugging Face folder",
         quote(path.string(), 400));
  }
  return path;
}

}  // namespace tandem
