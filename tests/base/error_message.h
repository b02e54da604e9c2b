#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace tandem {

// What the Error says that f throws; a failure when it throws none, or one of another kind.
template <typename F>
std::string message_of(ErrorKind kind, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

}  // namespace tandem
