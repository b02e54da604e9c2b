#include "cli/study_variants.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/error.h"
#include "base/version.h"
#include "compress/compress.h"
#include "compress/manifest.h"

namespace tandem {
namespace {

// "int4 g64" -> the recipe int4 in groups of 64; GGUF's encodings by their names.
Recipe recipe_of(const std::string& variant) {
  const size_t space = variant.find(" g");
  if (space != std::string::npos) {
    const std::string digits = variant.substr(space + 2);
    int64_t group = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), group);
    if (parsed.ec == std::errc{} && parsed.ptr == digits.data() + digits.size()) {
      return recipe_from_name(variant.substr(0, space), group);
    }
  }
  const bool is_gguf = variant == "f16" || variant.starts_with("q");
  return recipe_from_name(variant, 0, is_gguf ? Container::gguf : Container::hf_folder);
}

// True when the path holds this recipe's result for this source, made by this build.
bool is_current(const std::filesystem::path& path, const Recipe& recipe,
                const std::string& source_hash) {
  if (!std::filesystem::exists(path)) return false;
  try {
    const std::optional<Json> manifest = read_manifest(load_checkpoint(path));
    return manifest && manifest->value("source_hash", "") == source_hash &&
           manifest->value("recipe", "") == recipe.name &&
           manifest->value("commit", "") == commit() &&
           (recipe.group == 0 || manifest->value("group", int64_t{0}) == recipe.group);
  } catch (const Error& error) {
    if (error.kind == ErrorKind::bad_file) return false;  // damaged: made again
    throw;
  } catch (const Json::exception&) {
    return false;  // not a manifest of ours
  }
}

// Held while a variant is looked at and made; the lock goes with the process. `on_wait` is called
// when another process holds it.
class VariantLock {
 public:
  VariantLock(const std::filesystem::path& path, const std::function<void()>& on_wait) {
    file_ = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (file_ < 0) fail(ErrorKind::system, "{}: {}", path.string(), std::strerror(errno));
    if (flock(file_, LOCK_EX | LOCK_NB) == 0) return;
    on_wait();
    while (flock(file_, LOCK_EX) != 0) {
      if (errno == EINTR) continue;
      close(file_);
      fail(ErrorKind::system, "{}: {}", path.string(), std::strerror(errno));
    }
  }
  ~VariantLock() { close(file_); }
  VariantLock(const VariantLock&) = delete;
  VariantLock& operator=(const VariantLock&) = delete;

 private:
  int file_ = -1;
};

}  // namespace

std::vector<Variant> prepare_variants(const std::vector<std::string>& names,
                                      const Checkpoint& source, const std::string& source_hash,
                                      const std::filesystem::path& cache_dir, ThreadPool& pool,
                                      const std::function<void(const std::string&)>& say) {
  std::vector<Variant> variants;
  for (const std::string& name : names) {
    if (name == all_variants().front()) {
      variants.push_back({name, source.path});
      continue;
    }
    const Recipe recipe = recipe_of(name);
    std::string folder = source_hash + "-" + recipe.name;
    if (recipe.group != 0) folder += "-g" + std::to_string(recipe.group);
    const bool is_gguf = recipe.container == Container::gguf;
    const std::filesystem::path dir = cache_dir / "variants" / (folder + (is_gguf ? ".gguf" : ""));
    std::filesystem::create_directories(dir.parent_path());
    const VariantLock lock(dir.string() + ".lock",
                           [&] { say("waiting for another study that makes variant " + name); });
    if (!is_current(dir, recipe, source_hash)) {
      say("making variant " + name);
      const std::filesystem::path part = dir.string() + ".part";
      std::filesystem::remove_all(part);
      if (is_gguf) {
        compress_to_gguf(source, recipe, part, pool, {});
      } else {
        compress(source, recipe, part, pool, {});
      }
      std::filesystem::remove_all(dir);
      std::filesystem::rename(part, dir);
    }
    variants.push_back({name, dir});
  }
  return variants;
}

}  // namespace tandem
