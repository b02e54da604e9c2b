// What calibration measures of the inputs x[T, K] of a set of linears that share them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "compress/matrix.h"
#include "kernels/float_work.h"

namespace tandem {

struct InputStatistics {
  int64_t K = 0;
  int64_t num_tokens = 0;
  int64_t num_sequences = 0;
  // [K, K], the sum over tokens of x x^T, both triangles; empty where no step asked for it. GPTQ's
  // H is 2 / num_sequences times it; no method depends on the factor.
  std::vector<float> gram;
  // The same in a device's memory, and its diagonal [K], where the steps at hand read it there.
  std::shared_ptr<Buffer> device_gram;
  std::vector<float> diagonal;
  std::vector<float> mean_magnitude;  // [K], mean of |x|
  std::vector<float> max_magnitude;   // [K]
  Matrix sample;                      // [S, K], tokens at even distances, in order

  float* gram_row(int64_t k) { return gram.data() + k * K; }
  const float* gram_row(int64_t k) const { return gram.data() + k * K; }
  // Sum over tokens of x[k]^2, wherever the gram is.
  float power(int64_t k) const {
    return diagonal.empty() ? gram_row(k)[k] : diagonal[static_cast<size_t>(k)];
  }
};

// Where the gram is wanted.
enum class GramPlace : uint8_t { none, host, device };

// Gathers them over the inputs, a piece at a time.
class StatisticsBuilder {
 public:
  static constexpr int64_t kSampleTokens = 512;

  // Of num_tokens tokens in all, num_sequences sequences of equal length. With `work`, which must
  // outlive the result, inputs lie in its device's memory.
  StatisticsBuilder(int64_t K, int64_t num_tokens, int64_t num_sequences, bool with_gram,
                    ThreadPool& pool);
  StatisticsBuilder(int64_t K, int64_t num_tokens, int64_t num_sequences, GramPlace gram,
                    FloatWork& work, ThreadPool& pool);

  // x [T, K], the next T tokens.
  void add(const float* x, int64_t T);
  // When all tokens have been added. Throws bad_file when an input was NaN or infinite.
  InputStatistics finish();

 private:
  StatisticsBuilder(int64_t K, int64_t num_tokens, int64_t num_sequences, ThreadPool& pool);
  void add_magnitudes(const float* x, int64_t T);
  void add_on_device(const float* x, int64_t T);
  void fetch();

  ThreadPool& pool_;
  FloatWork* work_ = nullptr;  // null: the host
  GramPlace gram_place_ = GramPlace::none;
  Buffer device_sums_, device_largest_;  // [K] doubles and floats
  InputStatistics statistics_;
  std::vector<double> magnitude_sums_;  // [K]
  int64_t seen_ = 0;                    // tokens
};

// What the statistics become when channel k of the inputs is multiplied by factors[k]: a step that
// folds factors into the norm or linear before the set calls this, so that later steps see the
// inputs that the set will have.
void scale_inputs(InputStatistics* statistics, const std::vector<float>& factors);

}  // namespace tandem
