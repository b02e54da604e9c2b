#include "study/hardware.h"

#include <immintrin.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "tensor/buffer.h"

namespace tandem {
namespace {

constexpr int64_t kMeasureNs = 250'000'000;          // for each number
constexpr uint64_t kFallbackCacheBytes = 32u << 20;  // when the system does not say

// Independent sums: a multiply-add takes 4 to 5 cycles and two start in each, so 10 hide the
// latency; more than 12 would not fit the 16 registers of AVX2 beside the operands.
constexpr int kChains = 12;
constexpr int64_t kIterations = 20000;

// Makes v opaque to the compiler: nothing can be computed beforehand or dropped. A macro, because a
// function would need the vector's instruction set itself.
#define TANDEM_LAUNDER(v) asm volatile("" : "+v"(v))

// Each loop runs kIterations x kChains multiply-adds of a whole vector.
struct PeakLoop {
  const char* instruction;
  int macs;  // multiply-adds of one vector
  void (*run)();
};

__attribute__((target("avx512f"))) void f32_avx512() {
  __m512 sums[kChains], a = _mm512_set1_ps(1.0f), b = _mm512_set1_ps(1e-9f);
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  TANDEM_LAUNDER(a);
  TANDEM_LAUNDER(b);
  for (int64_t i = 0; i < kIterations; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm512_fmadd_ps(a, b, sums[c]);
  }
  for (__m512& sum : sums) TANDEM_LAUNDER(sum);
}

__attribute__((target("avx2,fma"))) void f32_avx2() {
  __m256 sums[kChains], a = _mm256_set1_ps(1.0f), b = _mm256_set1_ps(1e-9f);
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  TANDEM_LAUNDER(a);
  TANDEM_LAUNDER(b);
  for (int64_t i = 0; i < kIterations; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm256_fmadd_ps(a, b, sums[c]);
  }
  for (__m256& sum : sums) TANDEM_LAUNDER(sum);
}

__attribute__((target("avx512f,avx512bw,avx512vnni"))) void int8_avx512_vnni() {
  __m512i sums[kChains], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(1);
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  TANDEM_LAUNDER(a);
  TANDEM_LAUNDER(b);
  for (int64_t i = 0; i < kIterations; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm512_dpbusd_epi32(sums[c], a, b);
  }
  for (__m512i& sum : sums) TANDEM_LAUNDER(sum);
}

// Three instructions for what VNNI does in one: bytes to pairs, pairs to fours, add.
__attribute__((target("avx2"))) void int8_avx2() {
  __m256i sums[kChains], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1);
  const __m256i ones = _mm256_set1_epi16(1);
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < kIterations; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      TANDEM_LAUNDER(a);  // or the product, the same each time, would be taken out of the loop
      sums[c] = _mm256_add_epi32(sums[c], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
  }
  for (__m256i& sum : sums) TANDEM_LAUNDER(sum);
}

PeakLoop f32_loop() {
  if (cpu_features().avx512) return {"avx512 vfmadd231ps", 16, f32_avx512};
  return {"avx2 vfmadd231ps", 8, f32_avx2};
}

PeakLoop int8_loop() {
  if (cpu_features().avx512_vnni) return {"avx512 vpdpbusd", 64, int8_avx512_vnni};
  return {"avx2 vpmaddubsw + vpmaddwd + vpaddd", 32, int8_avx2};
}

// Multiply-adds count as two operations; 10^9 a second over all the pool's threads.
double measure_peak(ThreadPool& pool, const PeakLoop& loop, bool all_threads) {
  const int threads = all_threads ? pool.size() : 1;
  const double operations = 2.0 * loop.macs * kChains * static_cast<double>(kIterations) * threads;
  double best = 0;
  for (const int64_t start = now_ns(); now_ns() - start < kMeasureNs;) {
    const int64_t begin = now_ns();
    if (all_threads) {
      pool.run([&](int) { loop.run(); });
    } else {
      loop.run();
    }
    best = std::max(best, operations / seconds_since(begin) * 1e-9);
  }
  return best;
}

// Reads [data, data + bytes), a multiple of 256, with enough loads in flight to keep memory busy.
__attribute__((target("avx2"))) void read_avx2(const std::byte* data, int64_t bytes) {
  __m256i x[8];
  for (__m256i& v : x) v = _mm256_setzero_si256();
  const auto* vectors = reinterpret_cast<const __m256i*>(data);
  for (const auto* end = vectors + bytes / 32; vectors < end; vectors += 8) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) x[i] = _mm256_xor_si256(x[i], _mm256_load_si256(vectors + i));
  }
  for (__m256i& v : x) TANDEM_LAUNDER(v);
}

