// The GPU's cache and attention against ref, for every type of cache: codes to the bit, attention
// over ragged batches on scattered pages, long contexts cut into pieces, and that a token's result
// does not depend on what runs beside it.
#include <algorithm>
#include <cmath>

#include "base/cpu.h"
#include "kernels/cuda/kv_fragments.h"
#include "kernels/cuda_memory.h"
#include "kernels/table.h"

namespace tandem {
namespace {

struct HeadShape {
  int64_t H, G, D;
};

// What attention may differ from ref by, times 1 + |expected|. Single tokens over bf16 have queries
// and probabilities in two terms; prompts and narrow types have them rounded, to 8 bits or 11.
double tolerance(KvType type, bool is_prompt) {
  if (type == KvType::bf16) return is_prompt ? 6e-3 : 1e-4;
  return 1.5e-3;
}

class CudaAttention : public testing::TestWithParam<std::tuple<KvType, OpSet>> {
 protected:
  void SetUp() override {
    std::string reason;
    device_ = cuda_or_null(&reason, cuda().isa);
    if (device_ == nullptr) GTEST_SKIP() << reason;
    context_ = {&pool_, device_.get()};
  }
  KvType type() const { return std::get<0>(GetParam()); }
  const OpSet& cuda() const { return std::get<1>(GetParam()); }
  const OpSet& ref() { return find_ops("ref"); }
  void check_ragged(const HeadShape& shape, int64_t window, bool has_norms);

  std::shared_ptr<Device> device_;
  ThreadPool pool_{usable_cpus()};
  Context context_;
};

// The stored bits of (token, d) of both caches, int8 in two's complement.
uint32_t ref_code(const KvLayout& layout, const std::byte* plane, int64_t index) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(plane);
  if (layout.type == KvType::bf16) return bytes[2 * index] | bytes[2 * index + 1] << 8;
  if (layout.type == KvType::int4) return bytes[index / 2] >> 4 * (index % 2) & 15;
  return bytes[index];
}

uint32_t cuda_code(const KvLayout& layout, const std::byte* plane, int64_t bit) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(plane);
  if (layout.type == KvType::bf16) return bytes[bit / 8] | bytes[bit / 8 + 1] << 8;
  if (layout.type == KvType::int4) return bytes[bit / 8] >> bit % 8 & 15;
  return layout.type == KvType::int8 ? bytes[bit / 8] ^ kInt8Bias : bytes[bit / 8];
}

bool is_nan_bf16(uint32_t bits) { return (bits & 0x7FFF) > 0x7F80; }

