// bench_kernels [--isa NAME] [--threads N] [--filter TEXT]: every linear row of the table at the default
// model's shapes and a 1B model's, one token (bytes count) and many (operations count). Weights rotate
// through more memory than the last-level cache holds; medians of timed rounds.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/clock.h"
#include "base/cpu.h"
#include "kernels/random_weight.h"
#include "kernels/table.h"

namespace tandem {
namespace {

struct Shape {
  int64_t N, K;
};

void bench_row(const LinearKernel& kernel, const Encoding& encoding, const Shape& shape, int64_t T,
               ThreadPool& pool) {
  const Context context{&pool};
  RandomWeight owned(encoding, shape.N, shape.K, 1);
  const uint64_t bytes = owned.weight.total_bytes();
  const uint64_t rotate = T <= 8 ? 2 * last_level_cache_bytes() : 0;
  const size_t copies = std::min<size_t>(256, static_cast<size_t>(rotate / bytes) + 1);
  Arena arena;
  std::vector<PackedWeight> packed;
  for (size_t i = 0; i < copies; ++i) {
    packed.push_back(kernel.prepack(context, {owned.weight}, arena));
    packed.back().kernel = &kernel;
  }
  OwnedActivations act(kernel.act_type, T, shape.K);
  const std::vector<float> x = random_floats(T * shape.K, 2);
  find_ops(kernel.isa).quantize(context, x.data(), shape.K, act.view);
  std::vector<float> y(static_cast<size_t>(T * shape.N));
  std::vector<double> seconds;
  const int64_t start = now_ns();
  while (seconds.size() < 5 || (seconds_since(start) < 0.25 && seconds.size() < 1000)) {
    const int64_t begin = now_ns();
    for (const PackedWeight& w : packed) kernel.run(context, w, act.view, y.data(), shape.N, false);
    seconds.push_back(seconds_since(begin) / static_cast<double>(copies));
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const double operations = 2.0 * static_cast<double>(shape.N * shape.K * T);
  std::printf("%-28s %-12s N %6ld K %5ld T %4ld %9.1f us %7.2f GB/s %8.1f Gop/s\n", kernel.name,
              encoding.name().c_str(), shape.N, shape.K, T, median * 1e6, static_cast<double>(bytes) / median * 1e-9,
              operations / median * 1e-9);
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  std::string isa(best_isa()), filter;
  int threads = usable_cpus();
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (flag == "--isa" && value) {
      isa = value;
    } else if (flag == "--threads" && value && std::atoi(value) > 0) {
      threads = std::atoi(value);
    } else if (flag == "--filter" && value) {
      filter = value;
    } else {
      std::fprintf(stderr,
                   "bench_kernels: error: found '%s', expected --isa NAME, --threads N or --filter "
                   "TEXT\n",
                   flag.c_str());
      return 2;
    }
  }
  ThreadPool pool(threads);
  for (const LinearKernel& kernel : linear_kernels()) {
    if (isa != kernel.isa || std::string(kernel.name).find(filter) == std::string::npos) continue;
    Encoding encoding{kernel.packing};
    if (kernel.packing == Packing::q4_1) encoding = kQ4_1;
    if (kernel.packing == Packing::q8_0) encoding = kQ8_0;
    if (kernel.packing == Packing::int8_channel) encoding = int8_channel(ScaleType::bf16);
    if (kernel.packing == Packing::fp8_channel) encoding = fp8_channel(ScaleType::bf16);
    if (kernel.packing == Packing::fp8_weight) encoding = fp8_weight(ScaleType::bf16);
    if (kernel.packing == Packing::nf4) encoding = kNF4;
    if (kernel.packing == Packing::fp4) encoding = kFP4;
    if (kernel.packing == Packing::int4_group) encoding = int4_group(64, ScaleType::bf16);
    if (kernel.packing >= Packing::q4_0) {
      for (const Encoding& gguf : {kQ4_0, kQ5_0, kQ5_1, kIQ4_NL, kQ2_K, kQ3_K, kQ4_K, kQ5_K, kQ6_K}) {
        if (kernel.packing == gguf.packing) encoding = gguf;
      }
    }
    for (const Shape& shape : {Shape{960, 576}, Shape{3072, 576}, Shape{576, 1536}, Shape{2048, 8192}}) {
      if (shape.K % encoding.block() != 0) continue;
      for (const int64_t T : {1, 8, 512}) bench_row(kernel, encoding, shape, T, pool);
    }
  }
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) { return tandem::run(argc, argv); }
