#include "study/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "base/error.h"

namespace tandem {
namespace {

constexpr size_t kMaxOutputBytes = size_t{64} << 20;
constexpr size_t kMaxMessageBytes = 4096;

struct Pipe {
  int read_end = -1;
  int write_end = -1;

  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) fail(ErrorKind::system, "pipe: {}", std::strerror(errno));
    read_end = ends[0];
    write_end = ends[1];
  }
  ~Pipe() {
    close_end(read_end);
    close_end(write_end);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  static void close_end(int& end) {
    if (end >= 0) close(end);
    end = -1;
  }
};

// Between fork and exec: only calls that are safe while other threads of the parent hold locks.
[[noreturn]] void become(char* const* argv, int output, int messages, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before it could be watched
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(messages, STDERR_FILENO);
  execv(argv[0], argv);
  _exit(127);
}

// Appends what is there; closes the pipe at its end.
void drain(int& end, std::string& out) {
  char bytes[65536];
  const ssize_t count = read(end, bytes, sizeof bytes);
  if (count > 0) {
    out.append(bytes, static_cast<size_t>(count));
  } else if (count == 0 || (errno != EINTR && errno != EAGAIN)) {
    Pipe::close_end(end);
  }
}

// Reads until both pipes are closed or the time is over. False when it is over.
bool collect(Pipe& output, Pipe& messages, double timeout_seconds, ChildResult& result) {
  const int64_t start = now_ns();
  while (output.read_end >= 0 || messages.read_end >= 0) {
    int wait_ms = -1;
    if (timeout_seconds > 0) {
      const double left = timeout_seconds - seconds_since(start);
      if (left <= 0) return false;
      wait_ms = static_cast<int>(left * 1000) + 1;
    }
    pollfd ends[2] = {{output.read_end, POLLIN, 0}, {messages.read_end, POLLIN, 0}};
    if (poll(ends, 2, wait_ms) < 0 && errno != EINTR) return false;
    if (ends[0].revents != 0) drain(output.read_end, result.output);
    if (ends[1].revents != 0) drain(messages.read_end, result.messages);
    if (result.output.size() > kMaxOutputBytes) return false;
    if (result.messages.size() > kMaxMessageBytes) {
      result.messages.erase(0, result.messages.size() - kMaxMessageBytes);
    }
  }
  return true;
}

}  // namespace

bool ChildResult::ok() const { return exited_with(0); }

bool ChildResult::exited_with(int code) const {
  return !timed_out && WIFEXITED(status) && WEXITSTATUS(status) == code;
}

std::string ChildResult::outcome() const {
  if (timed_out) return "was stopped: it took too long or printed too much";
  if (WIFEXITED(status)) return fmt::format("exited with status {}", WEXITSTATUS(status));
  const int signal_number = WTERMSIG(status);
  return fmt::format("was killed by signal {} ({})", signal_number, strsignal(signal_number));
}

ChildResult run_child(const std::vector<std::string>& argv, double timeout_seconds) {
  CHECK(!argv.empty(), "argv is empty");
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);

  Pipe output, messages;
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) fail(ErrorKind::system, "fork: {}", std::strerror(errno));
  if (pid == 0) become(arguments.data(), output.write_end, messages.write_end, parent);
  Pipe::close_end(output.write_end);
  Pipe::close_end(messages.write_end);

  ChildResult result;
  if (!collect(output, messages, timeout_seconds, result)) {
    result.timed_out = true;
    kill(-pid, SIGKILL);
    kill(pid, SIGKILL);
  }
  while (waitpid(pid, &result.status, 0) < 0 && errno == EINTR) {
  }
  return result;
}

}  // namespace tandem
