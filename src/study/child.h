// Runs a program in a child process and collects what it prints.
#pragma once

#include <string>
#include <vector>

namespace tandem {

struct ChildResult {
  int status = 0;  // as waitpid gives it
  bool timed_out = false;
  std::string output;    // stdout, at most 64 MB
  std::string messages;  // the last 4096 bytes of stderr

  bool ok() const;
  bool exited_with(int code) const;
  // "exited with status 3", "was killed by signal 9 (Killed)", "took longer than 2 s".
  std::string outcome() const;
};

// The child reads nothing from stdin, leads its own process group and dies with this process.
// timeout_seconds <= 0 waits for ever. argv[0] is a path. Throws system when there is no process to
// be had; a program that cannot be executed exits with status 127.
ChildResult run_child(const std::vector<std::string>& argv, double timeout_seconds = 0);

}  // namespace tandem
