#include "cli/message_reader.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "cli/terminal.h"

namespace tandem {
namespace {

constexpr size_t kMaxMessageBytes = 1u << 20;
constexpr size_t kTerminalLineBytes = 4095;  // Linux drops what is typed beyond, without a word
constexpr const char* kFence = "\"\"\"";

}  // namespace

// One line without its end. An interrupt ends the read on a terminal; elsewhere it ends the
// program.
MessageReader::Event MessageReader::next_line(std::string& line) {
  size_t end;
  while ((end = buffer_.find('\n')) == std::string::npos && !at_end_) {
    if (!InterruptGuard::wait_for_input()) return Event::interrupted;
    char block[1 << 16];
    const ssize_t count = ::read(STDIN_FILENO, block, sizeof block);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      fail(ErrorKind::system, "cannot read standard input: {}", std::strerror(errno));
    }
    at_end_ = count == 0;
    buffer_.append(block, static_cast<size_t>(count));
    if (buffer_.size() > kMaxMessageBytes && buffer_.find('\n') == std::string::npos) {
      buffer_.resize(kMaxMessageBytes + 1);  // enough to know that it is too long
    }
  }
  if (end == std::string::npos && buffer_.empty()) return Event::end;
  line = buffer_.substr(0, end);
  buffer_.erase(0, end == std::string::npos ? end : end + 1);
  if (line.ends_with('\r')) line.pop_back();
  return Event::message;
}

MessageReader::Event MessageReader::next(std::string& message) {
  message.clear();
  bool fenced = false, goes_on = false, too_long = false;
  do {
    if (prompts_) write_stderr(fenced || goes_on ? ". " : "> ");
    std::string line;
    const Event event = next_line(line);
    if (event == Event::end && (fenced || goes_on)) break;
    if (event != Event::message) return event;
    const bool is_fence = line == kFence;
    if (is_fence && !fenced && !goes_on) {
      fenced = true;
      continue;
    }
    if (is_fence && fenced) break;
    if (prompts_ && line.size() >= kTerminalLineBytes) {
      message = fmt::format(
          "the terminal cuts a line at {} bytes: the message is not sent; write it in shorter "
          "lines "
          "between two lines of {}, or pipe it in",
          kTerminalLineBytes, kFence);
      return Event::too_long;
    }
    goes_on = !fenced && line.ends_with('\\');
    if (goes_on) line.pop_back();
    too_long |= message.size() + line.size() > kMaxMessageBytes;
    if (!too_long) message += line + (fenced || goes_on ? "\n" : "");
  } while (fenced || goes_on);
  if (fenced && message.ends_with('\n')) message.pop_back();
  if (!too_long) return !fenced && message.starts_with('/') ? Event::command : Event::message;
  message = fmt::format("a message of more than {} bytes is not sent", kMaxMessageBytes);
  return Event::too_long;
}

}  // namespace tandem
