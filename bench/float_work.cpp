// bench_float_work: the float work of compress --device cuda at the shapes of an 8B layer over 16,384
// tokens, rows of 512: seconds of each operation, its share of arithmetic where that is the limit.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

#include "base/clock.h"
#include "kernels/float_work.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr int64_t kTokens = 16384, kLength = 512, kC = 4096, kF = 14336, kH = 32, kG = 8, kD = 128;

struct Bench {
  std::shared_ptr<Device> device = open_device("cuda");
  std::unique_ptr<FloatWork> work = make_float_work(*device);

  // Numbers of deviation about 1 / sqrt(4096).
  Buffer numbers(int64_t count) {
    Buffer buffer(static_cast<size_t>(count) * sizeof(float), device.get());
    std::vector<float> some(1 << 20);
    uint32_t state = 1;
    for (float& value : some) {
      state = state * 1664525u + 1013904223u;
      value = (static_cast<float>(state >> 8) / (1 << 24) - 0.5f) / 18.5f;
    }
    const auto piece = static_cast<int64_t>(some.size());
    for (int64_t at = 0; at < count; at += piece) {
      device->upload(buffer.as<float>() + at, some.data(),
                     static_cast<size_t>(std::min(piece, count - at)) * sizeof(float));
    }
    return buffer;
  }

  // The median of three runs after one.
  void time(const char* name, double operations, const std::function<void()>& run) {
    std::vector<double> seconds;
    for (int i = 0; i < 4; ++i) {
      device->synchronize();
      const int64_t start = now_ns();
      run();
      device->synchronize();
      if (i > 0) seconds.push_back(seconds_since(start));
    }
    std::ranges::sort(seconds);
    std::printf("%-44s %9.3f ms", name, seconds[1] * 1e3);
    if (operations > 0) std::printf(" %7.1f TFLOP/s", operations / seconds[1] * 1e-12);
    std::printf("\n");
    std::fflush(stdout);
  }

  void linear(const char* name, int64_t N, int64_t K, Buffer& x, Buffer& w, Buffer& y) {
    ProductBatch product;
    product.M = kTokens;
    product.N = N;
    product.K = K;
    product.a = {x.as<float>(), K};
    product.b = {w.as<float>(), 1, K};
    product.c = y.as<float>();
    product.ldc = N;
    product.accumulates = false;
    time(name, 2e0 * kTokens * static_cast<double>(N) * static_cast<double>(K),
         [&] { work->multiply(product); });
  }

  void sums(const char* name, int64_t K, Buffer& x, Buffer& gram) {
    ProductBatch product;
    product.M = product.N = K;
    product.K = kTokens;
    product.a = {x.as<float>(), 1, K};
    product.b = {x.as<float>(), K};
    product.c = gram.as<float>();
    product.ldc = K;
    product.upper_only = true;
    time(name, 1e0 * kTokens * static_cast<double>(K) * static_cast<double>(K),
         [&] { work->multiply(product); });
  }

  void gptq(const char* name, int64_t N, int64_t K, Buffer& w, Buffer& upper) {
    const auto bytes = static_cast<size_t>(N * K);
    Buffer dead(static_cast<size_t>(K), device.get()), codes(bytes, device.get());
    Buffer errors(static_cast<size_t>(N) * 512, device.get());
    Buffer scales(bytes / 32, device.get()), zeros(bytes / 128, device.get());
    ColumnRounding rounding;
    rounding.grid.group = 128;
    rounding.N = N;
    rounding.K = K;
    rounding.w = w.as<float>();
    rounding.dead = dead.as<uint8_t>();
    rounding.factor = upper.as<float>();
    rounding.errors = errors.as<float>();
    rounding.codes = codes.as<uint8_t>();
    rounding.scales = scales.as<float>();
    rounding.zeros = zeros.as<uint8_t>();
    time(name, 1e0 * static_cast<double>(N) * static_cast<double>(K) * static_cast<double>(K),
         [&] { work->round_columns(rounding); });
  }

  void run() {
    Buffer x = numbers(kTokens * kF), w = numbers(kF * kC), y = numbers(kTokens * 2 * kF);
    linear("qkv [6144, 4096]", 6144, kC, x, w, y);
    linear("o [4096, 4096]", kC, kC, x, w, y);
    linear("gate or up [14336, 4096]", kF, kC, x, w, y);
    linear("down [4096, 14336]", kC, kF, x, w, y);
    Buffer scores = numbers(kG * kLength * kLength), out = numbers(kTokens * kC);
    const HeadShape shape{kTokens, kLength, kH, kG, kD};
    time("attention", 0, [&] {
      work->attention(y.as<float>(), shape, 0, scores.as<float>(), out.as<float>());
    });
    Buffer sums_of(static_cast<size_t>(kF) * sizeof(double), device.get());
    Buffer largest(static_cast<size_t>(kF) * sizeof(float), device.get());
    time("magnitudes of 14336 channels", 0, [&] {
      work->add_magnitudes(x.as<float>(), kTokens, kF, sums_of.as<double>(), largest.as<float>());
    });
    for (const int64_t K : {kC, kF}) {
      const bool is_wide = K == kF;
      Buffer gram(static_cast<size_t>(K * K) * sizeof(float), device.get());
      sums(is_wide ? "gram of 14336" : "gram of 4096", K, x, gram);
      Buffer upper(gram.size_bytes(), device.get()), spare(gram.size_bytes(), device.get());
      Buffer dead(static_cast<size_t>(K), device.get());
      time("mirror", 0, [&] { work->mirror(gram.as<float>(), K, largest.as<float>()); });
      const double cube = static_cast<double>(K) * static_cast<double>(K) * static_cast<double>(K);
      bool made = false;
      time(is_wide ? "factor of 14336" : "factor of 4096", 2.0 / 3.0 * cube, [&] {
        made = work->inverse_factor(gram.as<float>(), K, nullptr, dead.as<uint8_t>(), 1.0f,
                                    upper.as<float>(), spare.as<float>());
      });
      if (!made) std::printf("factor failed\n");
      gptq(is_wide ? "GPTQ of [4096, 14336]" : "GPTQ of [14336, 4096]", is_wide ? kC : kF, K, w,
           upper);
    }
    std::vector<float> host(static_cast<size_t>(kF * kC));
    time("copy of 14336 x 4096 floats to the device", 0,
         [&] { device->upload(w.data(), host.data(), host.size() * sizeof(float)); });
  }
};

}  // namespace
}  // namespace tandem

int main() { tandem::Bench().run(); }
