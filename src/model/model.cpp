#include "model/model.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <map>

#include "base/cpu.h"
#include "base/error.h"
#include "model/workspace.h"
#include "tensor/finite.h"
#include "tensor/sparse.h"

namespace tandem {
namespace {

std::vector<float> load_vector(const Checkpoint& checkpoint, const std::string& name) {
  const Weight& weight = checkpoint.weight(name);
  std::vector<float> values(static_cast<size_t>(weight.K));
  decode_row(weight, 0, values.data());
  return values;
}

// One NaN would make every logit NaN, far from the tensor that holds it. Done just before a matrix
// is packed, when its bytes are read anyway.
void check_finite(const Checkpoint& checkpoint, ThreadPool& pool, const std::string& name) {
  const Weight& weight = checkpoint.weight(name);
  std::atomic<int64_t> bad_row{-1};
  pool.parallel_for(weight.N, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      if (!row_is_finite(weight, n)) bad_row.store(n, std::memory_order_relaxed);
    }
  });
  if (bad_row >= 0) {
    fail(ErrorKind::bad_file,
         "{}: tensor {}: row {} holds a weight or a scale that is NaN or infinite",
         checkpoint.path.string(), quote(name), bad_row.load());
  }
}

// Tensor cores take the places of 2:4 weights on trust.
void check_places(const Checkpoint& checkpoint, ThreadPool& pool, const std::string& name) {
  const Weight& weight = checkpoint.weight(name);
  if (!weight.encoding.is_sparse()) return;
  std::atomic<int64_t> bad_row{-1};
  pool.parallel_for(weight.N, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      if (first_bad_places(weight, n) >= 0) bad_row.store(n, std::memory_order_relaxed);
    }
  });
  if (bad_row < 0) return;
  const int64_t group = first_bad_places(weight, bad_row);
  if (weight.mask != nullptr) {
    fail(ErrorKind::bad_file,
         "{}: tensor {}: its 2:4 mask keeps another number than two of the four elements from {} of row {}",
         checkpoint.path.string(), quote(name), 4 * group, bad_row.load());
  }
  const int places = RowPlaces(weight, bad_row).of(group);
  fail(ErrorKind::bad_file,
       "{}: tensor {}: 2:4 indices out of range: row {} keeps {} and {} of the four elements from {}; expected two "
       "different ones in ascending order",
       checkpoint.path.string(), quote(name), bad_row.load(), places & 3, places >> 2, 4 * group);
}

// Whether one packed matrix can hold both.
bool packs_with(const Weight& a, const Weight& b) {
  return a.encoding == b.encoding && same_columns(a, b) && a.input_scale == b.input_scale &&
         (a.table == b.table || std::equal(a.table, a.table + 16, b.table));
}

// Packs the named matrices; neighbours of one encoding become one part, so that one kernel call runs them.
LinearGroup pack(const Checkpoint& checkpoint, const Context& context, std::string_view isa, Arena& arena,
                 const std::vector<std::string>& names, bool require_sparse) {
  LinearGroup group;
  for (const std::string& name : names) checkpoint.weight(name, *context.pool);  // makes bytes that are to be made
  for (size_t i = 0; i < names.size();) {
    std::vector<Weight> parts;
    const Weight& first = checkpoint.weight(names[i]);
    const Encoding encoding = first.encoding;
    for (; i < names.size() && packs_with(checkpoint.weight(names[i]), first); ++i) {
      if (!checkpoint.is_random) {
        check_finite(checkpoint, *context.pool, names[i]);
        check_places(checkpoint, *context.pool, names[i]);
      }
      parts.push_back(checkpoint.weight(names[i]));
    }
    const LinearKernel& kernel = find_linear(isa, encoding.packing);
    if (require_sparse && encoding.is_sparse() && !kernel.skips_zeros) {
      fail(ErrorKind::no_device, "{}: {} is {} and would run dense: kernel {} skips no zeros, and --require-sparse asks for it",
           checkpoint.path.string(), names[i - 1], encoding.name(), kernel.name);
    }
    const bool is_ref = isa == "ref";  // it reads the file itself
    std::vector<Buffer> behind;        // places moved behind the values of masked 2:4 weights
    for (Weight& part : parts) {
      if (part.mask == nullptr || is_ref) continue;
      behind.emplace_back(static_cast<size_t>(part.N) * encoding.row_bytes(part.K));
      part = with_places(part, behind.back().data());
    }
    PackedWeight packed = kernel.prepack(context, parts, arena);
    packed.kernel = &kernel;
    packed.input_scale = first.input_scale;
    packed.sparse_only = require_sparse;
    if (!group.parts.empty() && kernel.act_type != group.act_type()) {
      fail(ErrorKind::bad_file, "{}: {} is {}, but its neighbours want {} activations",
           checkpoint.path.string(), names[i - 1], encoding.name(), act_type_name(group.act_type()));
    }
    group.N += packed.N;
    group.parts.push_back(std::move(packed));
  }
  return group;
}

