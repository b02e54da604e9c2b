// What compression does in float on a GPU against plain arithmetic in double.
#include "kernels/float_work.h"

#include <cmath>

#include "kernels/cuda_memory.h"
#include "kernels/table.h"

namespace tandem {
namespace {

class CudaFloatWork : public testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    device_ = cuda_or_null(&reason);
    if (device_ == nullptr) GTEST_SKIP() << reason;
    if (device_->gemm_library().empty()) GTEST_SKIP() << "no cuBLASLt";
    work_ = make_float_work(*device_);
  }
  std::shared_ptr<Device> device_;
  std::unique_ptr<FloatWork> work_;
};

double relative(const std::vector<float>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / size);
}

struct Shape {
  int64_t M, N, K;
};

TEST_F(CudaFloatWork, MultipliesEveryLayoutInFp32) {
  for (const auto [M, N, K] : {Shape{7, 5, 3}, {128, 4096, 128}, {130, 257, 511}, {64, 1, 300}}) {
    const std::vector<float> a = random_floats(M * K, 1), b = random_floats(K * N, 2);
    const std::vector<float> c = random_floats(M * N, 3);
    OnDevice<float> da(*device_, a), db(*device_, b);
    for (const bool a_columns : {false, true}) {
      for (const bool b_columns : {false, true}) {
        for (const bool accumulates : {false, true}) {
          ProductBatch product;
          product.M = M;
          product.N = N;
          product.K = K;
          product.a = a_columns ? MatrixView{da.data(), 1, M} : MatrixView{da.data(), K, 1};
          product.b = b_columns ? MatrixView{db.data(), 1, K} : MatrixView{db.data(), N, 1};
          product.alpha = -0.5f;
          product.accumulates = accumulates;
          OnDevice<float> dc(*device_, c);
          product.c = dc.data();
          product.ldc = N;
          work_->multiply(product);
          std::vector<double> expected(c.size());
          for (int64_t i = 0; i < M; ++i) {
            for (int64_t j = 0; j < N; ++j) {
              double sum = 0;
              for (int64_t k = 0; k < K; ++k) {
                sum += static_cast<double>(a[static_cast<size_t>(a_columns ? k * M + i : i * K + k)]) *
                       static_cast<double>(b[static_cast<size_t>(b_columns ? j * K + k : k * N + j)]);
              }
              const auto at = static_cast<size_t>(i * N + j);
              expected[at] = -0.5 * sum + (accumulates ? static_cast<double>(c[at]) : 0.0);
            }
          }
          EXPECT_LT(relative(dc.values(), expected), 1e-6)
              << M << " x " << N << " x " << K << ' ' << a_columns << b_columns << accumulates;
        }
      }
    }
  }
}

TEST_F(CudaFloatWork, SymmetricProductIsWholeOnceMirrored) {
  const int64_t K = 2500, T = 70;
  const std::vector<float> x = random_floats(T * K, 4);
  OnDevice<float> dx(*device_, x);
  OnDevice<float> gram(*device_, std::vector<float>(static_cast<size_t>(K * K)));
  OnDevice<float> diagonal(*device_, std::vector<float>(static_cast<size_t>(K)));
  ProductBatch product;
  product.M = product.N = K;
  product.K = T;
  product.a = {dx.data(), 1, K};
  product.b = {dx.data(), K};
  product.c = gram.data();
  product.ldc = K;
  product.upper_only = true;
  work_->multiply(product);
  work_->mirror(gram.data(), K, diagonal.data());
  const std::vector<float> found = gram.values(), on_diagonal = diagonal.values();
  for (int64_t i = 0; i < K; i += 13) {
    for (int64_t j = 0; j < K; j += 7) {
      double sum = 0;
      for (int64_t t = 0; t < T; ++t) {
        sum += static_cast<double>(x[static_cast<size_t>(t * K + i)]) *
               static_cast<double>(x[static_cast<size_t>(t * K + j)]);
      }
      ASSERT_NEAR(found[static_cast<size_t>(i * K + j)], sum, 1e-4) << i << ' ' << j;
    }
    EXPECT_EQ(on_diagonal[static_cast<size_t>(i)], found[static_cast<size_t>(i * K + i)]);
  }
}

