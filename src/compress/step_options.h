// The options of a step, as a recipe gives them: for all matrices, and other values for those that a
// glob names.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "compress/layer_weights.h"
#include "formats/model_config.h"

namespace tandem {

struct OptionValue {
  std::variant<bool, int64_t, double, std::string> value;
  std::string where;  // "recipe.toml:7"
};

struct OptionTable {
  std::map<std::string, OptionValue, std::less<>> values;
  std::string where;
};

struct StepOverride {
  std::string glob;  // of module names; '*' matches any characters, '?' one
  bool skip = false;  // the step leaves these matrices alone
  OptionTable options;
};

struct StepSpec {
  std::string method;
  std::string only = "*";  // glob: the step leaves other matrices alone
  OptionTable options;
  std::vector<StepOverride> overrides;  // of several that match a matrix the later one wins
};

bool glob_matches(std::string_view glob, std::string_view name);

// Of `names` the one nearest to a misspelt `word`, as " (nearest: 'group')"; empty when none is near.
std::string nearest_hint(std::string_view word, const std::vector<std::string>& names);

// Reads a table option by option. Every getter throws usage, with the file and line, for a value of
// another type or out of range; finish() for options that no getter asked for, naming the nearest.
class OptionReader {
 public:
  OptionReader(std::string_view method, const OptionTable& table)
      : method_(method), table_(table) {}

  int64_t integer(std::string_view key, int64_t otherwise, int64_t least, int64_t most);
  double number(std::string_view key, double otherwise, double least, double most);
  bool boolean(std::string_view key, bool otherwise);
  // One of `choices`.
  std::string word(std::string_view key, std::string_view otherwise,
                   std::initializer_list<std::string_view> choices);
  // Any text.
  std::string text(std::string_view key, std::string_view otherwise);
  void finish() const;

  // Throws usage naming where the option stands, for what the getters cannot say.
  [[noreturn]] void refuse(std::string_view key, const std::string& found_and_expected) const;

 private:
  const OptionValue* find(std::string_view key);

  std::string method_;
  const OptionTable& table_;
  std::set<std::string, std::less<>> known_;
};

// Options for every matrix of a model; none: the step leaves that matrix alone.
template <class Options>
class PerMatrix {
 public:
  explicit PerMatrix(int64_t num_layers) : values_(static_cast<size_t>(num_layers * kNumLinears)) {}
  std::optional<Options>& at(int64_t layer, Linear linear) {
    return values_[static_cast<size_t>(layer * kNumLinears + static_cast<int64_t>(linear))];
  }
  const std::optional<Options>& at(int64_t layer, Linear linear) const {
    return const_cast<PerMatrix*>(this)->at(layer, linear);
  }

 private:
  std::vector<std::optional<Options>> values_;
};

// The table for one matrix, overrides applied; none when the step leaves it alone.
std::optional<OptionTable> options_for(const StepSpec& spec, int64_t layer, Linear linear);
// Throws usage when a glob matches no matrix of the model.
void check_globs(const StepSpec& spec, int64_t num_layers);

// Reads the options of every matrix: `read` takes an OptionReader and gives Options, naming every
// option the method has. Throws usage.
template <class Options>
PerMatrix<Options> read_options(const StepSpec& spec, const ModelConfig& config,
                                const std::function<Options(OptionReader&)>& read) {
  check_globs(spec, config.num_layers);
  PerMatrix<Options> all(config.num_layers);
  for (int64_t l = 0; l < config.num_layers; ++l) {
    for (int i = 0; i < kNumLinears; ++i) {
      const auto linear = static_cast<Linear>(i);
      const std::optional<OptionTable> table = options_for(spec, l, linear);
      if (!table) continue;
      OptionReader reader(spec.method, *table);
      all.at(l, linear) = read(reader);
      reader.finish();
    }
  }
  return all;
}

}  // namespace tandem
