// compare_devices MODEL ISA OTHER ID...: a prompt of these token ids but the last, then one token,
// through a model's layers op by op, with the kernels of ISA (of the host) and with OTHER's
// ("cuda", or another of the host). Each op of OTHER gets the inputs that ISA's ops made, so that
// what it writes differs by its own rounding alone. Prints for each op, over all layers: the root
// mean square of the difference and the largest, both over the root mean square of what ISA wrote;
// of codes the share that differs and by how much at most.
//
// Where weights meet other activations (16-bit weights on a GPU), OTHER makes its own, of the same
// floats.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>

#include "base/cpu.h"
#include "base/error.h"
#include "formats/checkpoint.h"
#include "kernels/device.h"
#include "kernels/table.h"
#include "model/rope.h"

namespace tandem {
namespace {

// Of all outputs of one op.
class Difference {
 public:
  void add(const float* expected, const float* found, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const double error = std::fabs(static_cast<double>(found[i]) - expected[i]);
      squared_error_ += error * error;
      squared_ += static_cast<double>(expected[i]) * expected[i];
      max_error_ = std::max(max_error_, error);
      different_ += found[i] != expected[i];
    }
    count_ += n;
  }
  void add_codes(const int8_t* expected, const int8_t* found, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      different_ += found[i] != expected[i];
      max_steps_ = std::max(max_steps_, std::abs(found[i] - expected[i]));
    }
    count_ += n;
    are_codes_ = true;
  }
  std::string text() const {
    const auto count = static_cast<double>(count_);
    const double share = 100 * static_cast<double>(different_) / count;
    if (are_codes_)
      return fmt::format("{:.4f} % of the codes differ, by at most {}", share, max_steps_);
    const double rms = std::sqrt(squared_ / count);
    return fmt::format("rms {:.1e}  largest {:.1e}  {:.2f} % differ",
                       std::sqrt(squared_error_ / count) / rms, max_error_ / rms, share);
  }

 private:
  double squared_error_ = 0, squared_ = 0, max_error_ = 0;
  int64_t count_ = 0, different_ = 0;
  int max_steps_ = 0;
  bool are_codes_ = false;
};

using Floats = std::vector<float>;

Floats floats(int64_t n) { return Floats(static_cast<size_t>(n)); }

// One of the two: its kernels, its memory, its cache.
struct Side {
  std::string isa;
  std::shared_ptr<Device> device;  // null: the host
  const OpSet& ops;
  Buffer pages;
  std::unique_ptr<DeviceStep> step;

  explicit Side(const std::string& name)
      : isa(names_device(name) ? "cuda" : name),
        device(names_device(name) ? open_device(name) : nullptr),
        ops(find_ops(isa)) {
    if (device == nullptr) require_isa(name);
  }
  Context context(ThreadPool& pool) const { return {&pool, device.get(), step.get()}; }
  Buffer give(const void* from, size_t bytes) const {
    Buffer to(bytes, device.get());
    put(to, from);
    return to;
  }
  Buffer give(const Floats& from) const { return give(from.data(), from.size() * sizeof(float)); }
  void put(Buffer& to, const void* from) const {
    if (device != nullptr) {
      device->upload(to.data(), from, to.size_bytes());
    } else {
      std::memcpy(to.data(), from, to.size_bytes());
    }
  }
  template <typename T>
  std::vector<T> take(const Buffer& from) const {
    std::vector<T> out(from.size_bytes() / sizeof(T));
    if (device != nullptr) {
      device->download(out.data(), from.data(), from.size_bytes());
    } else {
      std::memcpy(out.data(), from.data(), from.size_bytes());
    }
    return out;
  }
};

// Activations in memory of their own.
struct OwnActivations {
  Buffer codes, f32, scales, sums, half;
  Activations view;

