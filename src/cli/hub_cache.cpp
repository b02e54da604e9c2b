#include "cli/hub_cache.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= 96 && name.front() != '.' && name.front() != '-' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

}  // namespace

bool is_hub_id(std::string_view text) {
  const size_t slash = text.find('/');
  return slash != std::string_view::npos && is_name(text.substr(0, slash)) &&
         is_name(text.substr(slash + 1));
}

fs::path hub_cache_path() {
  if (const char* cache = variable("HF_HUB_CACHE")) return cache;
  if (const char* home = variable("HF_HOME")) return fs::path(home) / "hub";
  const char* cache = variable("XDG_CACHE_HOME");
  const char* home = variable("HOME");
  const fs::path root =
      cache != nullptr ? fs::path(cache) : fs::path(home != nullptr ? home : "/") / ".cache";
  return root / "huggingface" / "hub";
}

fs::path find_in_hub_cache(const fs::path& cache, const std::string& id) {
  const size_t slash = id.find('/');
  const fs::path model = cache / ("models--" + id.substr(0, slash) + "--" + id.substr(slash + 1));
  const fs::path snapshots = model / "snapshots", main = model / "refs" / "main";
  std::error_code error;
  if (fs::exists(main, error)) {
    std::string revision = read_text_file(main, 256);
    while (revision.ends_with('\n')) revision.pop_back();
    if (is_name(revision) && fs::is_directory(snapshots / revision, error)) {
      return snapshots / revision;
    }
  }
  std::vector<fs::path> found;
  if (fs::is_directory(snapshots, error)) {
    for (const auto& entry : fs::directory_iterator(snapshots)) found.push_back(entry.path());
  }
  if (found.size() == 1) return found.front();
  fail(ErrorKind::usage,
       "{}: no such file or folder, and not in the Hugging Face cache {}; fetch it with: "
       "hf download {}",
       id, cache.string(), id);
}

}  // namespace tandem
