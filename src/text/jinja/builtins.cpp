#include "text/jinja/builtins.h"

#include <algorithm>

namespace tandem::jinja {
namespace {

struct ParameterName {
  std::string_view name;
  bool is_optional;
};

std::vector<ParameterName> parameter_names(std::string_view parameters) {
  std::vector<ParameterName> names;
  while (!parameters.empty()) {
    const size_t end = std::min(parameters.find(' '), parameters.size());
    std::string_view name = parameters.substr(0, end);
    const bool is_optional = name.ends_with('?');
    if (is_optional) name.remove_suffix(1);
    names.push_back({name, is_optional});
    parameters.remove_prefix(std::min(end + 1, parameters.size()));
  }
  return names;
}

}  // namespace

Value run_builtin(Work& work, const Builtin& builtin, const Value& self, Arguments arguments) {
  std::vector<ParameterName> names = parameter_names(builtin.parameters);
  const bool takes_any_named = !names.empty() && names.back().name == "**";
  if (takes_any_named) names.pop_back();
  const bool takes_any = !names.empty() && names.back().name == "*";
  if (takes_any) names.pop_back();
  Bound bound;
  bound.values.assign(arguments.positional.begin(), arguments.positional.end());
  if (!takes_any && bound.values.size() > names.size()) {
    work.refuse("{} with {} arguments, expected at most {}", builtin.name, bound.values.size(),
                names.size());
  }
  bound.values.resize(std::max(bound.values.size(), names.size()));
  for (auto& [name, value] : arguments.named) {
    const auto row = std::ranges::find(names, name, &ParameterName::name);
    if (row == names.end() && takes_any_named) {
      bound.named.emplace_back(std::move(name), std::move(value));
      continue;
    }
    if (row == names.end()) work.refuse("{} has no argument {}", builtin.name, quote(name));
    std::optional<Value>& place = bound.values[static_cast<size_t>(row - names.begin())];
    if (place) work.refuse("{} with {} given twice", builtin.name, quote(name));
    place = std::move(value);
  }
  for (size_t i = 0; i < names.size(); ++i) {
    if (!bound.values[i] && !names[i].is_optional) {
      work.refuse("{} without its argument {}", builtin.name, i + 1);
    }
  }
  return builtin.run(work, self, bound);
}

const Builtin* find_in(std::span<const Builtin> rows, std::string_view name) {
  const auto row = std::ranges::find(rows, name, &Builtin::name);
  return row == rows.end() ? nullptr : &*row;
}

const TaggedText& expect_text(Work& work, const Value& value, std::string_view what) {
  const TaggedText* text = as_text(value);
  if (text == nullptr) work.refuse("{} of {}, expected a string", what, kind_name(value));
  return *text;
}

int64_t expect_integer(Work& work, const Value& value, std::string_view what) {
  const std::optional<int64_t> number = as_integer(value);
  if (!number) work.refuse("{} of {}, expected an integer", what, kind_name(value));
  return *number;
}

Value part_of(Work& work, const TaggedText& text, size_t begin, size_t end) {
  work.use_bytes(end - begin);
  return text_value(text.substr(begin, end - begin));
}

}  // namespace tandem::jinja