  OwnActivations(ActType type, int64_t T, int64_t K, Device* device) {
    view.type = type;
    view.T = T;
    view.K = K;
    const auto padded = static_cast<size_t>(T * view.K_padded());
    codes = Buffer(padded, device);
    f32 = Buffer(static_cast<size_t>(T * K) * sizeof(float), device);
    scales = Buffer(static_cast<size_t>(T * view.groups()) * sizeof(float), device);
    sums = Buffer(scales.size_bytes(), device);
    half = Buffer(padded * sizeof(uint16_t), device);
    view.codes = codes.as<int8_t>();
    view.f32 = f32.as<float>();
    view.scales = scales.as<float>();
    view.sums = sums.as<float>();
    view.half = half.as<uint16_t>();
  }
};

class Comparison {
 public:
  Comparison(const char* path, const char* isa, const char* other)
      : checkpoint_(load_checkpoint(path)),
        config_(checkpoint_.config),
        host_(isa),
        other_(other),
        rope_(config_) {
    if (host_.device != nullptr) fail(ErrorKind::usage, "ISA is {}, expected one of the host", isa);
    if (config_.qkv_bias || config_.qk_norm) {
      fail(ErrorKind::usage, "{}: biases and norms of heads are not compared", path);
    }
  }

  void run(const std::vector<int32_t>& ids) {
    const auto T = static_cast<int64_t>(ids.size());
    layout_ = {KvType::bf16, config_.num_layers, config_.num_kv_heads, config_.head_dim};
    page_table_.resize(static_cast<size_t>((T + kPageTokens - 1) / kPageTokens));
    std::iota(page_table_.begin(), page_table_.end(), 0);
    const size_t bytes = page_table_.size() * static_cast<size_t>(layout_.page_bytes());
    host_.pages = Buffer(bytes);
    other_.pages = Buffer(bytes, other_.device.get());
    if (other_.device != nullptr) {
      const auto pages = static_cast<int64_t>(page_table_.size());
      other_.step = other_.device->make_step({T, 1, pages}, config_.num_heads, layout_);
    }
    run_step("prompt", ids.data(), 0, T - 1);
    run_step("token", ids.data() + T - 1, T - 1, 1);
  }

  void print() const {
    for (const std::string& name : order_) {
      std::printf("%-28s %s\n", name.c_str(), differences_.at(name).text().c_str());
    }
  }

 private:
  Difference& difference(const std::string& op) {
    const std::string name = phase_ + " " + op;
    if (!differences_.contains(name)) order_.push_back(name);
    return differences_[name];
  }
  void compare(const std::string& op, const Floats& expected, const Buffer& found) {
    difference(op).add(expected.data(), other_.take<float>(found).data(), std::ssize(expected));
  }
  KvCache cache(Side& side) {
    return {layout_, side.pages.data(), static_cast<int64_t>(page_table_.size())};
  }

  // fill(side, source, activations) on both sides; OTHER's then become ISA's.
  template <typename Fill>
  void make_activations(const std::string& op, const std::string& for_weight, int64_t T, int64_t K,
                        const Floats& source, Fill fill) {
    const Packing packing = checkpoint_.weight(for_weight).encoding.packing;
    const ActType type = find_linear(host_.isa, packing).act_type,
                  other_type = find_linear(other_.isa, packing).act_type;
    act_.emplace(type, T, K, nullptr);
    other_act_.emplace(other_type, T, K, other_.device.get());
    Buffer other_source = other_.give(source);
    fill(host_, source.data(), act_->view);
    fill(other_, other_source.as<float>(), other_act_->view);
    if (type != other_type) return;
    if (type != ActType::f32) {
      const auto codes = other_.take<int8_t>(other_act_->codes);
      difference(op + ", codes").add_codes(act_->view.codes, codes.data(), std::ssize(codes));
      const auto scales = other_.take<float>(other_act_->scales);
      difference(op + ", scales").add(act_->view.scales, scales.data(), std::ssize(scales));
    }
    for (Buffer OwnActivations::*part : {&OwnActivations::codes, &OwnActivations::f32,
                                         &OwnActivations::scales, &OwnActivations::sums}) {
      other_.put((*other_act_).*part, ((*act_).*part).data());
    }
  }

