// bench_cuda_layer SHAPE.json ENCODING [TOKENS]: what each op of a layer adds to a decode step. The
// ops of some layers are chained in a CUDA graph as a step chains them, then again without one op:
// its kernels overlap with their neighbours', so that it costs less than it takes alone. Random
// weights; every token is its sequence's 192nd, in a bf16 cache.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "formats/random_checkpoint.h"
#include "graph_timer.h"
#include "kernels/table.h"

namespace tandem {
namespace {

constexpr int64_t kContext = 192, kPages = kContext / kPageTokens;
constexpr int kLayers = 8;
constexpr double kReadLimit = 4.54e12;  // bytes a second of an H200
constexpr const char* kOps[] = {"norm",     "qkv",     "attend",  "o",
                                "ffn norm", "gate_up", "act_mul", "down"};

class Chain {
 public:
  Chain(const ModelConfig& config, const std::string& encoding, int64_t T)
      : C_(config.width),
        F_(config.ffn_width),
        H_(config.num_heads),
        G_(config.num_kv_heads),
        D_(config.head_dim),
        T_(T),
        encoding_(encoding_of(encoding)),
        kernel_(find_linear("cuda", encoding_.packing)) {
    for (uint64_t l = 0; l < kLayers; ++l) {
      layers_.push_back({weight((H_ + 2 * G_) * D_, C_, 4 * l + 1), weight(C_, H_ * D_, 4 * l + 2),
                         weight(2 * F_, C_, 4 * l + 3), weight(C_, F_, 4 * l + 4)});
    }
    for (int64_t i = 0; i < T * kPages; ++i) pages_.push_back(static_cast<int32_t>(i));
    for (int64_t t = 0; t < T; ++t)
      batch_.sequences.push_back({t, 1, kContext, pages_.data() + t * kPages});
    positions_.assign(static_cast<size_t>(T), kContext - 1);
    batch_.T = T;
    batch_.tokens = batch_.positions = positions_.data();
    const std::vector<float> ones(C_, 1.0f);
    device_.upload(norm_.data(), ones.data(), ones.size() * sizeof(float));
    step_ = device_.make_step({T, T, T * kPages}, H_, cache_.layout);
    step_->stage(batch_, cache_, H_);
    context_.step = step_.get();
  }

  double read_bytes() const {
    double sum = 0;
    for (const PackedWeight* w :
         {&layers_[0].qkv, &layers_[0].o, &layers_[0].gate_up, &layers_[0].down})
      sum += static_cast<double>(w->read_bytes);
    return sum;
  }

  // Of a layer without the op of this number; -1: of a whole one.
  double seconds(int without) {
    return time_graph(device_, kLayers, [&] {
      for (int l = 0; l < kLayers; ++l) run(l, without);
    });
  }

 private:
  struct Layer {
    PackedWeight qkv, o, gate_up, down;
  };

  PackedWeight weight(int64_t N, int64_t K, uint64_t seed) {
    RandomRows rows;
    CHECK(random_rows_of(encoding_, K, seed, rows), "{}", encoding_.name());
    Buffer data(static_cast<size_t>(N * rows.row_bytes), &device_);
    Buffer scales(static_cast<size_t>(N * rows.groups * rows.scale_bytes + 16), &device_);
    device_.random_rows(rows, N, data.data(), scales.data());
    Weight canonical;
    canonical.encoding = encoding_;
    canonical.N = N;
    canonical.K = K;
    canonical.data = data.data();
    canonical.scales = rows.groups > 0 ? scales.data() : nullptr;
    PackedWeight packed = kernel_.prepack(context_, {canonical}, arena_);
    packed.kernel = &kernel_;
    return packed;
  }

  Activations act(int64_t K) {
    return {kernel_.act_type,
            T_,
            K,
            nullptr,
            codes_.as<int8_t>(),
            scales_.as<float>(),
            sums_.as<float>(),
            half_.as<uint16_t>()};
  }

  void run(int l, int without) {
    const OpSet& ops = find_ops("cuda");
    const Layer& layer = layers_[static_cast<size_t>(l)];
    float *x = x_.as<float>(), *qkv = qkv_.as<float>(), *attended = attended_.as<float>(),
          *gate_up = gate_up_.as<float>();
    const auto linear = [&](const PackedWeight& w, float* y, bool accumulate) {
      kernel_.run(context_, w, act(w.K), y, w.N, accumulate);
    };
    const auto norm = [&] { ops.rms_norm(context_, x, T_, C_, norm_.as<float>(), 1e-5f, act(C_)); };
    if (without != 0) norm();
    if (without != 1) linear(layer.qkv, qkv, false);
    if (without != 2)
      ops.attend(context_, qkv, {}, batch_, H_, cos_sin_.as<float>(), cache_, l, attended,
                 act(H_ * D_));
    if (without != 3) linear(layer.o, x, true);
    if (without != 4) norm();
    if (without != 5) linear(layer.gate_up, gate_up, false);
    if (without != 6) ops.act_mul(context_, gate_up, T_, F_, act(F_));
    if (without != 7) linear(layer.down, x, true);
  }

  Buffer floats(int64_t count) { return Buffer(static_cast<size_t>(count * 4), &device_); }

  const int64_t C_, F_, H_, G_, D_, T_;  // width, ffn width, heads, kv heads, head dim, tokens
  std::shared_ptr<Device> opened_ = open_device("cuda");
  CudaDevice& device_ = static_cast<CudaDevice&>(*opened_);
  ThreadPool pool_{1};
  Context context_{&pool_, &device_};
  Arena arena_{&device_};
  Encoding encoding_;
  const LinearKernel& kernel_;
  std::vector<Layer> layers_;
  Buffer x_ = floats(T_ * C_), norm_ = floats(C_), attended_ = floats(T_ * H_ * D_),
         qkv_ = floats(T_ * (H_ + 2 * G_) * D_), gate_up_ = floats(T_ * 2 * F_),
         cos_sin_ = floats(T_ * D_), codes_ = floats(T_ * F_), half_ = floats(T_ * F_),
         scales_ = floats(T_ * F_), sums_ = floats(T_ * F_);
  KvLayout layout_{KvType::bf16, kLayers, G_, D_};
  Buffer pages_memory_{static_cast<size_t>(T_ * kPages * layout_.page_bytes()), &device_};
  KvCache cache_{layout_, pages_memory_.data(), T_* kPages};
  std::vector<int32_t> pages_, positions_;
  Batch batch_;
  std::unique_ptr<DeviceStep> step_;
};

int main_of(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: bench_cuda_layer SHAPE.json ENCODING [TOKENS]\n");
    return 2;
  }
  Chain chain(read_model_shape(argv[1]), argv[2], argc > 3 ? std::atoll(argv[3]) : 1);
  const double whole = chain.seconds(-1);
  std::printf("%s %s: a layer %.2f us, its weights' bytes at %.2f TB/s %.2f us\n", argv[1], argv[2],
              whole * 1e6, kReadLimit * 1e-12, chain.read_bytes() / kReadLimit * 1e6);
  for (int op = 0; op < static_cast<int>(std::size(kOps)); ++op)
    std::printf("%-12s adds %6.2f us\n", kOps[op], (whole - chain.seconds(op)) * 1e6);
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  try {
    return tandem::main_of(argc, argv);
  } catch (const tandem::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return tandem::exit_code(error.kind);
  }
}