TEST_P(CudaAttention, AppendGivesTheSameCodes) {
  for (const int64_t D : {64, 128}) {
    constexpr int64_t H = 2, G = 3, T = 150;
    const KvLayout layout{type(), 2, G, D};
    const int64_t ld = (H + 2 * G) * D;
    std::vector<float> x = random_floats(T * ld, 5, 2.0);
    const auto heads = [&](int64_t t) { return x.begin() + t * ld + H * D; };
    std::fill_n(heads(3), 2 * G * D, 0.0f);
    std::fill_n(heads(4), 2 * G * D, 1e-37f);  // too small for a scale
    std::fill_n(heads(5), 2 * G * D, -3.25f);  // all equal
    for (const int64_t head : {0, 1, 2, 3, 4, 5}) {
      heads(6)[head * D + 7] = NAN;
      heads(7)[head * D + 9] = -INFINITY;
      heads(8)[head * D + 11] = 3e38f;
      heads(9)[head * D + 13] = 1e4f;
    }
    std::vector<float> cos_sin = random_floats(T * D, 6);
    const int32_t pages[] = {2, 0, 1};
    Batch batch;
    batch.T = T;
    batch.sequences.push_back({0, T, T, pages});
    std::vector<int32_t> positions(T);
    for (int32_t t = 0; t < T; ++t) positions[static_cast<size_t>(t)] = t;
    batch.tokens = batch.positions = positions.data();
    const auto bytes = static_cast<size_t>(3 * layout.page_bytes());
    OnDevice<uint8_t> memory(*device_, std::vector<uint8_t>(bytes, 0xFF));
    Buffer ref_memory(bytes);
    const KvCache cache{layout, reinterpret_cast<std::byte*>(memory.data()), 3},
        ref_cache{layout, ref_memory.data()};
    const auto step = device_->make_step({T, 1, 3}, H * G, layout);
    step->stage(batch, cache, H * G);
    context_.step = step.get();
    OnDevice<float> qkv(*device_, x), angles(*device_, cos_sin);
    cuda().rope_append(context_, qkv.data(), {}, batch, H, angles.data(), cache, 1);
    ref().rope_append(context_, x.data(), {}, batch, H, cos_sin.data(), ref_cache, 1);
    const std::vector<uint8_t> found = memory.values();
    const int bits = static_cast<int>(layout.element_bits());
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t g = 0; g < G; ++g) {
        SCOPED_TRACE(fmt::format("D {} token {} head {}", D, t, g));
        const int64_t page = pages[t / kPageTokens], token = t % kPageTokens;
        // Offsets are the reference's, of layer 1; here that layer's pages lie together.
        const auto* a = reinterpret_cast<const std::byte*>(found.data()) +
                        (3 + page - 1) * layout.layer_bytes();
        const std::byte* b = ref_memory.data() + page * layout.page_bytes();
        for (int64_t d = 0; d < D; ++d) {
          const uint32_t k =
              cuda_code(layout, a + layout.k_offset(1, g), k_fragment_bit(bits, D, token, d));
          const uint32_t v =
              cuda_code(layout, a + layout.v_offset(1, g), v_fragment_bit(bits, D, token, d));
          const uint32_t k_ref =
              ref_code(layout, b + layout.k_offset(1, g), KvLayout::k_index(token, d, D));
          const uint32_t v_ref = ref_code(layout, b + layout.v_offset(1, g), token * D + d);
          if (type() == KvType::bf16 && is_nan_bf16(k_ref)) {
            ASSERT_TRUE(is_nan_bf16(k)) << d;
          } else {
            ASSERT_EQ(k, k_ref) << "k " << d;
          }
          if (type() == KvType::bf16 && is_nan_bf16(v_ref)) {
            ASSERT_TRUE(is_nan_bf16(v)) << d;
          } else {
            ASSERT_EQ(v, v_ref) << "v " << d;
          }
        }
        if (!layout.is_narrow()) continue;
        for (const int64_t offset : {layout.k_scales_offset(1, g), layout.v_scales_offset(1, g)}) {
          ASSERT_EQ(load_unaligned<uint32_t>(a + offset + 4 * token),
                    load_unaligned<uint32_t>(b + offset + 4 * token));
        }
      }
    }
  }
}

