// What a template may spend, and how it is told that it may not.
#pragma once

#include <cstdint>
#include <ctime>
#include <functional>

#include "base/error.h"

namespace tandem::jinja {

inline constexpr size_t kMaxSourceBytes = size_t{256} << 10;
inline constexpr int kMaxNesting = 100;          // blocks, brackets, expressions, lists, objects
inline constexpr int kMaxDepth = 1000;           // of the evaluation: nesting times calls of macros
inline constexpr int64_t kMaxSteps = 4'000'000;  // expressions, statements, iterations
inline constexpr int64_t kMaxRange = 100'000;    // items; Jinja's sandbox has the same
inline constexpr int64_t kMaxWorkBytes = int64_t{256} << 20;  // all text made on the way
inline constexpr int64_t kMaxOutputBytes = int64_t{64} << 20;
// What an item of a list or an object counts as text: about the time and memory that it takes.
inline constexpr size_t kItemBytes = 64;

// throws bad_file: "chat template: line 3: ..."
template <typename... Args>
[[noreturn]] void fail_at(int line, fmt::format_string<Args...> format, Args&&... args) {
  fail(ErrorKind::bad_file, "chat template: line {}: {}", line,
       fmt::format(format, std::forward<Args>(args)...));
}

// The meter and the clock of one rendering.
struct Work {
  int line = 1;  // being worked on
  int64_t steps = 0, bytes = 0;
  int depth = 0;
  std::function<std::tm()> clock;

  void step() {
    if (++steps > kMaxSteps) fail_at(line, "more than {} steps", kMaxSteps);
  }
  void use_bytes(size_t count) {
    // In this order, so that no count can wrap the meter round.
    if (count > static_cast<size_t>(kMaxWorkBytes - bytes)) {
      fail_at(line, "more than {} bytes of text", kMaxWorkBytes);
    }
    bytes += static_cast<int64_t>(count);
  }
  // throws bad_file: "chat template: line 3: ..."
  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail_at(line, "{}", fmt::format(format, std::forward<Args>(args)...));
  }
};

// One level of the recursion over a template, as long as it lives.
class Descent {
 public:
  explicit Descent(Work& work) : work_(work) {
    if (++work_.depth > kMaxDepth) {
      --work_.depth;
      work_.refuse("a recursion deeper than {}", kMaxDepth);
    }
  }
  ~Descent() { --work_.depth; }
  Descent(const Descent&) = delete;
  Descent& operator=(const Descent&) = delete;

 private:
  Work& work_;
};

}  // namespace tandem::jinja
