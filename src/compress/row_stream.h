// The rows of a tensor of the output, made a few MiB at a time by all threads and handed to the
// writer in order. Internal to this room.
#pragma once

#include <functional>
#include <string_view>

#include "base/thread_pool.h"
#include "compress/compress.h"

namespace tandem {

// Makes row n of a tensor. scratch holds K floats. False when a number does not fit its new type.
using MakeRow = std::function<bool(int64_t n, float* scratch, std::byte* out)>;

// One for a whole compression: it knows how far that is.
class RowStream {
 public:
  RowStream(const Checkpoint& source, ThreadPool& pool, const Progress& progress)
      : source_(source), pool_(pool), progress_(progress) {}

  void set_total_bytes(uint64_t bytes) { total_bytes_ = bytes; }

  // N rows of row_bytes into the sink. Throws bad_file naming the tensor, the row and `type` when
  // make_row gives false.
  void write(std::string_view tensor, int64_t N, int64_t K, size_t row_bytes, std::string_view type,
             const MakeRow& make_row, const ByteSink& sink);
  // Counts bytes that something else wrote.
  void advance(std::string_view tensor, size_t bytes);

 private:
  const Checkpoint& source_;
  ThreadPool& pool_;
  const Progress& progress_;
  uint64_t total_bytes_ = 0;
  uint64_t done_bytes_ = 0;
};

}  // namespace tandem
