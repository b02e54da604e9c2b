#include "compress/row_stream.h"

#include <algorithm>
#include <atomic>
#include <span>
#include <vector>

#include "base/error.h"
#include "compress/rtn.h"

namespace tandem {
namespace {

constexpr int64_t kPieceElements = 1 << 21;
constexpr int64_t kRowsPerTask = 8;

}  // namespace

void RowStream::write(std::string_view tensor, int64_t N, int64_t K, size_t row_bytes,
                      std::string_view type, const MakeRow& make_row, const ByteSink& sink) {
  const int64_t piece_rows = std::clamp<int64_t>(kPieceElements / std::max<int64_t>(K, 1), 1, N);
  std::vector<std::byte> piece(static_cast<size_t>(piece_rows) * row_bytes);
  std::vector<std::vector<float>> scratch(static_cast<size_t>(pool_.size()));
  for (auto& row : scratch) row.resize(static_cast<size_t>(K));
  std::atomic<int64_t> bad_row{-1};

  for (int64_t first = 0; first < N; first += piece_rows) {
    const int64_t count = std::min(piece_rows, N - first);
    pool_.parallel_for(count, kRowsPerTask, [&](int64_t begin, int64_t end, int thread) {
      float* row = scratch[static_cast<size_t>(thread)].data();
      for (int64_t i = begin; i < end; ++i) {
        if (!make_row(first + i, row, piece.data() + static_cast<size_t>(i) * row_bytes)) {
          bad_row.store(first + i, std::memory_order_relaxed);
          return;
        }
      }
    });
    if (bad_row.load() >= 0) {
      fail(ErrorKind::bad_file, "{}: {}: row {} has a weight that is NaN or infinite in {}",
           source_.path.string(), quote(tensor), bad_row.load(), type);
    }
    const size_t bytes = static_cast<size_t>(count) * row_bytes;
    sink(std::span<const std::byte>(piece.data(), bytes));
    advance(tensor, bytes);
  }
}

void RowStream::visit(const NamedTensor& tensor, int64_t rows,
                      const std::function<void(int64_t, const float*)>& add) {
  const Weight& w = tensor.weight;
  std::atomic<int64_t> bad_row{-1};
  pool_.parallel_for((w.N + rows - 1) / rows, 1, [&](int64_t begin, int64_t end, int) {
    std::vector<float> row(static_cast<size_t>(w.K));
    for (int64_t n = begin * rows; n < std::min(end * rows, w.N); ++n) {
      decode_row(w, n, row.data());
      if (!round_row_to_bf16(row.data(), w.K)) {
        bad_row.store(n, std::memory_order_relaxed);
        return;
      }
      add(n, row.data());
    }
  });
  if (bad_row.load() < 0) return;
  fail(ErrorKind::bad_file, "{}: {}: row {} has a weight that is NaN or infinite in bf16",
       source_.path.string(), quote(tensor.name), bad_row.load());
}

void RowStream::advance(std::string_view tensor, size_t bytes) {
  done_bytes_ += bytes;
  if (progress_) progress_({done_bytes_, total_bytes_, tensor});
}

TensorSource row_source(RowStream& stream, const NamedTensor& tensor, std::string name,
                        const char* dtype, std::vector<int64_t> shape, size_t row_bytes,
                        RowEncoder encode) {
  return {std::move(name), dtype, std::move(shape),
          static_cast<uint64_t>(tensor.weight.N) * row_bytes,
          [&stream, &tensor, row_bytes, encode = std::move(encode)](const ByteSink& sink) {
            const Weight& w = tensor.weight;
            const auto make_row = [&](int64_t n, float* row, std::byte* out) {
              decode_row(w, n, row);
              if (!round_row_to_bf16(row, w.K)) return false;
              encode(n, row, out);
              return true;
            };
            stream.write(tensor.name, w.N, w.K, row_bytes, "bf16", make_row, sink);
          }};
}

TensorSource whole_source(RowStream& stream, const NamedTensor& tensor, std::string name,
                          const char* dtype, std::vector<int64_t> shape, uint64_t size_bytes,
                          std::function<std::vector<std::byte>()> make) {
  return {std::move(name), dtype, std::move(shape), size_bytes,
          [&stream, &tensor, make = std::move(make)](const ByteSink& sink) {
            const std::vector<std::byte> bytes = make();
            sink(bytes);
            stream.advance(tensor.name, bytes.size());
          }};
}

}  // namespace tandem
