// Standard input -> the messages of a conversation.
#pragma once

#include <string>

namespace tandem {

// A message is a line, and a command one that begins with "/"; lines that end with a backslash go
// on in the next; lines between two lines of
// """ are one message, whatever it begins with. The terminal stays as it is (line editing is its
// own), so nothing has to be restored, however the program ends.
class MessageReader {
 public:
  // prompts: write "> " to standard error before each line.
  explicit MessageReader(bool prompts) : prompts_(prompts) {}

  enum class Event { message, command, too_long, interrupted, end };
  // `message` is the message or the command; for too_long what to tell the user.
  Event next(std::string& message);

 private:
  Event next_line(std::string& line);

  bool prompts_;
  std::string buffer_;  // read and not yet given
  bool at_end_ = false;
};

}  // namespace tandem
