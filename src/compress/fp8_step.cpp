// FP8 as a step: round to nearest E4M3, with a scale a row, a matrix or a block.
#include <atomic>

#include "base/error.h"
#include "compress/fp8_grid.h"
#include "compress/methods.h"
#include "compress/rtn.h"

namespace tandem {
namespace {

enum class Scales : uint8_t { channel, tensor, block };

// The weights as bf16 numbers in `w`. Throws bad_file naming the module when one is not finite.
void round_rows(Matrix& w, const std::string& module, ThreadPool& pool) {
  std::atomic<int64_t> bad_row{-1};
  pool.parallel_for(w.N, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      if (!round_row_to_bf16(w.row(n), w.K)) bad_row.store(n, std::memory_order_relaxed);
    }
  });
  if (bad_row >= 0) {
    fail(ErrorKind::bad_file, "{}: row {} has a weight that became NaN or infinite in bf16", module,
         bad_row.load());
  }
}

// Of bf16 numbers.
EncodedMatrix round_to_fp8(const Matrix& w, Scales scales, ThreadPool& pool) {
  const bool is_block = scales == Scales::block;
  Fp8Grid grid(w.N, w.K,
               is_block                    ? kFp8Block
               : scales == Scales::channel ? 1
                                           : w.N,
               is_block ? kFp8Block : w.K, ScaleType::bf16);
  EncodedMatrix out{is_block ? fp8_block(ScaleType::bf16) : fp8_channel(ScaleType::bf16), w.N, w.K,
                    std::vector<std::byte>(static_cast<size_t>(w.N * w.K)),
                    std::vector<std::byte>(static_cast<size_t>(w.N) * grid.scale_row_bytes()),
                    grid.rows};
  const auto for_rows = [&](int64_t block, auto&& visit) {
    for (int64_t n = block * grid.rows; n < std::min((block + 1) * grid.rows, w.N); ++n) visit(n);
  };
  pool.parallel_for(grid.row_blocks(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      for_rows(block, [&](int64_t n) { grid.add_row(n, w.row(n)); });
      for_rows(block, [&](int64_t n) {
        grid.store_scales(block, out.scales.data() + static_cast<size_t>(n) * grid.scale_row_bytes());
        grid.store_codes(n, w.row(n), out.data.data() + n * w.K);
      });
    }
  });
  return out;
}

class Fp8Step final : public Step {
 public:
  explicit Fp8Step(PerMatrix<Scales> scales) : scales_(std::move(scales)) {}

  StepNeeds needs() const override { return {}; }
  bool gives_result(int64_t layer, Linear linear) const override {
    return scales_.at(layer, linear).has_value();
  }
  void run_set(SetWork& work) override {
    for (const Linear linear : linears_of(work.set)) {
      const std::optional<Scales>& scales = scales_.at(work.layer, linear);
      if (!scales) continue;
      LinearWork& target = work.weights[linear];
      round_rows(target.weight, module_name(work.layer, linear), work.pool);
      target.result = round_to_fp8(target.weight, *scales, work.pool);
    }
  }

 private:
  PerMatrix<Scales> scales_;
};

}  // namespace

std::unique_ptr<Step> make_fp8(const StepSpec& spec, const ModelConfig& config) {
  return std::make_unique<Fp8Step>(read_options<Scales>(spec, config, [](OptionReader& reader) {
    const std::string scales = reader.word("scales", "channel", {"channel", "tensor", "block"});
    return scales == "channel"  ? Scales::channel
           : scales == "tensor" ? Scales::tensor
                                : Scales::block;
  }));
}

}  // namespace tandem
