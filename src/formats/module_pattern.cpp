#include "formats/module_pattern.h"

#include "base/utf8.h"

namespace tandem {
namespace {

constexpr std::string_view kRegex = "re:";

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_valid_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace

ModulePattern::ModulePattern(std::string text) : text_(std::move(text)) {
  if (!text_.starts_with(kRegex)) return;
  regex_ = std::make_shared<Regex>("\\A(?:" + text_.substr(kRegex.size()) + ")");
}

bool ModulePattern::matches(std::string_view module) const {
  if (regex_ == nullptr) return module == text_;
  if (!is_utf8(module)) return false;
  Regex::Scratch scratch;
  return regex_->find(module, 0, scratch).has_value();
}

}  // namespace tandem