// Appends and attends three ragged sequences in several steps. Stale pages hold NaN: nothing beyond
// a sequence's end may matter.
void CudaAttention::check_ragged(const HeadShape& shape, int64_t window, bool has_norms) {
  const auto [H, G, D] = shape;
  SCOPED_TRACE(fmt::format("H {} G {} D {} window {}", H, G, D, window));
  const KvLayout layout{type(), 2, G, D, window};
  const std::vector<float> bias = random_floats((H + 2 * G) * D, 21), q_norm = random_floats(D, 22),
                           k_norm = random_floats(D, 23);
  OnDevice<float> bias_device(*device_, bias), q_device(*device_, q_norm),
      k_device(*device_, k_norm);
  HeadTransform transform, transform_device;
  if (window != 0) {
    transform = {bias.data(), nullptr, nullptr, 1e-6f};
    transform_device = {bias_device.data(), nullptr, nullptr, 1e-6f};
  }
  if (has_norms) {
    transform.q_norm = q_norm.data(), transform.k_norm = k_norm.data();
    transform_device.q_norm = q_device.data(), transform_device.k_norm = k_device.data();
  }
  constexpr int64_t kPages = 24;
  const auto bytes = static_cast<size_t>(kPages * layout.page_bytes());
  OnDevice<uint8_t> memory(*device_, std::vector<uint8_t>(bytes, 0xFF));
  Buffer ref_memory(bytes);
  const KvCache cache{layout, reinterpret_cast<std::byte*>(memory.data()), kPages},
      ref_cache{layout, ref_memory.data()};
  std::vector<std::vector<int32_t>> pages(3);
  for (int32_t p = 0; p < kPages; ++p) pages[static_cast<size_t>(p % 3)].push_back(kPages - 1 - p);
  const auto step_arrays = device_->make_step({512, 8, 64}, H, layout);
  context_.step = step_arrays.get();
  std::vector<int64_t> context_tokens = {0, 0, 0};
  const int64_t steps[][3] = {{1, 70, 16},   {37, 1, 0}, {1, 1, 49}, {90, 1, 1},
                              {260, 140, 1}, {1, 1, 1},  {1, 1, 1}};
  for (const auto& step : steps) {
    Batch batch;
    std::vector<int32_t> positions;
    std::vector<bool> is_prompt;
    for (size_t s = 0; s < 3; ++s) {
      if (step[s] == 0) continue;
      for (int64_t i = 0; i < step[s]; ++i) {
        positions.push_back(static_cast<int32_t>(context_tokens[s] + i));
        is_prompt.push_back(step[s] > 1);
      }
      context_tokens[s] += step[s];
      batch.sequences.push_back({batch.T, step[s], context_tokens[s], pages[s].data()});
      batch.T += step[s];
    }
    batch.tokens = batch.positions = positions.data();
    step_arrays->stage(batch, cache, H);
    const int64_t ld = (H + 2 * G) * D;
    const std::vector<float> x = random_floats(batch.T * ld, static_cast<uint64_t>(batch.T), 0.5);
    const std::vector<float> cos_sin = random_floats(batch.T * D, 9);
    OnDevice<float> angles(*device_, cos_sin);
    for (const int64_t layer : {0, 1}) {
      std::vector<float> qkv_ref = x, out_ref(static_cast<size_t>(batch.T * H * D));
      OnDevice<float> qkv(*device_, x), out(*device_, std::vector<float>(out_ref.size(), NAN));
      cuda().rope_append(context_, qkv.data(), transform_device, batch, H, angles.data(), cache,
                         layer);
      ref().rope_append(context_, qkv_ref.data(), transform, batch, H, cos_sin.data(), ref_cache,
                        layer);
      cuda().attention(context_, qkv.data(), batch, H, cache, layer, nullptr, out.data());
      ref().attention(context_, qkv_ref.data(), batch, H, ref_cache, layer, nullptr,
                      out_ref.data());
      const std::vector<float> q = qkv.values(), result = out.values();
      for (int64_t t = 0; t < batch.T; ++t) {
        for (int64_t i = t * ld; i < t * ld + H * D; ++i) {
          ASSERT_NEAR(q[i], qkv_ref[i], 1e-5 * std::fabs(qkv_ref[i]) + 1e-5) << "q of token " << t;
        }
        // With norms a key on the edge of two bf16 numbers may be rounded either way.
        const double allowed =
            has_norms ? 1.2e-2 : tolerance(type(), is_prompt[static_cast<size_t>(t)]);
        for (int64_t i = t * H * D; i < (t + 1) * H * D; ++i) {
          ASSERT_NEAR(result[i], out_ref[i], allowed * (1 + std::fabs(out_ref[i])))
              << "T " << batch.T << " token " << t << " channel " << i % (H * D);
        }
      }
    }
  }
}

TEST_P(CudaAttention, RaggedBatches) {
  check_ragged({9, 3, 64}, 0, false);
  check_ragged({8, 2, 128}, 0, false);
  check_ragged({4, 4, 128}, 0, false);
  check_ragged({16, 1, 64}, 0, false);
  check_ragged({8, 1, 128}, 0, false);
  check_ragged({13, 1, 128}, 0, false);
}

TEST_P(CudaAttention, RaggedBatchesInAWindow) {
  // Codes of narrow types jump where the norms' sums differ in the last bit, so they go without.
  const bool has_norms = type() == KvType::bf16;
  for (const int64_t window : {1, 5, 63, 64, 65, 100, 300})
    check_ragged({6, 2, 64}, window, has_norms);
}