void check_has_sparse(const Checkpoint& checkpoint) {
  for (const auto& [name, weight] : checkpoint.tensors) {
    if (weight.encoding.is_sparse()) return;
  }
  fail(ErrorKind::usage, "--require-sparse: {} has no 2:4 weights", checkpoint.path.string());
}

// What the kernels of cuda/attention.cu and the step on a device leave out.
void check_runs_on_cuda(const Checkpoint& checkpoint, const DeviceOps& ops) {
  const ModelConfig& config = checkpoint.config;
  if (config.head_dim != 64 && config.head_dim != 128) {
    fail(ErrorKind::no_device, "{}: heads of {}; the CUDA kernels run heads of 64 and 128", checkpoint.path.string(),
         config.head_dim);
  }
  if (config.num_heads / config.num_kv_heads > 16) {
    fail(ErrorKind::no_device, "{}: {} query heads share a kv head; the CUDA kernels run at most 16",
         checkpoint.path.string(), config.num_heads / config.num_kv_heads);
  }
  if ((config.o_bias || config.mlp_bias) && ops.add_bias == nullptr) {
    fail(ErrorKind::no_device, "{}: biases of o and of the feed-forward do not run on this GPU", checkpoint.path.string());
  }
  if (config.rope_scaling == RopeScaling::dynamic && ops.dynamic_cos_sin == nullptr) {
    fail(ErrorKind::no_device, "{}: RoPE scaling 'dynamic' does not run on this GPU", checkpoint.path.string());
  }
}

// Before anything is loaded: a model that its GPU cannot hold.
void check_fits(const Checkpoint& checkpoint, const Device& device) {
  uint64_t needed = 0;
  for (const NamedTensor& tensor : checkpoint.tensors) needed += tensor.weight.total_bytes();
  const uint64_t free = device.free_bytes();
  if (needed <= free) return;
  fail(ErrorKind::no_memory, "{}: its weights are {} bytes, {} has {} free",
       checkpoint.path.string(), needed, device.name(), free);
}

uint64_t resident_bytes(const LinearGroup& group) {
  uint64_t sum = 0;
  for (const PackedWeight& part : group.parts) {
    sum += part.data != nullptr ? part.data_bytes : part.read_bytes;
  }
  return sum;
}

uint64_t read_bytes(const LinearGroup& group) {
  uint64_t sum = 0;
  for (const PackedWeight& part : group.parts) sum += part.read_bytes;
  return sum;
}

}  // namespace

