#include "cli/study_variants.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/version.h"
#include "cli/model_path.h"
#include "compress/compress.h"
#include "compress/compress_steps.h"
#include "compress/manifest.h"

namespace tandem {
namespace {

// True when the path holds what the recipe makes of this source, made by this build.
bool is_current(const std::filesystem::path& path, const VariantRecipe& variant,
                const std::string& source_hash) {
  if (!std::filesystem::exists(path)) return false;
  try {
    const std::optional<Json> manifest = read_manifest(load_checkpoint(path));
    return manifest && manifest->value("source_hash", "") == source_hash &&
           manifest->value("recipe", "") ==
               (variant.steps ? variant.steps->name : variant.recipe.name) &&
           manifest->value("commit", "") == commit() &&
           (variant.recipe.group == 0 ||
            manifest->value("group", int64_t{0}) == variant.recipe.group);
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

// A line each ten seconds of something long.
class SlowProgress {
 public:
  SlowProgress(std::string what, const VariantCache::Say& say)
      : what_(std::move(what)), say_(say) {}

  void update(double share) {
    const int64_t now = now_ns();
    if (now - last_ns_ < kLineNs || !(share > 0)) return;
    last_ns_ = now;
    say_(fmt::format("{}: {:.0f} %, about {:.0f} s left", what_, share * 100,
                     seconds_since(start_ns_) * (1 - share) / share));
  }

 private:
  static constexpr int64_t kLineNs = 10'000'000'000;
  const std::string what_;
  const VariantCache::Say& say_;
  const int64_t start_ns_ = now_ns();
  int64_t last_ns_ = start_ns_;
};

}  // namespace

VariantCache::VariantCache(const Checkpoint& source, std::string source_hash,
                           std::filesystem::path dir, CalibrationOptions calibration,
                           ThreadPool& pool, Say say)
    : source_(source),
      source_hash_(std::move(source_hash)),
      dir_(std::move(dir)),
      calibration_(std::move(calibration)),
      pool_(pool),
      say_(std::move(say)) {}

Variant VariantCache::get(const std::string& name) {
  if (name == all_variants().front()) return {name, source_.path};
  const VariantRecipe variant = variant_recipe(name, source_.config);
  const std::filesystem::path place = place_of(variant);
  std::filesystem::create_directories(place.parent_path());
  const VariantLock lock(place.string() + ".lock", [&] {
    say_(fmt::format("waiting for another study that makes variant {}", variant.name));
  });
  if (!is_current(place, variant, source_hash_)) {
    say_(fmt::format("making variant {}", variant.name));
    const std::filesystem::path part = place.string() + ".part";
    std::filesystem::remove_all(part);
    std::filesystem::remove_all(part.string() + ".partial");  // layers of one that was stopped
    make(variant, part);
    std::filesystem::remove_all(place);
    std::filesystem::rename(part, place);
  }
  return {variant.name, place};
}

void VariantCache::check(const std::string& name) {
  if (variant_recipe(name, source_.config).reads_text) rows();
}

const CalibrationRows& VariantCache::rows() {
  if (!rows_) {
    CalibrationOptions options = calibration_;
    if (options.file.empty()) options.file = default_calibration_text();
    rows_ = read_calibration(options, Tokenizer(source_.tokenizer));
  }
  return *rows_;
}

// What its name does not tell of a recipe, its steps and the rows it reads, is in a hash.
std::filesystem::path VariantCache::place_of(const VariantRecipe& variant) {
  std::string folder = fmt::format("{}-{}", source_hash_, variant.name);
  for (char& c : folder) c = c == ' ' || c == '/' ? '-' : c;
  std::string content = variant.steps ? variant.steps->text : "";
  if (variant.reads_text) content += rows().hash;
  if (!content.empty()) folder += fmt::format("-{}", hash_hex(content).substr(0, 16));
  if (variant.recipe.container == Container::gguf) folder += ".gguf";
  return dir_ / "variants" / folder;
}

void VariantCache::make(const VariantRecipe& variant, const std::filesystem::path& part) {
  SlowProgress progress(variant.name, say_);
  const CalibrationRows* rows = variant.reads_text ? &this->rows() : nullptr;
  if (variant.steps) {
    compress_by_steps(source_, *variant.steps, rows, part, pool_,
                      [&](const SequentialProgress& p) { progress.update(p.share); });
  } else if (variant.recipe.container == Container::gguf) {
    compress_to_gguf(source_, variant.recipe, part, pool_, {});
  } else {
    compress(source_, variant.recipe, part, pool_, {}, {}, rows);
  }
}

}  // namespace tandem
