// The forward step: the decoder as a page of ops. Only what every model and every request needs.
#include <algorithm>

#include "base/error.h"
#include "model/workspace.h"

namespace tandem {
namespace {

// y[T, group.N] = x . W^T; parts lie side by side. make_x(x) makes the input in x's type, order of
// channels and scale: once, unless parts want their own.
template <typename MakeX>
void linear(const Context& context, const LinearGroup& group, Activations x, MakeX make_x, float* y,
            bool accumulate = false) {
  int64_t column = 0;
  for (const PackedWeight& part : group.parts) {
    if (column == 0 || part.columns != x.columns || part.input_scale != x.static_scale) {
      x.columns = part.columns;
      x.static_scale = part.input_scale;
      make_x(x);
    }
    part.kernel->run(context, part, x, y + column, group.N, accumulate);
    column += part.N;
  }
}

// y[T, N] += bias[N]; nothing when it is null.
void add_bias(const Context& context, const OpSet& ops, const float* bias, int64_t T, int64_t N,
              float* y) {
  if (bias == nullptr) return;
  if (ops.device != nullptr) return ops.device->add_bias(context, bias, T, N, y);
  context.pool->parallel_for(T, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t n = 0; n < N; ++n) y[t * N + n] += bias[n];
    }
  });
}

}  // namespace

void Model::begin_step(const Context& context, const Batch& batch, Workspace& ws) const {
  const int64_t T = batch.T, C = config_.width;
  float* x = ws.x.as<float>();
  float* cos_sin = ws.cos_sin.as<float>();
  const PackedWeight& embedding = embedding_.parts.front();
  if (device_ != nullptr) {
    embedding.kernel->gather_rows(context, embedding, ws.step->tokens(), T, x);
    if (config_.rope_scaling == RopeScaling::dynamic) {
      ops_->device->dynamic_cos_sin(context, T, config_.head_dim, rope_.dynamic(), cos_sin);
    } else {
      ops_->device->cos_sin(context, T, config_.head_dim, inv_freq_, cos_sin);
    }
    return;
  }
  for (int64_t t = 0; t < T; ++t) embedding.kernel->decode_row(embedding, batch.tokens[t], x + t * C);
  fill_cos_sin(context, batch, rope_, ws.inv_freq.as<float>(), cos_sin);
}

void Model::run_step(const Context& context, const Batch& batch, const KvCache& cache, Workspace& ws) const {
  const int64_t T = batch.T, C = config_.width, H = config_.num_heads, D = config_.head_dim;
  const int64_t F = config_.ffn_width, V = config_.vocab_size;
  const int64_t num_logits = static_cast<int64_t>(batch.logit_rows.size());
  const float eps = static_cast<float>(config_.rms_eps);
  float* x = ws.x.as<float>();
  float* qkv = ws.qkv.as<float>();
  float* attended = ws.attended.as<float>();
  float* gate_up = ws.gate_up.as<float>();
  float* cos_sin = ws.cos_sin.as<float>();

  begin_step(context, batch, ws);
  for (int64_t l = 0; l < config_.num_layers; ++l) {
    const Layer& layer = layers_[static_cast<size_t>(l)];
    const HeadTransform transform{layer.qkv_bias, layer.q_norm, layer.k_norm, eps};
    KvCache layer_cache = cache;
    layer_cache.layout.window = layer.window;

    const auto attn_input = [&](const Activations& act) {
      ops_->rms_norm(context, x, T, C, layer.attn_norm, eps, act);
    };
    linear(context, layer.qkv, ws.activations(layer.qkv.act_type(), T, C), attn_input, qkv);
    const auto o_input = [&](const Activations& act) {  // once: o is one matrix
      if (ops_->attend != nullptr) {
        ops_->attend(context, qkv, transform, batch, H, cos_sin, layer_cache, l, attended, act);
        return;
      }
      ops_->rope_append(context, qkv, transform, batch, H, cos_sin, layer_cache, l);
      ops_->attention(context, qkv, batch, H, layer_cache, l, ws.scratch.as<float>(), attended);
      ops_->quantize(context, attended, H * D, act);
    };
    linear(context, layer.o, ws.activations(layer.o.act_type(), T, H * D), o_input, x, /*accumulate=*/true);
    add_bias(context, *ops_, layer.o_bias, T, C, x);

    const auto ffn_input = [&](const Activations& act) {
      ops_->rms_norm(context, x, T, C, layer.ffn_norm, eps, act);
    };
    linear(context, layer.gate_up, ws.activations(layer.gate_up.act_type(), T, C), ffn_input, gate_up);
    add_bias(context, *ops_, layer.gate_up_bias, T, 2 * F, gate_up);
    const auto down_input = [&](const Activations& act) { ops_->act_mul(context, gate_up, T, F, act); };
    linear(context, layer.down, ws.activations(layer.down.act_type(), T, F), down_input, x, /*accumulate=*/true);
    add_bias(context, *ops_, layer.down_bias, T, C, x);
  }
  if (num_logits == 0) return;

  float* last = ws.last.as<float>();
  if (device_ != nullptr) {
    ops_->device->select_rows(context, x, C, num_logits, last);
  } else {
    for (int64_t i = 0; i < num_logits; ++i) std::copy_n(x + batch.logit_rows[i] * C, C, last + i * C);
  }
  const LinearGroup& lm_head = lm_head_.parts.empty() ? embedding_ : lm_head_;
  const auto last_input = [&](const Activations& act) {
    ops_->rms_norm(context, last, num_logits, C, final_norm_, eps, act);
  };
  CHECK(lm_head.N == V, "lm_head {} vocabulary {}", lm_head.N, V);
  linear(context, lm_head, ws.activations(lm_head.act_type(), num_logits, C), last_input, ws.logits.as<float>());
  if (device_ != nullptr) {
    ops_->device->argmax(context, ws.logits.as<float>(), num_logits, V, ws.greedy.as<int32_t>());
  }
}

void Model::forward(const Batch& batch, const KvCache& cache, Workspace& ws) const {
  const int64_t num_logits = static_cast<int64_t>(batch.logit_rows.size());
  CHECK(batch.T > 0 && batch.T <= ws.max_tokens && num_logits <= ws.max_logits, "T {} of {}, logits {} of {}",
        batch.T, ws.max_tokens, num_logits, ws.max_logits);
  const Context context{&pool_, device_.get(), ws.step.get()};
  if (device_ == nullptr) {
    run_step(context, batch, cache, ws);
    return;
  }
  ws.step->stage(batch, cache, config_.num_heads);
  device_->run(*ws.step, [&] { run_step(context, batch, cache, ws); });
}

const float* Model::logits(Workspace& ws, int64_t num_logits) const {
  if (device_ == nullptr || num_logits == 0) return ws.logits.as<float>();
  float* host = ws.host_logits.as<float>();
  device_->download(host, ws.logits.data(), static_cast<size_t>(num_logits * config_.vocab_size) * sizeof(float));
  return host;
}

std::span<const int32_t> Model::greedy_tokens(Workspace& ws, int64_t num_logits) const {
  CHECK(device_ != nullptr, "isa {}", isa_);
  int32_t* host = ws.host_greedy.as<int32_t>();
  device_->download(host, ws.greedy.data(), static_cast<size_t>(num_logits) * sizeof(int32_t));
  return {host, static_cast<size_t>(num_logits)};
}

void Model::finish_step() const {
  if (device_ != nullptr) device_->synchronize();
}

}  // namespace tandem
