// The variants of a model that a study compares, made once and kept in the user's cache.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/thread_pool.h"
#include "cli/variant_recipe.h"
#include "compress/calibration_rows.h"
#include "formats/checkpoint.h"
#include "study/plan.h"

namespace tandem {

class VariantCache {
 public:
  using Say = std::function<void(const std::string& line)>;

  // dir: the cache, with variants/ below it. calibration: for recipes that read text; no file: the
  // set-up's. `say` is given a line for what is made, waited for or takes long. Source and pool
  // must outlive the cache.
  VariantCache(const Checkpoint& source, std::string source_hash, std::filesystem::path dir,
               CalibrationOptions calibration, ThreadPool& pool, Say say);

  // The checkpoint of a variant by the name of variant_recipe(), made where it is missing, half
  // made, or made from another source, over other text or by another build; "as shipped" is the
  // source itself. Studies that run at the same time make a variant once: the others wait. Throws
  // usage for a name, a width or a missing text that does not allow it.
  Variant get(const std::string& name);
  // Throws what get() would before it makes anything: for an unknown name, a missing text.
  void check(const std::string& name);
  // The text that went into some of them; empty while none has read one.
  std::filesystem::path calibration_text() const { return rows_ ? rows_->source : ""; }

 private:
  const CalibrationRows& rows();
  std::filesystem::path place_of(const VariantRecipe& variant);
  void make(const VariantRecipe& variant, const std::filesystem::path& part);

  const Checkpoint& source_;
  const std::string source_hash_;
  const std::filesystem::path dir_;
  const CalibrationOptions calibration_;
  ThreadPool& pool_;
  const Say say_;
  std::optional<CalibrationRows> rows_;  // once a recipe has asked for them
};

}  // namespace tandem
