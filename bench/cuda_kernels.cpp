// bench_cuda_kernels [--filter TEXT]: every linear row of the GPU at the shapes of an 8B layer, and
// the ops between them; each line is the median of replays of a CUDA graph that holds many
// launches. Weights rotate through more memory than L2 holds.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

#include "graph_timer.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/random_weight.h"
#include "kernels/rows.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr size_t kRotateBytes = size_t{512} << 20;
constexpr double kReadLimit = 4.54e12;  // bytes a second of an H200, docs/performance.md

void print(const std::string& name, double seconds, double bytes) {
  std::printf("%-64s %8.2f us %7.2f TB/s %5.1f %%\n", name.c_str(), seconds * 1e6,
              bytes / seconds * 1e-12, 100 * bytes / seconds / kReadLimit);
  std::fflush(stdout);
}

struct Bench {
  std::shared_ptr<Device> opened = open_device("cuda");
  CudaDevice& device = static_cast<CudaDevice&>(*opened);
  ThreadPool pool{1};
  std::string filter;

  bool wants(const std::string& name) const { return name.find(filter) != std::string::npos; }

  void linear(const LinearKernel& kernel, const Encoding& encoding, int64_t N, int64_t K) {
    if (!wants(kernel.name)) return;
    Arena arena(&device);
    Context context{&pool, &device};
    const RandomWeight owned(encoding, N, K, 1);
    std::vector<PackedWeight> copies(
        std::clamp<size_t>(kRotateBytes / owned.weight.total_bytes() + 1, 4, 32));
    for (PackedWeight& copy : copies) {
      copy = kernel.prepack(context, {owned.weight}, arena);
      copy.kernel = &kernel;
    }
    for (const int64_t T : {1, 8, 16, 32, 128, 1024}) {
      const int64_t padded = (K + 31) / 32 * 32;
      Buffer x(static_cast<size_t>(T * K * 4), &device), y(static_cast<size_t>(T * N * 4), &device);
      Buffer codes(static_cast<size_t>(T * padded * 3), &device);
      Buffer scales(static_cast<size_t>(T * padded / 8 + 256), &device),
          sums(scales.size_bytes(), &device);
      const std::vector<float> values = random_inputs(kernel.act_type, T * K, 2);
      device.upload(x.data(), values.data(), values.size() * 4);
      const Activations act{kernel.act_type,
                            T,
                            K,
                            nullptr,
                            codes.as<int8_t>(),
                            scales.as<float>(),
                            sums.as<float>(),
                            codes.as<uint16_t>(),
                            0.05f};
      cuda_ops()->quantize(context, x.as<float>(), K, act);
      const double seconds = time_graph(device, static_cast<int>(copies.size()), [&] {
        for (const PackedWeight& copy : copies)
          kernel.run(context, copy, act, y.as<float>(), N, false);
      });
      const double rate = 2.0 * static_cast<double>(N * K * T) / seconds * 1e-12;
      print(fmt::format("{} {} N {} K {} T {} ({:.0f} Tops)", kernel.name, encoding.name(), N, K, T,
                        rate),
            seconds, static_cast<double>(copies.front().read_bytes));
    }
  }

  // One layer's attention and append: `tokens` new tokens of each sequence at the end of its
  // context. The cache has as many layers as keep the launches from finding their pages in L2.
  void attention(KvType type, int64_t H, int64_t G, int64_t D, int64_t sequences, int64_t tokens,
                 int64_t context_tokens) {
    const int64_t pages_each = (context_tokens + kPageTokens - 1) / kPageTokens;
    KvLayout layout{type, 1, G, D};
    const int64_t layer_bytes = sequences * pages_each * layout.layer_bytes();
    layout.num_layers = std::clamp<int64_t>(kRotateBytes / layer_bytes, 8, 256);
    Buffer memory(static_cast<size_t>(sequences * pages_each * layout.page_bytes()), &device);
    const KvCache cache{layout, memory.data(), sequences * pages_each};
    const auto step =
        device.make_step({sequences * tokens, sequences, sequences * pages_each}, H, layout);
    std::vector<int32_t> pages(static_cast<size_t>(sequences * pages_each)), positions;
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
    Batch batch;
    for (int64_t s = 0; s < sequences; ++s) {
      for (int64_t i = 0; i < tokens; ++i)
        positions.push_back(static_cast<int32_t>(context_tokens - tokens + i));
      batch.sequences.push_back(
          {s * tokens, tokens, context_tokens, pages.data() + s * pages_each});
    }
    batch.T = sequences * tokens;
    batch.positions = batch.tokens = positions.data();
    step->stage(batch, cache, H);
    Context context{&pool, &device, step.get()};
    Buffer qkv(static_cast<size_t>(batch.T * (H + 2 * G) * D * 4), &device),
        out(qkv.size_bytes(), &device);
    Buffer cos_sin(static_cast<size_t>(batch.T * D * 4), &device);
    const std::vector<float> token = random_floats((H + 2 * G) * D, 3);
    for (int64_t t = 0; t < batch.T; ++t)
      device.upload(qkv.data() + static_cast<size_t>(t) * token.size() * 4, token.data(),
                    token.size() * 4);
    std::string name = fmt::format("{} {}/{}/{} b {} context {}", kv_type_name(type), H, G, D,
                                   sequences, context_tokens);
    if (tokens > 1) name += fmt::format(" prompt {}", tokens);
    const auto time = [&](auto op) {
      const int launches = static_cast<int>(tokens > 1 ? 8 : layout.num_layers);
      return time_graph(device, launches, [&] {
        for (int l = 0; l < launches; ++l) op(l % layout.num_layers);
      });
    };
    const double append = time([&](int64_t layer) {
      cuda_ops()->rope_append(context, qkv.as<float>(), {}, batch, H, cos_sin.as<float>(), cache,
                              layer);
    });
    const double seconds = time([&](int64_t layer) {
      cuda_ops()->attention(context, qkv.as<float>(), batch, H, cache, layer, nullptr,
                            out.as<float>());
    });
    const double macs = static_cast<double>(sequences * H * D * tokens) *
                        static_cast<double>(2 * context_tokens - tokens + 1);  // of both products
    std::string rate =
        tokens > 1 ? fmt::format(" ({:.0f} TFLOP/s)", 2 * macs / seconds * 1e-12) : "";
    print(fmt::format("attention {}{}", name, rate), seconds, static_cast<double>(layer_bytes));
    print(fmt::format("rope_append {}", name), append, static_cast<double>(qkv.size_bytes()));
  }

