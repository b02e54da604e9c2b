#include "compress/step_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"

namespace tandem {
namespace {

const char* type_of(const OptionValue& option) {
  constexpr const char* kTypes[] = {"true or false", "a whole number", "a number", "a text"};
  return kTypes[option.value.index()];
}

// Letters to insert, drop or change to make one word of the other.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
      diagonal = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

bool glob_matches(std::string_view glob, std::string_view name) {
  size_t g = 0, n = 0, star = std::string_view::npos, after_star = 0;
  while (n < name.size()) {
    if (g < glob.size() && (glob[g] == '?' || (glob[g] != '*' && glob[g] == name[n]))) {
      ++g, ++n;
    } else if (g < glob.size() && glob[g] == '*') {
      star = g++;
      after_star = n;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      n = ++after_star;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

std::string nearest_hint(std::string_view word, const std::vector<std::string>& names) {
  const std::string* nearest = nullptr;
  size_t least = std::max<size_t>(2, word.size() / 2);
  for (const std::string& name : names) {
    const size_t distance = edit_distance(word, name);
    if (distance < least) {
      least = distance;
      nearest = &name;
    }
  }
  return nearest == nullptr ? "" : fmt::format(" (nearest: '{}')", *nearest);
}

const OptionValue* OptionReader::find(std::string_view key) {
  known_.emplace(key);
  const auto it = table_.values.find(key);
  return it == table_.values.end() ? nullptr : &it->second;
}

void OptionReader::refuse(std::string_view key, const std::string& found_and_expected) const {
  const auto it = table_.values.find(key);
  const std::string& where = it == table_.values.end() ? table_.where : it->second.where;
  fail(ErrorKind::usage, "{}: {}: option '{}' is {}", where, method_, key, found_and_expected);
}

int64_t OptionReader::integer(std::string_view key, int64_t otherwise, int64_t least,
                              int64_t most) {
  const OptionValue* option = find(key);
  if (option == nullptr) return otherwise;
  const auto* value = std::get_if<int64_t>(&option->value);
  const std::string expected = fmt::format("expected a whole number from {} to {}", least, most);
  if (value == nullptr) refuse(key, fmt::format("{}, {}", type_of(*option), expected));
  if (*value < least || *value > most) refuse(key, fmt::format("{}, {}", *value, expected));
  return *value;
}

double OptionReader::number(std::string_view key, double otherwise, double least, double most) {
  const OptionValue* option = find(key);
  if (option == nullptr) return otherwise;
  const std::string expected = fmt::format("expected a number from {} to {}", least, most);
  double value = 0;
  if (const auto* real = std::get_if<double>(&option->value)) {
    value = *real;
  } else if (const auto* whole = std::get_if<int64_t>(&option->value)) {
    value = static_cast<double>(*whole);
  } else {
    refuse(key, fmt::format("{}, {}", type_of(*option), expected));
  }
  if (!(value >= least && value <= most)) refuse(key, fmt::format("{}, {}", value, expected));
  return value;
}

bool OptionReader::boolean(std::string_view key, bool otherwise) {
  const OptionValue* option = find(key);
  if (option == nullptr) return otherwise;
  const auto* value = std::get_if<bool>(&option->value);
  if (value == nullptr) refuse(key, fmt::format("{}, expected true or false", type_of(*option)));
  return *value;
}

std::string OptionReader::word(std::string_view key, std::string_view otherwise,
                               std::initializer_list<std::string_view> choices) {
  const std::string value = text(key, otherwise);
  if (std::ranges::find(choices, value) == choices.end()) {
    refuse(key, fmt::format("{}, expected one of {}", quote(value), fmt::join(choices, ", ")));
  }
  return value;
}

std::string OptionReader::text(std::string_view key, std::string_view otherwise) {
  const OptionValue* option = find(key);
  if (option == nullptr) return std::string(otherwise);
  const auto* value = std::get_if<std::string>(&option->value);
  if (value == nullptr) refuse(key, fmt::format("{}, expected a text", type_of(*option)));
  return *value;
}

void OptionReader::finish() const {
  for (const auto& [key, option] : table_.values) {
    if (known_.contains(key)) continue;
    const std::vector<std::string> names(known_.begin(), known_.end());
    fail(ErrorKind::usage, "{}: {}: unknown option {}{}; it has {}", option.where, method_,
         quote(key), nearest_hint(key, names), fmt::join(names, ", "));
  }
}

std::optional<OptionTable> options_for(const StepSpec& spec, int64_t layer, Linear linear) {
  const std::string name = module_name(layer, linear);
  if (!glob_matches(spec.only, name)) return std::nullopt;
  OptionTable table = spec.options;
  bool skip = false;
  for (const StepOverride& override_ : spec.overrides) {
    if (!glob_matches(override_.glob, name)) continue;
    skip = override_.skip;
    for (const auto& [key, option] : override_.options.values) {
      table.values.insert_or_assign(key, option);
    }
  }
  if (skip) return std::nullopt;
  return table;
}

void check_globs(const StepSpec& spec, int64_t num_layers) {
  const auto check = [&](const std::string& glob, const std::string& where) {
    for (int64_t l = 0; l < num_layers; ++l) {
      for (int i = 0; i < kNumLinears; ++i) {
        if (glob_matches(glob, module_name(l, static_cast<Linear>(i)))) return;
      }
    }
    fail(ErrorKind::usage, "{}: {} matches none of the model's matrices, which are named as {}",
         where, quote(glob), module_name(0, Linear::q));
  };
  check(spec.only, spec.options.where);
  for (const StepOverride& each : spec.overrides) check(each.glob, each.options.where);
}

}  // namespace tandem