Model::Model(const Checkpoint& checkpoint, ThreadPool& pool, std::string_view isa, bool require_sparse)
    : config_(checkpoint.config),
      pool_(pool),
      isa_(isa),
      device_(names_device(isa) ? open_device(isa) : nullptr),
      arena_(device_.get()),
      rope_(checkpoint.config) {
  if (device_ == nullptr) require_isa(isa);
  const std::string_view kernels = device_ != nullptr ? device_->isa() : isa;
  ops_ = &find_ops(kernels);
  if (device_ != nullptr) {
    check_runs_on_cuda(checkpoint, *ops_->device);
    check_fits(checkpoint, *device_);
  }
  if (require_sparse) check_has_sparse(checkpoint);
  const auto pack_group = [&](const std::vector<std::string>& names) {
    LinearGroup group = pack(checkpoint, {&pool, device_.get()}, kernels, arena_, names, require_sparse);
    weight_bytes_ += resident_bytes(group);
    return group;
  };
  const auto keep = [&](std::span<const float> values) {
    float* kept = reinterpret_cast<float*>(arena_.take(values.size_bytes()));
    if (device_ != nullptr) {
      device_->upload(kept, values.data(), values.size_bytes());
    } else {
      std::copy(values.begin(), values.end(), kept);
    }
    return kept;
  };
  const auto pack_vectors = [&](const std::vector<std::string>& names) {
    std::vector<float> values;
    for (const std::string& name : names) {
      const auto more = load_vector(checkpoint, name);
      values.insert(values.end(), more.begin(), more.end());
    }
    weight_bytes_ += values.size() * sizeof(float);
    step_read_bytes_ += values.size() * sizeof(float);
    return keep(values);
  };

  embedding_ = pack_group({"model.embed_tokens.weight"});
  if (!config_.tied_embedding) lm_head_ = pack_group({"lm_head.weight"});
  step_read_bytes_ += read_bytes(config_.tied_embedding ? embedding_ : lm_head_);
  final_norm_ = pack_vectors({"model.norm.weight"});
  if (device_ != nullptr) inv_freq_ = keep({rope_.inverse_frequencies(0, nullptr), static_cast<size_t>(rope_.half())});
  for (int64_t l = 0; l < config_.num_layers; ++l) {
    const std::string p = fmt::format("model.layers.{}.", l);
    Layer layer;
    layer.attn_norm = pack_vectors({p + "input_layernorm.weight"});
    layer.qkv = pack_group({p + "self_attn.q_proj.weight", p + "self_attn.k_proj.weight",
                            p + "self_attn.v_proj.weight"});
    layer.window = config_.window(l);
    if (config_.qkv_bias) {
      layer.qkv_bias = pack_vectors({p + "self_attn.q_proj.bias", p + "self_attn.k_proj.bias",
                                     p + "self_attn.v_proj.bias"});
    }
    if (config_.o_bias) layer.o_bias = pack_vectors({p + "self_attn.o_proj.bias"});
    if (config_.mlp_bias) {
      layer.gate_up_bias = pack_vectors({p + "mlp.gate_proj.bias", p + "mlp.up_proj.bias"});
      layer.down_bias = pack_vectors({p + "mlp.down_proj.bias"});
    }
    if (config_.qk_norm) {
      layer.q_norm = pack_vectors({p + "self_attn.q_norm.weight"});
      layer.k_norm = pack_vectors({p + "self_attn.k_norm.weight"});
    }
    layer.o = pack_group({p + "self_attn.o_proj.weight"});
    layer.ffn_norm = pack_vectors({p + "post_attention_layernorm.weight"});
    layer.gate_up = pack_group({p + "mlp.gate_proj.weight", p + "mlp.up_proj.weight"});
    layer.down = pack_group({p + "mlp.down_proj.weight"});
    for (const LinearGroup* group : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
      step_read_bytes_ += read_bytes(*group);
    }
    layers_.push_back(std::move(layer));
    // A prepacked copy replaces the file's pages, so that loading peaks near the size of one of the two.
    if (isa != "ref") checkpoint.release_pages();
  }
  if (isa == "ref") source_ = std::make_shared<const Checkpoint>(checkpoint);
}

std::vector<std::string> Model::kernels_in_use() const {
  std::map<std::string, int> counts;
  const auto count = [&](const LinearGroup& group) {
    for (const PackedWeight& part : group.parts) ++counts[part.kernel->name];
  };
  count(embedding_);
  count(lm_head_);
  for (const Layer& layer : layers_) {
    for (const LinearGroup* group : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) count(*group);
  }
  std::vector<std::string> lines;
  for (const auto& [name, n] : counts) lines.push_back(fmt::format("{} x{}", name, n));
  return lines;
}

std::vector<KernelUse> Model::kernel_uses() const {
  std::vector<KernelUse> uses;
  const auto add = [&](std::string_view layers, const LinearGroup& group) {
    for (const PackedWeight& part : group.parts) {
      const auto same = [&](const KernelUse& use) {
        return use.layers == layers && use.kernel == part.kernel && use.encoding == part.encoding &&
               use.N == part.N && use.K == part.K;
      };
      const auto it = std::find_if(uses.begin(), uses.end(), same);
      if (it != uses.end()) {
        ++it->count;
      } else {
        uses.push_back({layers, part.kernel, part.encoding, part.N, part.K, 1, part.read_bytes});
      }
    }
  };
  add("embedding", embedding_);
  for (const Layer& layer : layers_) {
    add("qkv", layer.qkv);
    add("o", layer.o);
    add("gate_up", layer.gate_up);
    add("down", layer.down);
  }
  add("output", lm_head_.parts.empty() ? embedding_ : lm_head_);
  return uses;
}