// Single tokens, one step after another, through attend and through the three ops that it is.
TEST_P(CudaAttention, AttendIsTheThreeOps) {
  if (cuda().attend == nullptr) GTEST_SKIP() << "this generation has the three ops alone";
  for (const HeadShape& shape :
       {HeadShape{8, 2, 128}, HeadShape{9, 3, 64}, HeadShape{4, 4, 128}, HeadShape{13, 1, 64}}) {
    for (const int64_t window : {0, 70}) {
      const auto [H, G, D] = shape;
      SCOPED_TRACE(fmt::format("H {} G {} D {} window {}", H, G, D, window));
      const std::vector<float> bias = random_floats((H + 2 * G) * D, 41),
                               q_norm = random_floats(D, 42), k_norm = random_floats(D, 43);
      OnDevice<float> on_device[] = {{*device_, bias}, {*device_, q_norm}, {*device_, k_norm}};
      HeadTransform transform;
      if (window != 0) {
        transform = {on_device[0].data(), on_device[1].data(), on_device[2].data(), 1e-6f};
      }
      const KvLayout layout{type(), 2, G, D, window};
      constexpr int64_t kPages = 60, kSequences = 5, kSteps = 3;
      const auto bytes = static_cast<size_t>(kPages * layout.page_bytes());
      // Codes of tokens before these steps: any bits that are no NaN in bf16, f32 or E4M3.
      std::vector<uint8_t> before(bytes);
      for (size_t i = 0; i < bytes; ++i) before[i] = static_cast<uint8_t>(i * 7 % 63);
      OnDevice<uint8_t> memories[] = {{*device_, before}, {*device_, before}};
      std::vector<std::vector<int32_t>> pages(kSequences);
      for (int32_t p = 0; p < kPages; ++p) pages[p % kSequences].push_back(kPages - 1 - p);
      const auto arrays = device_->make_step({kSequences, 8, kPages}, H, layout);
      context_.step = arrays.get();
      int64_t contexts[kSequences] = {0, 15, 62, 255, 700};
      for (int64_t step = 0; step < kSteps; ++step) {
        Batch batch;
        std::vector<int32_t> positions;
        for (size_t s = 0; s < kSequences; ++s) {
          positions.push_back(static_cast<int32_t>(contexts[s]));
          batch.sequences.push_back({batch.T++, 1, ++contexts[s], pages[s].data()});
        }
        batch.tokens = batch.positions = positions.data();
        const std::vector<float> x =
            random_floats(batch.T * (H + 2 * G) * D, 44 + static_cast<uint64_t>(step), 0.5);
        OnDevice<float> angles(*device_, random_floats(batch.T * D, 45));
        for (const ActType act : {ActType::bf16, ActType::f16, ActType::f32}) {
          const size_t count = static_cast<size_t>(batch.T * H * D);
          std::vector<std::vector<float>> floats;
          std::vector<std::vector<uint16_t>> halves;
          for (OnDevice<uint8_t>& memory : memories) {
            const KvCache cache{layout, reinterpret_cast<std::byte*>(memory.data()), kPages};
            arrays->stage(batch, cache, H);
            OnDevice<float> qkv(*device_, x), attended(*device_, std::vector<float>(count, NAN)),
                out(*device_, std::vector<float>(count, NAN));
            OnDevice<uint16_t> half(*device_, std::vector<uint16_t>(count, 0xFFFF));
            Activations to{act, batch.T, H * D};
            to.f32 = out.data(), to.half = half.data();
            if (&memory == &memories[0]) {
              cuda().rope_append(context_, qkv.data(), transform, batch, H, angles.data(), cache,
                                 1);
              cuda().attention(context_, qkv.data(), batch, H, cache, 1, nullptr, attended.data());
              cuda().quantize(context_, attended.data(), H * D, to);
            } else {
              cuda().attend(context_, qkv.data(), transform, batch, H, angles.data(), cache, 1,
                            attended.data(), to);
            }
            floats.push_back(out.values());
            halves.push_back(half.values());
          }
          ASSERT_EQ(halves[0], halves[1]) << "step " << step;
          if (act == ActType::f32) {
            ASSERT_EQ(floats[0], floats[1]) << "step " << step;
          }
          ASSERT_TRUE(memories[0].values() == memories[1].values()) << "step " << step;
        }
      }
    }
  }
}

