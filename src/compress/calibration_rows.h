// A text -> rows of token ids of one length, over which a compression is calibrated.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace tandem {

struct CalibrationRows {
  int64_t length = 0;        // tokens a row
  std::vector<int32_t> ids;  // [num(), length]
  uint64_t seed = 0;
  std::string source;        // the file
  std::string source_hash;   // of its bytes
  std::string hash;          // of the ids
  std::string note;          // what is otherwise than asked for; may be empty

  int64_t num() const { return static_cast<int64_t>(ids.size()) / length; }
  const int32_t* row(int64_t n) const { return ids.data() + n * length; }
};

struct CalibrationOptions {
  std::filesystem::path file;
  int64_t samples = 128;  // rows at most
  int64_t length = 512;
  uint64_t seed = 0;
};

// A file named *.jsonl holds one document a line: an object with a "text" or with "input_ids", or an
// array of ids. Of each document with at least `length` tokens one window is taken, at a place that
// the seed draws; documents in an order that it draws. Rows of ids of exactly that length come as
// they are, in their order, the first `samples` of them.
// Any other file is one text: it is cut in windows and the seed draws among them.
// Throws bad_file for a file that cannot be read or holds an id the vocabulary has not, and where
// not one window of `length` tokens is to be had.
CalibrationRows read_calibration(const CalibrationOptions& options, const Tokenizer& tokenizer);

// Rows of ids below vocab_size that the seed draws, each equally likely: for random weights.
CalibrationRows random_rows_of_ids(const CalibrationOptions& options, int64_t vocab_size);

}  // namespace tandem
