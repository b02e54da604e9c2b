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
  // Calls add(n, row) for the rows of the matrix, rounded to bf16; those of a run of `rows` come in
  // order and from one thread. Throws as write() does.
  void visit(const NamedTensor& tensor, int64_t rows,
             const std::function<void(int64_t n, const float* row)>& add);
  // Counts bytes that something else wrote.
  void advance(std::string_view tensor, size_t bytes);

 private:
  const Checkpoint& source_;
  ThreadPool& pool_;
  const Progress& progress_;
  uint64_t total_bytes_ = 0;
  uint64_t done_bytes_ = 0;
};

// What row n of bf16 numbers becomes: its bytes in one tensor of the output.
using RowEncoder = std::function<void(int64_t n, const float* row, std::byte* out)>;

// A tensor of the output made from `tensor` row by row.
TensorSource row_source(RowStream& stream, const NamedTensor& tensor, std::string name,
                        const char* dtype, std::vector<int64_t> shape, size_t row_bytes,
                        RowEncoder encode);

// One whose bytes are made at once, when it is written.
TensorSource whole_source(RowStream& stream, const NamedTensor& tensor, std::string name,
                          const char* dtype, std::vector<int64_t> shape, uint64_t size_bytes,
                          std::function<std::vector<std::byte>()> make);

}  // namespace tandem