// One sequence of 5000 tokens on scattered pages, its keys and values the same in both caches, and
// queries at contexts of all lengths over it.
struct LongSequence {
  LongSequence(KvType type, const HeadShape& shape_, Device& device, const OpSet& cuda,
               const OpSet& ref, const Context& context)
      : shape(shape_),
        layout{type, 1, shape_.G, shape_.D},
        memory(device,
               std::vector<uint8_t>(static_cast<size_t>(kPages * layout.page_bytes()), 0xFF)),
        ref_memory(static_cast<size_t>(kPages * layout.page_bytes())),
        cache{layout, reinterpret_cast<std::byte*>(memory.data()), kPages},
        ref_cache{layout, ref_memory.data()},
        ld((shape_.H + 2 * shape_.G) * shape_.D) {
    for (int32_t p = 0; p < kPages; ++p) pages.push_back(p * 37 % kPages);
    step = device.make_step({kTokens, 64, kMaxQueries * kPages}, shape.H, layout);
    const std::vector<float> cos_sin = random_floats(kTokens * shape.D, 31);
    std::vector<float> qkv = random_floats(kTokens * ld, 32, 0.7);
    OnDevice<float> qkv_device(device, qkv), angles(device, cos_sin);
    Batch batch;
    batch.T = kTokens;
    batch.sequences.push_back({0, kTokens, kTokens, pages.data()});
    for (int32_t t = 0; t < kTokens; ++t) positions.push_back(t);
    batch.tokens = batch.positions = positions.data();
    step->stage(batch, cache, shape.H);
    Context on_device = context;
    on_device.step = step.get();
    cuda.rope_append(on_device, qkv_device.data(), {}, batch, shape.H, angles.data(), cache, 0);
    ref.rope_append(context, qkv.data(), {}, batch, shape.H, cos_sin.data(), ref_cache, 0);
  }

  // Slices of `tokens` each that end at `contexts`, one query row after another.
  Batch batch(const std::vector<int64_t>& contexts, int64_t tokens) {
    Batch result;
    queries.clear();
    for (const int64_t context : contexts) {
      for (int64_t i = 0; i < tokens; ++i)
        queries.push_back(static_cast<int32_t>(context - tokens + i));
      result.sequences.push_back({result.T, tokens, context, pages.data()});
      result.T += tokens;
    }
    result.tokens = result.positions = queries.data();
    return result;
  }

  static constexpr int64_t kTokens = 5000, kPages = 79, kMaxQueries = 200;
  HeadShape shape;
  KvLayout layout;
  OnDevice<uint8_t> memory;
  Buffer ref_memory;
  KvCache cache, ref_cache;
  int64_t ld;
  std::vector<int32_t> pages, positions, queries;
  std::unique_ptr<DeviceStep> step;
};

TEST_P(CudaAttention, LongContextsAndNeighboursDoNotMatter) {
  for (const HeadShape& shape :
       {HeadShape{3, 1, 64}, HeadShape{8, 2, 128}, HeadShape{12, 1, 128}}) {
    SCOPED_TRACE(fmt::format("H {} G {} D {}", shape.H, shape.G, shape.D));
    LongSequence sequence(type(), shape, *device_, cuda(), ref(), context_);
    context_.step = sequence.step.get();
    const std::vector<int64_t> contexts = {1,    2,    15,  16,   17,   63,   64,   65,   128,
                                           200,  256,  257, 512,  513,  1000, 1024, 2047, 2048,
                                           2049, 2113, 300, 4095, 4096, 4097, 5000};
    const Batch all = sequence.batch(contexts, 1);
    const int64_t row = shape.H * shape.D;
    const std::vector<float> qkv = random_floats(all.T * sequence.ld, 33, 1.5);
    OnDevice<float> qkv_device(*device_, qkv);
    std::vector<float> expected(static_cast<size_t>(all.T * row));
    ref().attention(context_, qkv.data(), all, shape.H, sequence.ref_cache, 0, nullptr,
                    expected.data());
    const auto run = [&](const Batch& batch, const float* from) {
      sequence.step->stage(batch, sequence.cache, shape.H);
      OnDevice<float> out(*device_, std::vector<float>(static_cast<size_t>(batch.T * row), NAN));
      cuda().attention(context_, from, batch, shape.H, sequence.cache, 0, nullptr, out.data());
      return out.values();
    };
    const std::vector<float> together = run(all, qkv_device.data());
    for (int64_t i = 0; i < all.T * row; ++i) {
      ASSERT_NEAR(together[i], expected[i], tolerance(type(), false) * (1 + std::fabs(expected[i])))
          << "context " << contexts[static_cast<size_t>(i / row)] << " channel " << i % row;
    }
    for (const size_t i : {size_t{0}, size_t{9}, size_t{17}, contexts.size() - 1}) {
      const auto t = static_cast<int64_t>(i);
      const std::vector<float> alone =
          run(sequence.batch({contexts[i]}, 1), qkv_device.data() + t * sequence.ld);
      ASSERT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + t * row))
          << "context " << contexts[i];
    }
  }
}

