#include "compress/linear_time.h"

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "kernels/table.h"
#include "tensor/buffer.h"

namespace tandem {
namespace {

constexpr size_t kMaxCopies = 256;
constexpr size_t kRounds = 15;
constexpr int64_t kEnergyWindowNs = 1'000'000'000;

// A weight whose bytes are all alike: a kernel's time does not depend on them.
struct UniformWeight {
  std::vector<std::byte> data, scales;
  std::vector<uint8_t> zeros;
  Weight weight;

  UniformWeight(const Encoding& encoding, int64_t N, int64_t K) {
    weight = {.encoding = encoding, .N = N, .K = K};
    data.assign(weight.data_bytes(), std::byte{0x35});
    weight.data = data.data();
    if (encoding.scale_type != ScaleType::none) {
      const size_t bytes = scale_bytes(encoding.scale_type);
      scales.resize(static_cast<size_t>(N * encoding.groups_per_row(K)) * bytes);
      for (size_t i = 0; i < scales.size(); i += bytes) {
        store_scale(scales.data() + i, encoding.scale_type, 0.01f);
      }
      weight.scales = scales.data();
    }
    zeros.assign(weight.zeros_bytes(), 1);
    if (!zeros.empty()) weight.zeros = zeros.data();
  }
};

// A token's activations in the form the kernel wants.
struct OneToken {
  std::vector<float> f32, scales, sums;
  std::vector<int8_t> codes;
  Activations view;

  OneToken(ActType type, int64_t K) : f32(static_cast<size_t>(K)) {
    view = {.type = type, .T = 1, .K = K};
    codes.resize(static_cast<size_t>(view.num_codes()));
    scales.resize(static_cast<size_t>(view.num_scales()));
    sums.resize(static_cast<size_t>(view.groups()));
    view.f32 = f32.data();
    view.codes = codes.data();
    view.scales = scales.data();
    view.sums = sums.data();
  }
};

// One token's product with a matrix, over copies that the last-level cache does not hold.
class OneProduct {
 public:
  OneProduct(const Encoding& encoding, int64_t N, int64_t K, std::string_view isa, ThreadPool& pool)
      : kernel_(find_linear(isa, encoding.packing)),
        context_{&pool},
        owned_(encoding, N, K),
        token_(kernel_.act_type, K),
        y_(static_cast<size_t>(N)) {
    const size_t copies =
        std::min(kMaxCopies, 2 * last_level_cache_bytes() / owned_.weight.total_bytes() + 1);
    for (size_t i = 0; i < copies; ++i) {
      packed_.push_back(kernel_.prepack(context_, {owned_.weight}, arena_));
      packed_.back().kernel = &kernel_;
    }
    std::vector<float> x(static_cast<size_t>(K));
    for (int64_t k = 0; k < K; ++k) x[static_cast<size_t>(k)] = static_cast<float>(k % 7) - 3.0f;
    find_ops(isa).quantize(context_, x.data(), K, token_.view);
  }

  // One product with each of the copies.
  void run() {
    for (const PackedWeight& w : packed_) {
      kernel_.run(context_, w, token_.view, y_.data(), owned_.weight.N, false);
    }
  }
  double num_copies() const { return static_cast<double>(packed_.size()); }

 private:
  const LinearKernel& kernel_;
  const Context context_;
  const UniformWeight owned_;
  OneToken token_;
  std::vector<float> y_;
  Arena arena_;
  std::vector<PackedWeight> packed_;
};

}  // namespace

double linear_nanoseconds(const Encoding& encoding, int64_t N, int64_t K, std::string_view isa,
                          ThreadPool& pool) {
  CHECK(K % encoding.block() == 0, "K {} block {}", K, encoding.block());
  OneProduct product(encoding, N, K, isa, pool);
  std::vector<double> nanoseconds;
  while (nanoseconds.size() < kRounds) {
    const int64_t begin = now_ns();
    product.run();
    nanoseconds.push_back(static_cast<double>(now_ns() - begin) / product.num_copies());
  }
  std::ranges::sort(nanoseconds);
  return nanoseconds[kRounds / 2];
}

double linear_microjoules(const Encoding& encoding, int64_t N, int64_t K, std::string_view isa,
                          ThreadPool& pool, const JoulesOf& joules_of) {
  CHECK(K % encoding.block() == 0, "K {} block {}", K, encoding.block());
  OneProduct product(encoding, N, K, isa, pool);
  product.run();
  double products = 0;
  const double joules = joules_of([&] {
    const int64_t begin = now_ns();
    while (now_ns() - begin < kEnergyWindowNs) {
      product.run();
      products += product.num_copies();
    }
  });
  return joules * 1e6 / products;
}

}  // namespace tandem
