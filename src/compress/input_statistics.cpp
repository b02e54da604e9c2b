#include "compress/input_statistics.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/multiply.h"
#include "kernels/table.h"

namespace tandem {

StatisticsBuilder::StatisticsBuilder(int64_t K, int64_t num_tokens, int64_t num_sequences,
                                     ThreadPool& pool)
    : pool_(pool), magnitude_sums_(static_cast<size_t>(K)) {
  statistics_.K = K;
  statistics_.num_tokens = num_tokens;
  statistics_.num_sequences = num_sequences;
  statistics_.mean_magnitude.resize(static_cast<size_t>(K));
  statistics_.max_magnitude.resize(static_cast<size_t>(K));
  statistics_.sample = Matrix(std::min(num_tokens, kSampleTokens), K);
}

StatisticsBuilder::StatisticsBuilder(int64_t K, int64_t num_tokens, int64_t num_sequences,
                                     bool with_gram, ThreadPool& pool)
    : StatisticsBuilder(K, num_tokens, num_sequences, pool) {
  if (with_gram) statistics_.gram.resize(static_cast<size_t>(K * K));
}

StatisticsBuilder::StatisticsBuilder(int64_t K, int64_t num_tokens, int64_t num_sequences,
                                     GramPlace gram, FloatWork& work, ThreadPool& pool)
    : StatisticsBuilder(K, num_tokens, num_sequences, pool) {
  work_ = &work;
  gram_place_ = gram;
  const auto width = static_cast<size_t>(K);
  device_sums_ = Buffer(width * sizeof(double), &work.device());
  device_largest_ = Buffer(width * sizeof(float), &work.device());
  if (gram == GramPlace::none) return;
  statistics_.device_gram =
      std::make_shared<Buffer>(width * width * sizeof(float), &work.device());
}

void StatisticsBuilder::add(const float* x, int64_t T) {
  const int64_t K = statistics_.K, total = statistics_.num_tokens, S = statistics_.sample.N;
  CHECK(seen_ + T <= total, "{} and {} tokens of {}", seen_, T, total);
  // Sample s is token s * total / S.
  for (int64_t s = (seen_ * S + total - 1) / total; s < S && s * total / S < seen_ + T; ++s) {
    const float* token = x + (s * total / S - seen_) * K;
    float* to = statistics_.sample.row(s);
    if (work_ != nullptr) {
      work_->device().download(to, token, static_cast<size_t>(K) * sizeof(float));
    } else {
      std::copy_n(token, K, to);
    }
  }
  if (work_ != nullptr) {
    add_on_device(x, T);
  } else {
    add_magnitudes(x, T);
    if (!statistics_.gram.empty()) {
      find_multiply(best_isa())(pool_, {K, K, T, {x, 1, K}, {x, K}, statistics_.gram.data(), K,
                                        1.0f, /*upper_only=*/true});
    }
  }
  seen_ += T;
}

void StatisticsBuilder::add_magnitudes(const float* x, int64_t T) {
  const int64_t K = statistics_.K;
  pool_.parallel_for(K, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t k = begin; k < end; ++k) {
        const float magnitude = std::fabs(x[t * K + k]);
        magnitude_sums_[static_cast<size_t>(k)] += magnitude;
        float& max = statistics_.max_magnitude[static_cast<size_t>(k)];
        max = magnitude > max ? magnitude : max;
      }
    }
  });
}

void StatisticsBuilder::add_on_device(const float* x, int64_t T) {
  const int64_t K = statistics_.K;
  work_->add_magnitudes(x, T, K, device_sums_.as<double>(), device_largest_.as<float>());
  if (gram_place_ == GramPlace::none) return;
  ProductBatch product;
  product.M = product.N = K;
  product.K = T;
  product.a = {x, 1, K};
  product.b = {x, K};
  product.c = statistics_.device_gram->as<float>();
  product.ldc = K;
  product.upper_only = true;
  work_->multiply(product);
}

// What the device has found; the gram where it is wanted.
void StatisticsBuilder::fetch() {
  Device& device = work_->device();
  device.download(magnitude_sums_.data(), device_sums_.data(), device_sums_.size_bytes());
  device.download(statistics_.max_magnitude.data(), device_largest_.data(),
                  device_largest_.size_bytes());
  if (gram_place_ == GramPlace::none) return;
  Buffer diagonal(static_cast<size_t>(statistics_.K) * sizeof(float), &device);
  Buffer& gram = *statistics_.device_gram;
  work_->mirror(gram.as<float>(), statistics_.K, diagonal.as<float>());
  if (gram_place_ == GramPlace::host) {
    statistics_.gram.resize(gram.size_bytes() / sizeof(float));
    device.download(statistics_.gram.data(), gram.data(), gram.size_bytes());
    statistics_.device_gram.reset();
    return;
  }
  statistics_.diagonal.resize(static_cast<size_t>(statistics_.K));
  device.download(statistics_.diagonal.data(), diagonal.data(), diagonal.size_bytes());
}

InputStatistics StatisticsBuilder::finish() {
  const int64_t K = statistics_.K;
  CHECK(seen_ == statistics_.num_tokens, "{} tokens of {}", seen_, statistics_.num_tokens);
  if (work_ != nullptr) fetch();
  for (int64_t k = 0; k < K; ++k) {
    const double sum = magnitude_sums_[static_cast<size_t>(k)];
    if (!std::isfinite(sum)) {
      fail(ErrorKind::bad_file, "calibration: the inputs of channel {} hold NaN or infinity", k);
    }
    statistics_.mean_magnitude[static_cast<size_t>(k)] =
        static_cast<float>(sum / static_cast<double>(seen_));
  }
  if (work_ == nullptr && !statistics_.gram.empty()) {
    for (int64_t i = 1; i < K; ++i) {
      for (int64_t j = 0; j < i; ++j) statistics_.gram_row(i)[j] = statistics_.gram_row(j)[i];
    }
  }
  return std::move(statistics_);
}

void scale_inputs(InputStatistics* statistics, const std::vector<float>& factors) {
  const int64_t K = statistics->K;
  CHECK(static_cast<int64_t>(factors.size()) == K && statistics->device_gram == nullptr,
        "{} factors, K {}", factors.size(), K);
  for (int64_t k = 0; k < K; ++k) {
    const float factor = factors[static_cast<size_t>(k)];
    statistics->mean_magnitude[static_cast<size_t>(k)] *= std::fabs(factor);
    statistics->max_magnitude[static_cast<size_t>(k)] *= std::fabs(factor);
    if (statistics->gram.empty()) continue;
    for (int64_t j = 0; j < K; ++j) {
      statistics->gram_row(k)[j] *= factor * factors[static_cast<size_t>(j)];
    }
  }
  for (int64_t s = 0; s < statistics->sample.N; ++s) {
    float* x = statistics->sample.row(s);
    for (int64_t k = 0; k < K; ++k) x[k] *= factors[static_cast<size_t>(k)];
  }
}

}  // namespace tandem