ReadBandwidth measure_bandwidth(ThreadPool& pool, uint64_t bytes) {
  constexpr int64_t kChunkBytes = 256
                                  << 10;  // small enough that threads of unequal speed end together
  const int64_t chunks = std::max<int64_t>(static_cast<int64_t>(bytes) / kChunkBytes, 1);
  Buffer buffer(static_cast<size_t>(chunks * kChunkBytes));
  // Written first: pages never touched would all be the one zero page, in the cache.
  pool.parallel_for(chunks, 1, [&](int64_t begin, int64_t end, int) {
    std::fill_n(buffer.data() + begin * kChunkBytes, (end - begin) * kChunkBytes, std::byte{1});
  });
  ReadBandwidth result{buffer.size_bytes(), 0};
  for (const int64_t start = now_ns(); now_ns() - start < kMeasureNs;) {
    const int64_t begin_ns = now_ns();
    pool.parallel_for(chunks, 4, [&](int64_t begin, int64_t end, int) {
      read_avx2(buffer.data() + begin * kChunkBytes, (end - begin) * kChunkBytes);
    });
    const double rate = static_cast<double>(buffer.size_bytes()) / seconds_since(begin_ns);
    result.bytes_per_second = std::max(result.bytes_per_second, rate);
  }
  return result;
}

}  // namespace

HardwareSheet describe_hardware() {
  const CpuFeatures& features = cpu_features();
  HardwareSheet sheet;
  sheet.cpu = features.model_name;
  if (features.avx2) sheet.features.push_back("avx2");
  if (features.avx512) sheet.features.push_back("avx512");
  if (features.avx512_vnni) sheet.features.push_back("avx512_vnni");
  if (features.avx512_bf16) sheet.features.push_back("avx512_bf16");
  sheet.usable_cpus = usable_cpus();
  sheet.allowed_cpus = static_cast<int>(allowed_cpus().size());
  sheet.available_memory_bytes = available_memory_bytes();
  sheet.last_level_cache_bytes = last_level_cache_bytes();
  return sheet;
}

HardwareSheet measure_hardware(HardwareSheet facts, ThreadPool& pool, uint64_t model_bytes,
                               const std::function<void(const std::string&)>& progress) {
  if (!cpu_features().avx2) {
    fail(ErrorKind::no_device, "measuring this machine needs AVX2, which its processor lacks");
  }
  HardwareSheet sheet = std::move(facts);
  sheet.threads = pool.size();
  const auto announce = [&](const std::string& what) {
    if (progress) progress(what);
  };
  const uint64_t cache_bytes =
      sheet.last_level_cache_bytes != 0 ? sheet.last_level_cache_bytes : kFallbackCacheBytes;
  for (const uint64_t bytes : {model_bytes, 4 * cache_bytes}) {
    if (bytes > sheet.available_memory_bytes / 2) continue;
    announce(fmt::format("read bandwidth at {:.0f} MB", static_cast<double>(bytes) * 1e-6));
    sheet.bandwidth.push_back(measure_bandwidth(pool, bytes));
  }
  const PeakLoop int8 = int8_loop(), f32 = f32_loop();
  sheet.int8_instruction = int8.instruction;
  sheet.f32_instruction = f32.instruction;
  for (const bool all_threads : {false, true}) {
    if (all_threads && pool.size() == 1) continue;
    const int threads = all_threads ? pool.size() : 1;
    announce(fmt::format("arithmetic on {} thread{}", threads, threads == 1 ? "" : "s"));
    sheet.peaks.push_back(
        {threads, measure_peak(pool, int8, all_threads), measure_peak(pool, f32, all_threads)});
  }
  return sheet;
}

}  // namespace tandem