  // y [T, N] (+)= the activations times the stacked matrices.
  void linear(const std::string& op, const std::vector<std::string>& weights, bool accumulate,
              Floats& y) {
    const int64_t N = std::ssize(y) / act_->view.T;
    Buffer other_y = other_.give(y);
    int64_t column = 0;
    for (const std::string& name : weights) {
      const Weight& weight = checkpoint_.weight(name);
      const auto multiply = [&](const Side& side, const Activations& x, float* out) {
        const LinearKernel& kernel = find_linear(side.isa, weight.encoding.packing);
        Arena arena(side.device.get());
        PackedWeight packed = kernel.prepack(side.context(pool_), {weight}, arena);
        packed.kernel = &kernel;
        kernel.run(side.context(pool_), packed, x, out + column, N, accumulate);
        if (side.device != nullptr) side.device->synchronize();
      };
      multiply(host_, act_->view, y.data());
      multiply(other_, other_act_->view, other_y.as<float>());
      column += weight.N;
    }
    compare(op, y, other_y);
  }

  void norm(const std::string& op, const std::string& for_weight, const std::string& gain_name,
            int64_t T, const Floats& x) {
    const int64_t C = config_.width;
    Floats gain = floats(C);
    decode_row(checkpoint_.weight(gain_name), 0, gain.data());
    Buffer other_gain = other_.give(gain);
    make_activations(
        op, for_weight, T, C, x, [&](const Side& side, const float* in, const Activations& out) {
          const float* weight = &side == &other_ ? other_gain.as<float>() : gain.data();
          side.ops.rms_norm(side.context(pool_), in, T, C, weight,
                            static_cast<float>(config_.rms_eps), out);
        });
  }

  Floats attend(const Batch& batch, const Floats& cos_sin, int64_t l, Floats& qkv);
  void run_layer(int64_t l, const Batch& batch, const Floats& cos_sin, Floats& x);
  Floats angles(const Batch& batch);
  void run_step(const char* phase, const int32_t* ids, int64_t context, int64_t T);

  ThreadPool pool_{usable_cpus()};
  Checkpoint checkpoint_;
  const ModelConfig& config_;
  Side host_, other_;
  Rope rope_;
  KvLayout layout_;
  std::vector<int32_t> page_table_;
  std::optional<OwnActivations> act_, other_act_;
  std::string phase_;
  std::map<std::string, Difference> differences_;
  std::vector<std::string> order_;
};

Floats Comparison::angles(const Batch& batch) {
  const int64_t D = config_.head_dim, half = D / 2;
  const float* inv_freq = rope_.inverse_frequencies(0, nullptr);
  Floats cos_sin = floats(batch.T * D);
  for (int64_t t = 0; t < batch.T; ++t) {
    float* row = &cos_sin[static_cast<size_t>(t * D)];
    for (int64_t d = 0; d < half; ++d) {
      const float angle = static_cast<float>(batch.positions[t]) * inv_freq[d];
      row[d] = std::cos(angle);
      row[half + d] = std::sin(angle);
    }
  }
  if (other_.device == nullptr) return cos_sin;
  Buffer frequencies = other_.give(inv_freq, static_cast<size_t>(half) * sizeof(float));
  Buffer other_cos_sin = other_.give(floats(batch.T * D));
  other_.ops.device->cos_sin(other_.context(pool_), batch.T, D, frequencies.as<float>(),
                             other_cos_sin.as<float>());
  compare("angles", cos_sin, other_cos_sin);
  return cos_sin;
}

