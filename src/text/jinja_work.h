// What a template may spend, and how it is told that it may not.
#pragma once

#include <cstdint>

#include "base/error.h"

namespace tandem::jinja {

inline constexpr size_t kMaxSourceBytes = size_t{256} << 10;
inline constexpr int kMaxNesting = 100;          // blocks, brackets, expressions, lists
inline constexpr int64_t kMaxSteps = 1'000'000;  // expressions, statements, iterations
inline constexpr int64_t kMaxWorkBytes = int64_t{256} << 20;  // all text made on the way
inline constexpr int64_t kMaxOutputBytes = int64_t{64} << 20;

// throws bad_file: "chat template: line 3: ..."
template <typename... Args>
[[noreturn]] void fail_at(int line, fmt::format_string<Args...> format, Args&&... args) {
  fail(ErrorKind::bad_file, "chat template: line {}: {}", line,
       fmt::format(format, std::forward<Args>(args)...));
}

// The meter of one rendering.
struct Work {
  int line = 1;  // being worked on
  int64_t steps = 0, bytes = 0;

  void step() {
    if (++steps > kMaxSteps) fail_at(line, "more than {} steps", kMaxSteps);
  }
  void use_bytes(size_t count) {
    bytes += static_cast<int64_t>(count);
    if (bytes > kMaxWorkBytes) fail_at(line, "more than {} bytes of text", kMaxWorkBytes);
  }
};

}  // namespace tandem::jinja
