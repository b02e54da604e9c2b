// Errors of the world or the caller (file, model, request, memory): thrown as Error, caught in
// cli/main (kind -> exit code). The message names the thing, what was found and what was expected.
// Errors of the programmer: CHECK, on in release, at every op's door; DCHECK inside loops.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace tandem {

enum class ErrorKind {
  usage,         // exit 2: flags, prompts, recipes
  bad_file,      // exit 3: model, tokenizer or text file that cannot be used
  no_memory,     // exit 4: does not fit
  no_device,     // exit 5: an instruction set or device that is not there
  quality_gate,  // exit 6: a result below a floor the user set
  system,        // exit 1: disk full, no permission, a child process died
};

int exit_code(ErrorKind kind);

struct Error : std::runtime_error {
  Error(ErrorKind kind_, const std::string& message) : std::runtime_error(message), kind(kind_) {}
  ErrorKind kind;
};

// throws Error{kind, formatted message}
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// Text from a file or a user, made safe to print on one line: control characters and bytes that are
// not UTF-8 are escaped, and at most max_bytes are kept.
std::string quote(std::string_view text, size_t max_bytes = 80);

[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& values);

}  // namespace tandem

// CHECK(a == b, "a {} b {}", a, b): a programmer's mistake, with the values in the message; aborts.
#define CHECK(condition, ...)                                                            \
  do {                                                                                   \
    if (!(condition)) [[unlikely]]                                                       \
      ::tandem::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (false)

#ifdef NDEBUG
#define DCHECK(condition, ...) \
  do {                         \
  } while (false)
#else
#define DCHECK(condition, ...) CHECK(condition, __VA_ARGS__)
#endif
