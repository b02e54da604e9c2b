#include "study/plan.h"

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/version.h"

namespace tandem {
namespace {

std::vector<Profile> make_profiles() {
  Profile smoke;
  smoke.name = "smoke";
  smoke.variants = {"as shipped", "bf16", "int8"};
  smoke.kv = {"bf16"};
  smoke.batches = {1};
  smoke.prompt_tokens = 64;
  smoke.new_tokens = 32;
  smoke.num_warmups = 1;
  smoke.num_runs = 3;
  smoke.max_reruns = 1;
  smoke.num_windows = 1;
  smoke.answer_tokens = 24;

  Profile quick = smoke;
  quick.name = "quick";
  quick.variants = all_variants();
  quick.kv = {"bf16", "int8"};
  quick.batches = {1, 2, 4, 8};
  quick.prompt_tokens = 128;
  quick.new_tokens = 48;
  quick.num_windows = 8;
  quick.answer_tokens = 48;

  Profile full = quick;
  full.name = "full";
  full.prompt_tokens = 512;
  full.new_tokens = 512;
  full.num_warmups = 3;
  full.num_runs = 10;
  full.max_reruns = 2;
  full.num_windows = 40;
  full.answer_tokens = 96;
  return {smoke, quick, full};
}

}  // namespace

const std::vector<std::string>& all_variants() {
  static const std::vector<std::string> names = {"as shipped", kBaselineVariant, "int8",
                                                 "int4 g64"};
  return names;
}

Profile find_profile(const std::string& name) {
  static const std::vector<Profile> profiles = make_profiles();
  for (const Profile& profile : profiles) {
    if (profile.name == name) return profile;
  }
  fail(ErrorKind::usage, "--profile: found {}, expected smoke, quick or full", quote(name));
}

EnergyWindows energy_windows(const StudySettings& settings) {
  if (settings.meter.gpu_pci_address.empty()) return {2.0, 0.0};
  return settings.profile.name == "smoke" ? EnergyWindows{3.0, 1.0} : EnergyWindows{10.0, 5.0};
}

std::string study_id(const StudySettings& settings) {
  const Profile& p = settings.profile;
  Json document = {{"model", settings.model_hash},
                   {"text", settings.text_hash},
                   {"profile", p.name},
                   {"prompt_tokens", p.prompt_tokens},
                   {"new_tokens", p.new_tokens},
                   {"warmups", p.num_warmups},
                   {"runs", p.num_runs},
                   {"reruns", p.max_reruns},
                   {"windows", p.num_windows},
                   {"answer_tokens", p.answer_tokens},
                   {"threads", settings.threads},
                   {"isa", settings.isa},
                   {"seed", settings.seed},
                   {"power_command", settings.meter.power_command},
                   {"processor", settings.processor},
                   {"version", version()},
                   {"commit", commit()}};
  if (settings.questions) {
    document["questions"] = {settings.questions->name, settings.questions_hash,
                             settings.questions->max_items};
  }
  return hash_hex(dump_json(document)).substr(0, 16);
}

std::vector<CellKey> ordered_cells(const Profile& profile, uint64_t seed) {
  std::vector<CellKey> cells;
  for (const std::string& variant : profile.variants) {
    for (const std::string& kv : profile.kv) {
      for (const int64_t batch : profile.batches) cells.push_back({variant, kv, batch});
    }
  }
  Random random(seed);
  for (size_t i = cells.size(); i > 1; --i) std::swap(cells[i - 1], cells[random.below(i)]);
  return cells;
}

}  // namespace tandem