KvLayout Model::kv_layout(KvType type) const {
  std::vector<const char*> runs;
  bool is_run = false;
  for (const KvType each : ops_->kv_types) {
    runs.push_back(kv_type_name(each));
    is_run = is_run || each == type;
  }
  if (!is_run) {
    fail(ErrorKind::no_device, "{} runs a KV cache of {}; found {}, which ref and cuda run", isa_,
         fmt::join(runs, ", "), kv_type_name(type));
  }
  return {type, config_.num_layers, config_.num_kv_heads, config_.head_dim};
}

bool Model::has_outliers() const {
  const auto uses = kernel_uses();
  return std::ranges::any_of(uses, [](const KernelUse& use) { return use.kernel->act_type == ActType::int8_outlier; });
}

Model::WorkspacePtr Model::make_workspace(int64_t max_tokens, int64_t max_logits, int64_t max_pages) const {
  const int64_t C = config_.width, H = config_.num_heads, G = config_.num_kv_heads, D = config_.head_dim;
  const int64_t F = config_.ffn_width, V = config_.vocab_size;
  const int64_t rows = std::max(max_tokens, max_logits);
  const int64_t max_K = (std::max({C, H * D, F}) + kActBlock - 1) / kActBlock * kActBlock;
  const auto floats = [&](int64_t n) { return Buffer(static_cast<size_t>(n) * sizeof(float), device_.get()); };
  WorkspacePtr ws(new Workspace);
  ws->max_tokens = max_tokens;
  ws->max_logits = max_logits;
  ws->x = floats(max_tokens * C);
  ws->qkv = floats(max_tokens * (H + 2 * G) * D);
  ws->attended = floats(max_tokens * H * D);
  ws->gate_up = floats(max_tokens * 2 * F);
  ws->cos_sin = floats(max_tokens * D);
  ws->last = floats(max_logits * C);
  ws->logits = floats(max_logits * V);
  const int64_t planes = has_outliers() ? 3 : 1;
  ws->act_codes = Buffer(static_cast<size_t>(rows * planes * max_K), device_.get());
  ws->act_scales = floats(rows * std::max<int64_t>(max_K / kActBlock, 2));
  ws->act_sums = floats(rows * max_K / kActBlock);
  if (device_ == nullptr) {
    ws->inv_freq = floats(D / 2);
    ws->scratch = floats(pool_.size() * attention_scratch_floats(H, G, D));
    ws->act_f32 = floats(rows * max_K);
    return ws;
  }
  ws->act_half = Buffer(static_cast<size_t>(rows * max_K) * sizeof(uint16_t), device_.get());
  ws->greedy = Buffer(static_cast<size_t>(max_logits) * sizeof(int32_t), device_.get());
  ws->host_logits = Buffer(static_cast<size_t>(max_logits * V) * sizeof(float), &device_->pinned_memory());
  ws->host_greedy = Buffer(static_cast<size_t>(max_logits) * sizeof(int32_t), &device_->pinned_memory());
  ws->step = device_->make_step({max_tokens, max_logits, max_pages}, H, kv_layout(KvType::bf16));
  return ws;
}

void Model::WorkspaceDeleter::operator()(Workspace* workspace) const { delete workspace; }

uint64_t Model::workspace_bytes(const Workspace& ws) {
  uint64_t sum = 0;
  for (const Buffer* buffer :
       {&ws.x, &ws.qkv, &ws.attended, &ws.gate_up, &ws.cos_sin, &ws.inv_freq, &ws.scratch, &ws.last, &ws.logits,
        &ws.act_f32, &ws.act_codes, &ws.act_scales, &ws.act_sums, &ws.act_half, &ws.greedy}) {
    sum += buffer->size_bytes();
  }
  return sum + (ws.step != nullptr ? ws.step->size_bytes() : 0);
}

}  // namespace tandem
