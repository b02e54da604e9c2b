#include "cli/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/error.h"

namespace tandem {
namespace {

volatile sig_atomic_t interrupts = 0;
int guards = 0;
// Readable from an interrupt on: what poll can wait for, whichever thread the signal met.
int interrupt_pipe[2] = {-1, -1};

void set_handler(int signal_number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(signal_number, &action, nullptr);
}

// Only calls that POSIX allows in a handler.
void on_bus_error(int) {
  // Every thread of a pool may fault at once: one of them speaks, the others wait for the end.
  static std::atomic_flag reported = ATOMIC_FLAG_INIT;
  while (reported.test_and_set()) ::pause();
  constexpr char kMessage[] = "tandem: error: model file changed while in use\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
  _exit(exit_code(ErrorKind::bad_file));
}

void on_interrupt(int) {
  if (interrupts != 0) _exit(kExitInterrupted);
  interrupts = 1;
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(interrupt_pipe[1], "", 1);
  errno = error;
}

void forget_interrupts() {
  interrupts = 0;
  char rest[16];
  while (::read(interrupt_pipe[0], rest, sizeof rest) > 0) {
  }
}

}  // namespace

void prepare_process() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) != -1 || errno != EBADF) continue;
    // The wrong direction on purpose: using a stream that was closed stays an error.
    [[maybe_unused]] const int opened =
        ::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
  ::signal(SIGPIPE, SIG_IGN);
  set_handler(SIGBUS, on_bus_error);
}

void write_stdout(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EPIPE) {
      throw OutputClosed{};
    } else if (errno != EINTR) {
      fail(ErrorKind::system, "cannot write to standard output: {}", std::strerror(errno));
    }
  }
}

void write_stderr(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno != EINTR) return;
    if (written > 0) text.remove_prefix(static_cast<size_t>(written));
  }
}

bool stdin_is_terminal() { return ::isatty(STDIN_FILENO) == 1; }
bool stderr_is_terminal() {
  const char* term = std::getenv("TERM");
  const bool is_dumb = term != nullptr && std::string_view(term) == "dumb";
  return ::isatty(STDERR_FILENO) == 1 && !is_dumb;
}

InterruptGuard::InterruptGuard() {
  if (interrupt_pipe[0] < 0 && ::pipe2(interrupt_pipe, O_CLOEXEC | O_NONBLOCK) != 0) {
    fail(ErrorKind::system, "cannot make a pipe: {}", std::strerror(errno));
  }
  if (guards++ > 0) return;
  forget_interrupts();
  set_handler(SIGINT, on_interrupt);
}

InterruptGuard::~InterruptGuard() {
  if (--guards == 0) set_handler(SIGINT, SIG_DFL);
  forget_interrupts();
}

bool InterruptGuard::interrupted() { return interrupts != 0; }

bool InterruptGuard::wait_for_input() {
  pollfd files[] = {{STDIN_FILENO, POLLIN, 0}, {interrupt_pipe[0], POLLIN, 0}};
  while (::poll(files, 2, -1) < 0) {
    if (errno != EINTR) fail(ErrorKind::system, "cannot wait for input: {}", std::strerror(errno));
  }
  return files[1].revents == 0;
}

}  // namespace tandem
