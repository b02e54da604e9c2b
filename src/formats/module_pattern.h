// A name of a module as quantization_config gives it: in full, or "re:" and a pattern that the name
// must begin with.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/regex.h"

namespace tandem {

class ModulePattern {
 public:
  // Throws bad_file when the pattern cannot be compiled.
  explicit ModulePattern(std::string text);

  bool is_regex() const { return regex_ != nullptr; }
  // Throws usage when a pattern takes more steps than its limits.
  bool matches(std::string_view module) const;

 private:
  std::string text_;
  std::shared_ptr<const Regex> regex_;
};

}  // namespace tandem
