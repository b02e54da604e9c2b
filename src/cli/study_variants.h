// The variants of a model that a study compares, made once and kept in the user's cache.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "study/plan.h"

namespace tandem {

// The checkpoint of each named variant, made below cache_dir/variants where it is missing, half
// made, or made from another source or by another build. Studies that run at the same time make a
// variant once: the others wait. `say` is given a line for each that is made or waited for.
std::vector<Variant> prepare_variants(const std::vector<std::string>& names,
                                      const Checkpoint& source, const std::string& source_hash,
                                      const std::filesystem::path& cache_dir, ThreadPool& pool,
                                      const std::function<void(const std::string&)>& say);

}  // namespace tandem
