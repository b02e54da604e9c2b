// The options that several verbs share: which model, how it computes, how it samples. Their help,
// their limits and their messages are declared here once.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/explain.h"
#include "runtime/request.h"

namespace tandem {

struct ModelOptions {
  std::string model;  // as typed; empty: the default model
  std::string kv = "bf16";
  std::string isa;  // empty: the best this processor has
  int threads = 0;  // 0: all usable CPUs
  KernelOptions kernels;
};

// MODEL --kv --threads --isa --device --explain --require-sparse
void add_model_options(CLI::App& verb, ModelOptions& options);
void add_threads_option(CLI::App& verb, int& threads);
// --isa --device --arch-cap: a GPU's name takes the place of an instruction set's.
void add_isa_option(CLI::App& verb, std::string& isa);
CLI::Option* add_device_option(CLI::App& verb, std::string& device, const char* what);
// --arch-cap, which joins the device's name: "cuda@sm_80".
void add_arch_cap_option(CLI::App& verb, std::string& device);
// --temperature --top-k --top-p --min-p --repetition-penalty --seed
void add_sampling_options(CLI::App& verb, SamplingParams& sampling);

// The threads to start. Throws usage when there are more than CPUs this process may use.
int chosen_threads(int given);
// The instruction set to use. Throws no_device when this processor does not have it.
std::string chosen_isa(const std::string& given);

// What a value must be; the message is "found '0', expected 1 to 4096".
CLI::Validator whole_number(int64_t least, int64_t most);
CLI::Validator seed_number();
CLI::Validator one_of(std::vector<std::string> names);

inline constexpr int64_t kMaxCount = int64_t{1} << 30;  // of tokens, windows, items

}  // namespace tandem