  void between(int64_t T, int64_t C, int64_t F, int64_t V) {
    Context context{&pool, &device};
    Buffer x(static_cast<size_t>(T * std::max(2 * F, V) * 4), &device),
        weight(static_cast<size_t>(C * 4), &device);
    Buffer codes(static_cast<size_t>(T * F * 4), &device), scales(codes.size_bytes(), &device),
        sums(codes.size_bytes(), &device);
    Buffer ids(static_cast<size_t>(T * 4), &device);
    for (const ActType type : {ActType::bf16, ActType::int8_token, ActType::fp8_token, ActType::int8_block}) {
      const auto act = [&](int64_t K) {
        return Activations{type,
                           T,
                           K,
                           nullptr,
                           codes.as<int8_t>(),
                           scales.as<float>(),
                           sums.as<float>(),
                           codes.as<uint16_t>()};
      };
      const auto time = [&](const char* name, int64_t K, auto op) {
        const double seconds = time_graph(device, 16, [&] {
          for (int i = 0; i < 16; ++i) op();
        });
        print(fmt::format("{} to {} T {} K {}", name, act_type_name(type), T, K), seconds,
              static_cast<double>(T * K * 4));
      };
      time("rms_norm", C, [&] {
        cuda_ops()->rms_norm(context, x.as<float>(), T, C, weight.as<float>(), 1e-5f, act(C));
      });
      time("quantize", C, [&] { cuda_ops()->quantize(context, x.as<float>(), C, act(C)); });
      time("act_mul", F, [&] { cuda_ops()->act_mul(context, x.as<float>(), T, F, act(F)); });
    }
    const double seconds = time_graph(device, 16, [&] {
      for (int i = 0; i < 16; ++i)
        cuda_ops()->device->argmax(context, x.as<float>(), T, V, ids.as<int32_t>());
    });
    print(fmt::format("argmax T {} V {}", T, V), seconds, static_cast<double>(T * V * 4));
  }

  void run() {
    for (const LinearKernel& kernel : cuda_linear_kernels()) {
      Encoding encoding{kernel.packing};
      if (kernel.packing == Packing::q4_0) encoding = kQ4_0;
      if (kernel.packing == Packing::q4_1) encoding = kQ4_1;
      if (kernel.packing == Packing::q8_0) encoding = kQ8_0;
      if (kernel.packing == Packing::int8_channel) encoding = int8_channel(ScaleType::bf16);
      if (kernel.packing == Packing::llm_int8) encoding = kLlmInt8;
      if (kernel.packing == Packing::int4_group) encoding = int4_group(128, ScaleType::f16);
      if (kernel.packing == Packing::fp8_channel) encoding = fp8_channel(ScaleType::bf16);
      if (kernel.packing == Packing::fp8_weight) encoding = fp8_weight(ScaleType::bf16);
      if (kernel.packing == Packing::int8_static) encoding = int8_static(ScaleType::bf16);
      if (kernel.packing == Packing::fp8_static) encoding = fp8_static(ScaleType::bf16);
      if (kernel.packing == Packing::fp8_block) encoding = fp8_block(ScaleType::bf16);
      if (encoding.has_zeros()) encoding = int_zero(encoding.bits(), 128, ScaleType::f16);
      if (kernel.packing == Packing::codebook) encoding = codebook(64);
      if (kernel.packing == Packing::nf4) encoding = kNF4;
      if (kernel.packing == Packing::fp4) encoding = kFP4;
      if (kernel.packing == Packing::int4_group_24) encoding = int4_group_24(128, ScaleType::f16);
      if (kernel.packing == Packing::int8_channel_24) encoding = int8_channel_24(ScaleType::bf16);
      if (kernel.packing == Packing::fp8_channel_24) encoding = fp8_channel_24(ScaleType::bf16);
      if (kernel.packing == Packing::q4_k) encoding = kQ4_K;
      if (kernel.packing == Packing::q6_k) encoding = kQ6_K;
      for (const auto& [N, K] :
           {std::pair<int64_t, int64_t>{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}}) {
        linear(kernel, encoding, N, K);
      }
    }
    if (wants("attention")) {
      for (const KvType type : cuda_ops()->kv_types) {
        for (const int64_t sequences : {1, 8, 32}) {
          for (const int64_t context : {128, 1024, 4096, 32768})
            attention(type, 32, 8, 128, sequences, 1, context);
        }
        for (const int64_t prompt : {2048, 8192}) attention(type, 32, 8, 128, 1, prompt, prompt);
      }
    }
    if (wants("between")) {
      between(1, 4096, 14336, 128256);
      between(32, 4096, 14336, 128256);
    }
  }
};

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  tandem::Bench bench;
  if (argc == 3 && std::strcmp(argv[1], "--filter") == 0) bench.filter = argv[2];
  std::printf("%s\n", bench.device.description().c_str());
  bench.run();
}