TEST_F(CudaFloatWork, MagnitudesAddUp) {
  const int64_t T = 777, K = 300;
  std::vector<float> x = random_floats(T * K, 5);
  x[static_cast<size_t>(5 * K + 17)] = NAN;
  OnDevice<float> dx(*device_, x);
  OnDevice<double> sums(*device_, std::vector<double>(static_cast<size_t>(K)));
  OnDevice<float> largest(*device_, std::vector<float>(static_cast<size_t>(K)));
  work_->add_magnitudes(dx.data(), 500, K, sums.data(), largest.data());
  work_->add_magnitudes(dx.data() + 500 * K, T - 500, K, sums.data(), largest.data());
  const std::vector<double> found = sums.values();
  const std::vector<float> most = largest.values();
  for (int64_t k = 0; k < K; ++k) {
    double sum = 0;
    float max = 0;
    for (int64_t t = 0; t < T; ++t) {
      const float magnitude = std::fabs(x[static_cast<size_t>(t * K + k)]);
      sum += magnitude;
      max = std::max(max, magnitude);
    }
    if (k == 17) {
      EXPECT_TRUE(std::isnan(found[17]) && std::isnan(most[17]));
      continue;
    }
    EXPECT_NEAR(found[static_cast<size_t>(k)], sum, 1e-9 * sum);
    EXPECT_EQ(most[static_cast<size_t>(k)], max);
  }
}

// U^T U H = I, for an H whose rows are taken in another order, with dead channels and damping.
TEST_F(CudaFloatWork, FactorGivesTheInverse) {
  for (const int64_t n : {1, 5, 128, 129, 300}) {
    const int64_t T = 4 * n;
    const std::vector<float> x = random_floats(T * n, 6);
    std::vector<float> gram(static_cast<size_t>(n * n));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = i; j < n; ++j) {  // the lower triangle is not read
        double sum = 0;
        for (int64_t t = 0; t < T; ++t) {
          sum += static_cast<double>(x[static_cast<size_t>(t * n + i)]) *
                 static_cast<double>(x[static_cast<size_t>(t * n + j)]);
        }
        gram[static_cast<size_t>(i * n + j)] = static_cast<float>(sum);
      }
    }
    std::vector<uint8_t> dead(static_cast<size_t>(n));
    const int64_t gone = n / 2;
    if (n > 1) {
      dead[static_cast<size_t>(gone)] = 1;
      for (int64_t i = 0; i < n; ++i) {
        gram[static_cast<size_t>(std::min(i, gone) * n + std::max(i, gone))] = 0;
      }
    }
    std::vector<int32_t> channels(static_cast<size_t>(n));
    for (int64_t k = 0; k < n; ++k) channels[static_cast<size_t>(k)] = static_cast<int32_t>((k + 3) % n);
    const float added = 2.0f;
    OnDevice<float> dgram(*device_, gram), upper(*device_, gram), spare(*device_, gram);
    OnDevice<uint8_t> ddead(*device_, dead);
    OnDevice<int32_t> dchannels(*device_, channels);
    ASSERT_TRUE(work_->inverse_factor(dgram.data(), n, dchannels.data(), ddead.data(), added,
                                      upper.data(), spare.data()));
    const std::vector<float> u = upper.values();
    const auto h = [&](int64_t i, int64_t j) {
      const int64_t a = channels[static_cast<size_t>(i)], b = channels[static_cast<size_t>(j)];
      double value = gram[static_cast<size_t>(std::min(a, b) * n + std::max(a, b))];
      if (a == b) value = (dead[static_cast<size_t>(a)] != 0 ? 1.0 : value) + added;
      return value;
    };
    // U H U^T = I follows from U^T U = H^-1.
    std::vector<double> uh(static_cast<size_t>(n * n));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t k = i; k < n; ++k) {
        for (int64_t j = 0; j < n; ++j) {
          uh[static_cast<size_t>(i * n + j)] += u[static_cast<size_t>(i * n + k)] * h(k, j);
        }
      }
      for (int64_t k = 0; k < i; ++k) EXPECT_EQ(u[static_cast<size_t>(i * n + k)], 0.0f);
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t k = j; k < n; ++k) {
          sum += uh[static_cast<size_t>(i * n + k)] * u[static_cast<size_t>(j * n + k)];
        }
        ASSERT_NEAR(sum, i == j ? 1.0 : 0.0, 2e-4) << n << ": " << i << ' ' << j;
      }
    }
  }
}

