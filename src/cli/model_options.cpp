#include "cli/model_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>

#include "base/cpu.h"
#include "base/error.h"
#include "kernels/device.h"
#include "kernels/table.h"

namespace tandem {
namespace {

template <typename Number>
bool parses(const std::string& text, Number& number) {
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && rest == end;
}

// Empty when the text is a whole number from least to most, else the message.
template <typename Number>
std::string check_number(const std::string& text, Number least, Number most) {
  if (text.size() > 1 && text[0] == '0') {  // CLI11 would take the rest as octal
    return fmt::format("found {}, expected a decimal number without zeros in front", quote(text));
  }
  Number number{};
  if (parses(text, number) && number >= least && number <= most) return "";
  return fmt::format("found {}, expected {} to {}", quote(text), least, most);
}

CLI::Validator validator(std::function<std::string(const std::string&)> check) {
  return CLI::Validator([check](std::string& text) { return check(text); }, "");
}

// The room checks the range; here only that it is a number, whatever the locale.
CLI::Validator real_number() {
  return validator([](const std::string& text) {
    double number = 0;
    return parses(text, number) ? "" : fmt::format("found {}, expected a number", quote(text));
  });
}

}  // namespace

CLI::Validator whole_number(int64_t least, int64_t most) {
  return validator([=](const std::string& text) { return check_number(text, least, most); });
}

CLI::Validator seed_number() {
  return validator([](const std::string& text) {
    return check_number<uint64_t>(text, 0, std::numeric_limits<uint64_t>::max());
  });
}

CLI::Validator one_of(std::vector<std::string> names) {
  return validator([names](const std::string& text) {
    if (std::ranges::find(names, text) != names.end()) return std::string();
    std::string expected;
    for (size_t i = 0; i < names.size(); ++i) {
      expected += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + names[i];
    }
    return fmt::format("found {}, expected {}", quote(text), expected);
  });
}

void add_threads_option(CLI::App& verb, int& threads) {
  verb.add_option("--threads", threads, "Default: all CPUs this process may use")
      ->check(whole_number(1, 4096))
      ->type_name("N");
}

CLI::Option* add_device_option(CLI::App& verb, std::string& device, const char* what) {
  return verb.add_option("--device", device, what)
      ->type_name("NAME")
      ->option_text("NAME")
      ->check(validator([](const std::string& name) {
        return names_device(name) ? ""
                                  : fmt::format("found {}, expected cuda or cuda:N", quote(name));
      }));
}

void add_arch_cap_option(CLI::App& verb, std::string& device) {
  const auto cap = std::make_shared<std::string>();
  verb.add_option("--arch-cap", *cap, "Run the kernels of an older GPU: sm_75, sm_80 or sm_89")
      ->type_name("NAME")
      ->option_text("NAME")
      ->check(one_of({"sm_75", "sm_80", "sm_89"}))
      ->needs("--device");
  verb.parse_complete_callback([&device, cap] {
    if (!cap->empty()) device += "@" + *cap;
  });
}

void add_isa_option(CLI::App& verb, std::string& isa) {
  verb.add_option("--isa", isa, "Instruction set: avx512, avx2 or ref (the best there is)")
      ->type_name("NAME")
      ->option_text("NAME");
  add_device_option(verb, isa, "cuda, or cuda:N of several; without it the CPU runs the model")
      ->excludes("--isa");
  add_arch_cap_option(verb, isa);
}

void add_model_options(CLI::App& verb, ModelOptions& options) {
  verb.add_option("MODEL", options.model,
                  "GGUF file, Hugging Face folder or hub id (default: the set-up's model)")
      ->type_name("");
  verb.add_option("--kv", options.kv, "KV cache: bf16 or int8; on cuda and ref fp8 and int4 too")
      ->capture_default_str()
      ->check(one_of({"bf16", "int8", "fp8", "int4"}))
      ->type_name("TYPE");
  add_threads_option(verb, options.threads);
  add_isa_option(verb, options.isa);
  add_kernel_options(verb, options.kernels);
}

void add_sampling_options(CLI::App& verb, SamplingParams& sampling) {
  const auto number = [&](const char* name, auto& value, const char* what, const char* type) {
    return verb.add_option(name, value, what)->capture_default_str()->type_name(type);
  };
  number("--temperature", sampling.temperature, "0 is greedy", "X")->check(real_number());
  number("--top-k", sampling.top_k, "Draw from the k most likely; 0 is off", "K")
      ->check(whole_number(0, std::numeric_limits<int32_t>::max()));
  number("--top-p", sampling.top_p, "Draw from the most likely that hold P; 1 is off", "P")
      ->check(real_number());
  number("--min-p", sampling.min_p, "Drop what is less likely than P times the best", "P")
      ->check(real_number());
  number("--repetition-penalty", sampling.repetition_penalty, "Above 1 discourages what was said",
         "X")
      ->check(real_number());
  number("--seed", sampling.seed, "Repeats a sampled answer", "N")->check(seed_number());
}

int chosen_threads(int given) {
  const auto allowed = static_cast<int>(allowed_cpus().size());
  if (given > allowed) {
    fail(ErrorKind::usage, "{} threads; this process may use {} CPUs", given, allowed);
  }
  return given > 0 ? given : usable_cpus();
}

std::string chosen_isa(const std::string& given) {
  std::string isa = given.empty() ? std::string(best_isa()) : given;
  require_isa(isa);
  return isa;
}

}  // namespace tandem
