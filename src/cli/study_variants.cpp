#include "cli/study_variants.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/version.h"
#include "compress/compress.h"

namespace tandem {
namespace {

Recipe recipe_of(const std::string& variant) {
  if (variant == "bf16" || variant == "int8") return recipe_from_name(variant);
  if (variant == "int4 g64") return recipe_from_name("int4", 64);
  fail(ErrorKind::usage, "--variants: found {}, expected as-shipped, bf16, int8 or int4-g64",
       quote(variant));
}

bool has_fact(const Checkpoint& checkpoint, const std::string& key, const std::string& value) {
  for (const auto& [name, found] : checkpoint.metadata) {
    if (name == key) return found == value;
  }
  return false;
}

// True when the folder holds this recipe's result for this source, made by this build.
bool is_current(const std::filesystem::path& dir, const Recipe& recipe,
                const std::string& source_hash) {
  if (!std::filesystem::exists(dir)) return false;
  try {
    const Checkpoint made = load_checkpoint(dir);
    return has_fact(made, "source_hash", source_hash) && has_fact(made, "recipe", recipe.name) &&
           has_fact(made, "commit", commit()) &&
           (recipe.group == 0 || has_fact(made, "group", std::to_string(recipe.group)));
  } catch (const Error& error) {
    if (error.kind == ErrorKind::bad_file) return false;  // damaged: made again
    throw;
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
    const std::filesystem::path dir = cache_dir / "variants" / folder;
    std::filesystem::create_directories(dir.parent_path());
    const VariantLock lock(dir.string() + ".lock",
                           [&] { say("waiting for another study that makes variant " + name); });
    if (!is_current(dir, recipe, source_hash)) {
      say("making variant " + name);
      const std::filesystem::path part = dir.string() + ".part";
      std::filesystem::remove_all(part);
      compress(source, recipe, part, pool, {});
      std::filesystem::remove_all(dir);
      std::filesystem::rename(part, dir);
    }
    variants.push_back({name, dir});
  }
  return variants;
}

}  // namespace tandem