TEST_F(CudaFloatWork, FactorRefusesWhatIsNotPositive) {
  const int64_t n = 200;
  std::vector<float> gram(static_cast<size_t>(n * n));
  for (int64_t k = 0; k < n; ++k) gram[static_cast<size_t>(k * n + k)] = k == 150 ? -1.0f : 1.0f;
  OnDevice<float> dgram(*device_, gram), upper(*device_, gram), spare(*device_, gram);
  OnDevice<uint8_t> dead(*device_, std::vector<uint8_t>(static_cast<size_t>(n)));
  EXPECT_FALSE(work_->inverse_factor(dgram.data(), n, nullptr, dead.data(), 0.5f, upper.data(),
                                     spare.data()));
  EXPECT_TRUE(work_->inverse_factor(dgram.data(), n, nullptr, dead.data(), 1.5f, upper.data(),
                                    spare.data()));
}

// Rotation and attention as they are written down, with grouped heads, a bias, head norms, a window.
TEST_F(CudaFloatWork, HeadsRotateAndAttend) {
  const HeadShape shape{.T = 3 * 21, .length = 21, .H = 6, .G = 2, .D = 32};
  const int64_t heads = shape.H + 2 * shape.G, D = shape.D, half = D / 2;
  const std::vector<float> qkv = random_floats(shape.T * heads * D, 7);
  const std::vector<float> bias = random_floats(heads * D, 8), q_norm = random_floats(D, 9);
  const std::vector<float> k_norm = random_floats(D, 10), angles = random_floats(shape.length * D, 11);
  for (const int64_t window : {0, 5}) {
    OnDevice<float> dqkv(*device_, qkv), dbias(*device_, bias), dq(*device_, q_norm),
        dk(*device_, k_norm), dangles(*device_, angles);
    OnDevice<float> scores(*device_, std::vector<float>(static_cast<size_t>(2 * 21 * 21)));
    OnDevice<float> out(*device_, std::vector<float>(static_cast<size_t>(shape.T * shape.H * D)));
    const HeadTransform transform{dbias.data(), dq.data(), dk.data(), 1e-5f};
    work_->rotate_heads(dqkv.data(), transform, dangles.data(), shape);
    work_->attention(dqkv.data(), shape, window, scores.data(), out.data());

    std::vector<double> x(qkv.size());
    for (int64_t i = 0; i < shape.T * heads; ++i) {
      const int64_t t = i / heads, head = i % heads;
      double* v = x.data() + i * D;
      double squares = 0;
      for (int64_t d = 0; d < D; ++d) {
        v[d] = static_cast<double>(qkv[static_cast<size_t>(i * D + d)]) +
               static_cast<double>(bias[static_cast<size_t>(head * D + d)]);
        squares += v[d] * v[d];
      }
      if (head >= shape.H + shape.G) continue;
      const std::vector<float>& norm = head < shape.H ? q_norm : k_norm;
      const float* angle = angles.data() + t % shape.length * D;
      for (int64_t d = 0; d < D; ++d) {
        v[d] *= static_cast<double>(norm[static_cast<size_t>(d)]) / std::sqrt(squares / D + 1e-5);
      }
      for (int64_t d = 0; d < half; ++d) {
        const double low = v[d], high = v[d + half], c = angle[d], s = angle[half + d];
        v[d] = low * c - high * s;
        v[d + half] = high * c + low * s;
      }
    }
    std::vector<double> expected(static_cast<size_t>(shape.T * shape.H * D));
    for (int64_t t = 0; t < shape.T; ++t) {
      const int64_t start = t / shape.length * shape.length;
      const int64_t first = window == 0 ? start : std::max(start, t + 1 - window);
      for (int64_t head = 0; head < shape.H; ++head) {
        const double* q = x.data() + (t * heads + head) * D;
        const int64_t group = head / (shape.H / shape.G);
        double total = 0;
        double* o = expected.data() + (t * shape.H + head) * D;
        for (int64_t k = first; k <= t; ++k) {
          const double* key = x.data() + (k * heads + shape.H + group) * D;
          double dot = 0;
          for (int64_t d = 0; d < D; ++d) dot += q[d] * key[d];
          const double p = std::exp(dot / std::sqrt(static_cast<double>(D)));
          total += p;
          for (int64_t d = 0; d < D; ++d) o[d] += p * key[shape.G * D + d];
        }
        for (int64_t d = 0; d < D; ++d) o[d] /= total;
      }
    }
    EXPECT_LT(relative(out.values(), expected), 2e-6) << "window " << window;
  }
}

}  // namespace
}  // namespace tandem
