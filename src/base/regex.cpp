#include "base/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"

namespace tandem {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr uint32_t kMaxSteps = 4 << 20;      // of one search from one place
constexpr uint32_t kMaxDepth = 4 << 20;      // of nested choices: a megabyte of spaces is one run
constexpr uint32_t kMaxHeapKib = 512 << 10;  // PCRE2 counts in KiB
constexpr uint32_t kMaxNestedParentheses = 64;

std::string message_of(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

template <auto release>
struct Releaser {
  template <typename T>
  void operator()(T* object) const {
    release(object);
  }
};
using Code = std::unique_ptr<pcre2_code, Releaser<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Releaser<pcre2_match_data_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Releaser<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Releaser<pcre2_match_context_free>>;

}  // namespace

struct Regex::Impl {
  std::string pattern;
  Code code;
  MatchContext context;
};

struct Regex::Scratch::Impl {
  MatchData data;
};

Regex::Regex(std::string_view pattern) : impl_(std::make_unique<Impl>()) {
  if (pattern.size() > kMaxPatternBytes) {
    fail(ErrorKind::bad_file, "a pattern has {} bytes, expected at most {}",
         pattern.size(), kMaxPatternBytes);
  }
  impl_->pattern = pattern;
  const CompileContext compile(pcre2_compile_context_create(nullptr));
  impl_->context.reset(pcre2_match_context_create(nullptr));
  if (!compile || !impl_->context) fail(ErrorKind::no_memory, "no memory for a pattern");
  pcre2_set_parens_nest_limit(compile.get(), kMaxNestedParentheses);
  pcre2_set_match_limit(impl_->context.get(), kMaxSteps);
  pcre2_set_depth_limit(impl_->context.get(), kMaxDepth);
  pcre2_set_heap_limit(impl_->context.get(), kMaxHeapKib);
  int error = 0;
  PCRE2_SIZE where = 0;
  impl_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &where,
                                  compile.get()));
  if (!impl_->code) {
    fail(ErrorKind::bad_file, "the pattern {} is not supported: {} at byte {}",
         quote(pattern, 160), message_of(error), where);
  }
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

Regex::Scratch::Scratch() : impl_(std::make_unique<Impl>()) {
  impl_->data.reset(pcre2_match_data_create(1, nullptr));
  if (!impl_->data) fail(ErrorKind::no_memory, "no memory to match a pattern");
}

Regex::Scratch::~Scratch() = default;

std::optional<Regex::Match> Regex::find(std::string_view text, size_t from,
                                        Scratch& scratch) const {
  pcre2_match_data* data = scratch.impl_->data.get();
  const int code =
      pcre2_match(impl_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                  PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK, data, impl_->context.get());
  if (code == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (code < 0) {
    fail(ErrorKind::usage, "the pattern {} cannot be matched at byte {} of {}: {}",
         quote(impl_->pattern, 160), from, text.size(), message_of(code));
  }
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
  // \K can put the beginning behind the end.
  if (ends[1] <= ends[0] || ends[0] < from) {
    fail(ErrorKind::usage, "the pattern {} matches from byte {} to byte {}",
         quote(impl_->pattern, 160), ends[0], ends[1]);
  }
  return Match{ends[0], ends[1]};
}

}  // namespace tandem
