// The speed and the energy of the model's step alone: random tokens, no tokenizer, no sampler.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model.h"
#include "study/meters/energy_point.h"

namespace tandem {

// What one repetition does to each of `sequences` sequences: after `depth` untimed tokens, a prompt
// and then a decode, timed together.
struct StepTest {
  int64_t prompt_tokens = 0;
  int64_t new_tokens = 0;
  int64_t depth = 0;
  int64_t sequences = 1;

  int64_t context() const { return depth + prompt_tokens + new_tokens; }
  int64_t timed_tokens() const { return sequences * (prompt_tokens + new_tokens); }
};

struct StepSettings {
  KvType kv_type = KvType::bf16;
  int64_t step_tokens = 512;  // of a prefill step, over all sequences; at least one for each
  int repetitions = 5;
  bool warm_up = true;  // one repetition that is not counted
};

struct StepTiming {
  std::vector<int64_t> samples_ns;
  // What the steps of one repetition must read at least: each step all of its weights and, once,
  // the cache of every sequence as it stands after the step.
  uint64_t bytes_moved = 0;
};

// Throws usage when the test has no tokens or exceeds the model's context, no_memory when its cache
// does not fit.
StepTiming time_steps(const Model& model, const StepTest& test, const StepSettings& settings);

// The energy of the test repeated for windows.work_seconds, warmed up, and of the machine idle with
// the model before and after. Its tokens are the test's timed ones. Throws as time_steps does.
EnergyPoint measure_step_energy(const Model& model, const StepTest& test,
                                const StepSettings& settings, EnergyMeter& meter,
                                const EnergyWindows& windows);

}  // namespace tandem
