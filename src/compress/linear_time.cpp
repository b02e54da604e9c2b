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

}  // namespace

double linear_nanoseconds(const Encoding& encoding, int64_t N, int64_t K, std::string_view isa,
                          ThreadPool& pool) {
  CHECK(K % encoding.block() == 0, "K {} block {}", K, encoding.block());
  const LinearKernel& kernel = find_linear(isa, encoding.packing);
  const Context context{&pool};
  const UniformWeight owned(encoding, N, K);
  const size_t copies =
      std::min(kMaxCopies, 2 * last_level_cache_bytes() / owned.weight.total_bytes() + 1);
  Arena arena;
  std::vector<PackedWeight> packed;
  for (size_t i = 0; i < copies; ++i) {
    packed.push_back(kernel.prepack(context, {owned.weight}, arena));
    packed.back().kernel = &kernel;
  }
  OneToken token(kernel.act_type, K);
  std::vector<float> x(static_cast<size_t>(K)), y(static_cast<size_t>(N));
  for (int64_t k = 0; k < K; ++k) x[static_cast<size_t>(k)] = static_cast<float>(k % 7) - 3.0f;
  find_ops(isa).quantize(context, x.data(), K, token.view);
  std::vector<double> nanoseconds;
  while (nanoseconds.size() < kRounds) {
    const int64_t begin = now_ns();
    for (const PackedWeight& w : packed) kernel.run(context, w, token.view, y.data(), N, false);
    nanoseconds.push_back(static_cast<double>(now_ns() - begin) / static_cast<double>(copies));
  }
  std::ranges::sort(nanoseconds);
  return nanoseconds[kRounds / 2];
}

}  // namespace tandem
