// What a study measures: profiles, the list of cells, their seeded order, and the name that
// settings get.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "study/evals/loglikelihood.h"
#include "study/meters/energy_point.h"
#include "study/random_model.h"
#include "study/record.h"

namespace tandem {

struct Profile {
  std::string name;  // "smoke", "quick", "full"
  std::vector<std::string> variants;
  std::vector<std::string> kv;
  std::vector<int64_t> batches;  // none: quality alone is measured
  int64_t prompt_tokens = 0;  // a sequence
  int64_t new_tokens = 0;     // a sequence
  int num_warmups = 0;
  int num_runs = 0;
  int max_reruns = 0;         // of a cell whose spread is over 10 %
  int64_t num_windows = 0;    // of 512 tokens, for quality; 0: speeds alone are measured
  int64_t answer_tokens = 0;  // of each sample answer; 0: none is given
};

// Throws usage with the names there are.
Profile find_profile(const std::string& name);
// Names of all variants, in the order of tables: "as shipped", "bf16", "int8", "int4 g64".
const std::vector<std::string>& all_variants();
inline constexpr const char* kBaselineVariant = "bf16";

// A variant of the model: a checkpoint on disk, or random weights of the shape at `path`.
struct Variant {
  std::string name;
  std::filesystem::path path;
  std::optional<RandomWeights> random = {};
};

struct StudySettings {
  Profile profile;
  std::vector<Variant> variants;        // those of the profile; the baseline may be an extra one
  std::filesystem::path baseline_path;  // the bf16 variant, which quality compares with
  // Weights are random: nothing has quality, and prompts are random token ids of this vocabulary.
  int64_t random_vocabulary = 0;
  std::filesystem::path model_path;
  std::string model_hash;
  std::filesystem::path text_path;
  std::string text_hash;
  std::optional<TaskFile> questions;  // asked of every variant
  std::string questions_hash;         // of the file
  int threads = 1;
  std::string isa;
  uint64_t seed = 1;
  MeterChoice meter;
  std::string processor;  // that runs the model, for people; empty: this machine's CPU
  Json facts;             // goes into each Record's `extra`; not part of the study's name
};

// How long energy is measured: a GPU's counter needs longer windows than a CPU's, and smoke shorter
// ones.
EnergyWindows energy_windows(const StudySettings& settings);

// Hash of all settings that change a cell's numbers, the commit included; which cells were asked
// for is not among them, so a study can be widened.
std::string study_id(const StudySettings& settings);

// All cells of the profile, each once, in an order drawn from the seed: what a hot or busy machine
// adds to one cell is not added to the same variant each time.
std::vector<CellKey> ordered_cells(const Profile& profile, uint64_t seed);

}  // namespace tandem