// RoPE and attention of q, k and v [T, (H + 2G) D]; gives what the queries found.
Floats Comparison::attend(const Batch& batch, const Floats& cos_sin, int64_t l, Floats& qkv) {
  const int64_t H = config_.num_heads, D = config_.head_dim;
  Buffer other_qkv = other_.give(qkv), other_cos_sin = other_.give(cos_sin);
  const Context context = host_.context(pool_), other_context = other_.context(pool_);
  host_.ops.rope_append(context, qkv.data(), {}, batch, H, cos_sin.data(), cache(host_), l);
  other_.ops.rope_append(other_context, other_qkv.as<float>(), {}, batch, H,
                         other_cos_sin.as<float>(), cache(other_), l);
  const Floats rotated = other_.take<float>(other_qkv);
  const auto row = static_cast<size_t>((H + 2 * config_.num_kv_heads) * D);
  for (size_t at = 0; at < qkv.size(); at += row)
    difference("rope, q").add(&qkv[at], &rotated[at], H * D);
  other_.put(other_qkv, qkv.data());
  Floats out = floats(batch.T * H * D),
         scratch = floats(pool_.size() * attention_scratch_floats(H, config_.num_kv_heads, D));
  Buffer other_out = other_.give(out), other_scratch = other_.give(scratch);
  host_.ops.attention(context, qkv.data(), batch, H, cache(host_), l, scratch.data(), out.data());
  other_.ops.attention(other_context, other_qkv.as<float>(), batch, H, cache(other_), l,
                       other_scratch.as<float>(), other_out.as<float>());
  compare("attention", out, other_out);
  return out;
}

void Comparison::run_layer(int64_t l, const Batch& batch, const Floats& cos_sin, Floats& x) {
  const std::string p = fmt::format("model.layers.{}.", l), attn = p + "self_attn.",
                    mlp = p + "mlp.";
  const int64_t T = batch.T, HD = config_.num_heads * config_.head_dim, F = config_.ffn_width;
  norm("norm for qkv", attn + "q_proj.weight", p + "input_layernorm.weight", T, x);
  Floats qkv = floats(T * (HD + 2 * config_.num_kv_heads * config_.head_dim));
  linear("qkv", {attn + "q_proj.weight", attn + "k_proj.weight", attn + "v_proj.weight"}, false,
         qkv);
  const Floats attended = attend(batch, cos_sin, l, qkv);
  make_activations("quantize for o", attn + "o_proj.weight", T, HD, attended,
                   [&](const Side& side, const float* in, const Activations& out) {
                     side.ops.quantize(side.context(pool_), in, HD, out);
                   });
  linear("o", {attn + "o_proj.weight"}, true, x);
  norm("norm for gate_up", mlp + "gate_proj.weight", p + "post_attention_layernorm.weight", T, x);
  Floats gate_up = floats(T * 2 * F);
  linear("gate_up", {mlp + "gate_proj.weight", mlp + "up_proj.weight"}, false, gate_up);
  make_activations("silu for down", mlp + "down_proj.weight", T, F, gate_up,
                   [&](const Side& side, const float* in, const Activations& out) {
                     side.ops.act_mul(side.context(pool_), in, T, F, out);
                   });
  linear("down", {mlp + "down_proj.weight"}, true, x);
}

void Comparison::run_step(const char* phase, const int32_t* ids, int64_t context, int64_t T) {
  phase_ = phase;
  std::vector<int32_t> positions(static_cast<size_t>(T));
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(context));
  Batch batch;
  batch.T = T;
  batch.tokens = ids;
  batch.positions = positions.data();
  batch.sequences.push_back({0, T, context + T, page_table_.data()});
  if (other_.step != nullptr) other_.step->stage(batch, cache(other_), config_.num_heads);
  Floats x = floats(T * config_.width);
  for (int64_t t = 0; t < T; ++t) {
    decode_row(checkpoint_.weight("model.embed_tokens.weight"), ids[t],
               &x[static_cast<size_t>(t * config_.width)]);
  }
  const Floats cos_sin = angles(batch);
  for (int64_t l = 0; l < config_.num_layers; ++l) run_layer(l, batch, cos_sin, x);
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr, "usage: compare_devices MODEL ISA OTHER ID ID...\n");
    return 2;
  }
  try {
    std::vector<int32_t> ids;
    for (int i = 4; i < argc; ++i) {
      int32_t id = -1;
      std::from_chars(argv[i], argv[i] + std::strlen(argv[i]), id);
      ids.push_back(id);
    }
    tandem::Comparison comparison(argv[1], argv[2], argv[3]);
    comparison.run(ids);
    comparison.print();
  } catch (const tandem::Error& error) {
    std::fprintf(stderr, "compare_devices: %s\n", error.what());
    return tandem::exit_code(error.kind);
  }
  return 0;
}