// The more sequences there are, the more parts of one a block takes, and the fewer meet in memory.
TEST_P(CudaAttention, ResultsDoNotDependOnHowManyRunTogether) {
  const HeadShape shape{8, 2, 128};
  LongSequence sequence(type(), shape, *device_, cuda(), ref(), context_);
  context_.step = sequence.step.get();
  const int64_t row = shape.H * shape.D;
  const std::vector<float> query = random_floats(sequence.ld, 35, 1.5);
  std::vector<float> queries;
  for (int64_t i = 0; i < LongSequence::kMaxQueries; ++i)
    queries.insert(queries.end(), query.begin(), query.end());
  OnDevice<float> qkv(*device_, queries);
  for (const int64_t context : {300, 1000, 1024, 2000, 4096, 5000}) {
    std::vector<float> alone;
    for (const size_t count : {1, 7, 33, 66, 132, 200}) {
      const Batch batch = sequence.batch(std::vector<int64_t>(count, context), 1);
      sequence.step->stage(batch, sequence.cache, shape.H);
      OnDevice<float> out(*device_, std::vector<float>(count * static_cast<size_t>(row), NAN));
      cuda().attention(context_, qkv.data(), batch, shape.H, sequence.cache, 0, nullptr,
                       out.data());
      const std::vector<float> result = out.values();
      if (count == 1) alone = result;
      for (size_t i = 0; i < count; ++i) {
        ASSERT_TRUE(
            std::equal(alone.begin(), alone.end(), result.begin() + static_cast<int64_t>(i) * row))
            << "context " << context << ", sequence " << i << " of " << count;
      }
    }
  }
}

TEST_P(CudaAttention, APromptInPiecesIsThePromptAtOnce) {
  const HeadShape shape{3, 1, 64};
  LongSequence sequence(type(), shape, *device_, cuda(), ref(), context_);
  context_.step = sequence.step.get();
  constexpr int64_t kTokens = 300, kContext = 1111;
  const int64_t row = shape.H * shape.D;
  const std::vector<float> qkv = random_floats(kTokens * sequence.ld, 34, 1.5);
  OnDevice<float> qkv_device(*device_, qkv);
  std::vector<float> expected(static_cast<size_t>(kTokens * row));
  const auto run = [&](const Batch& batch) {
    sequence.step->stage(batch, sequence.cache, shape.H);
    OnDevice<float> out(*device_, std::vector<float>(expected.size(), NAN));
    cuda().attention(context_, qkv_device.data(), batch, shape.H, sequence.cache, 0, nullptr,
                     out.data());
    return out.values();
  };
  const Batch at_once = sequence.batch({kContext}, kTokens);
  const std::vector<float> whole = run(at_once);
  ref().attention(context_, qkv.data(), at_once, shape.H, sequence.ref_cache, 0, nullptr,
                  expected.data());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(whole[i], expected[i], tolerance(type(), true) * (1 + std::fabs(expected[i]))) << i;
  }
  const std::vector<float> in_pieces =
      run(sequence.batch({kContext - 200, kContext - 100, kContext}, 100));
  EXPECT_EQ(in_pieces, whole);
}

INSTANTIATE_TEST_SUITE_P(
    Types, CudaAttention,
    testing::Combine(testing::Values(KvType::bf16, KvType::fp8, KvType::int8, KvType::int4),
                     testing::ValuesIn(cuda_op_sets())),
    [](const auto& param) {
      return fmt::format("{}_{}", kv_type_name(std::get<0>(param.param)),
                         std::get<1>(param.param).isa);
    });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(CudaAttention);

}  // namespace
}  // namespace tandem
