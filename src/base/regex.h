// Patterns out of a file, run with limits.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace tandem {

// A Perl pattern over Unicode (PCRE2 with UTF and UCP).
class Regex {
 public:
  // Throws bad_file naming a pattern that is longer than 64 KiB or cannot be compiled.
  explicit Regex(std::string_view pattern);
  ~Regex();
  Regex(Regex&&) noexcept;

  // Memory that searches reuse, of any patterns but one at a time.
  class Scratch {
   public:
    Scratch();
    ~Scratch();

   private:
    friend class Regex;
    struct Impl;
    std::unique_ptr<Impl> impl_;
  };

  struct Match {
    size_t begin, end;  // bytes of the text; end > begin
  };
  // The first match at or after `from` that is not empty, of a text of valid UTF-8. Throws usage
  // when the search takes more steps or memory than the limits, which bound what a hostile pattern
  // or text can cost.
  std::optional<Match> find(std::string_view text, size_t from, Scratch& scratch) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem
