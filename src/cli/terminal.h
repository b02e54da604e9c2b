// The process's edge to its terminal: standard output and error, and interrupts.
#pragma once

#include <string_view>

namespace tandem {

// Once, before anything else: missing standard streams are opened so that no file of ours can take
// their number, SIGPIPE becomes an error code, and SIGBUS (a mapped model file cut short) one line
// and exit 3.
void prepare_process();

// Whoever read standard output has gone (`tandem ... | head`): not an error, but nothing more is
// wanted.
struct OutputClosed {};

// Writes all of it at once, unbuffered: a stream of text appears as it comes. Throws OutputClosed
// when the reader has gone, system when it cannot be written (disk full, closed).
void write_stdout(std::string_view text);
// Standard error; what cannot be written there is lost.
void write_stderr(std::string_view text);

bool stdin_is_terminal();
// A dumb terminal counts as none: it cannot rewrite a line.
bool stderr_is_terminal();

// While it lives, the first SIGINT only sets a flag; the second ends the process with 130. The end of
// a guard clears the flag. Guards nest: what is interrupted between two inner ones meets the next.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  static bool interrupted();
  // Waits until standard input can be read or has ended; false when interrupted, also before.
  // Without a guard it waits for the input alone.
  static bool wait_for_input();
};

inline constexpr int kExitInterrupted = 130;  // 128 + SIGINT, as shells report it

}  // namespace tandem
