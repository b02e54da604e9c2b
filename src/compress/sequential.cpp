#include "compress/sequential.h"

#include <algorithm>
#include <span>

#include "base/error.h"
#include "compress/device_forward.h"
#include "compress/device_gptq.h"
#include "compress/layer_forward.h"
#include "compress/layer_shard.h"

namespace tandem {
namespace {

constexpr int64_t kTokensAtATime = 4096, kDeviceTokensAtATime = 16384;

int64_t rows_at_a_time(const CalibrationRows& rows, int64_t tokens) {
  return std::clamp<int64_t>(tokens / rows.length, 1, rows.num());
}

int64_t input_width(const ModelConfig& config, LinearSet set) {
  return width_of(config, linears_of(set)[0]);
}

// The residual stream of all rows, and the layer at hand run over it piece by piece.
class Stream {
 public:
  // In the memory of `work`'s device; null: the host's.
  Stream(const Checkpoint& source, const CalibrationRows& rows, int64_t num_rows, ThreadPool& pool,
         FloatWork* work)
      : config_(source.config),
        length_(rows.length),
        T_(num_rows * rows.length),
        device_(work != nullptr ? &work->device() : nullptr) {
    if (work != nullptr) {
      forward_ = std::make_unique<DeviceForward>(
          config_, rows.length, rows_at_a_time(rows, kDeviceTokensAtATime), pool, *work);
    } else {
      forward_ = std::make_unique<LayerForward>(
          config_, rows.length, std::max<int64_t>(1, kTokensAtATime / rows.length), pool);
    }
    x_ = floats(T_ * config_.width);
    inputs_ = floats(T_ * std::max(input_width(config_, LinearSet::o), config_.ffn_width));
    normed_ = floats(forward_->max_tokens() * config_.width);
    embed(source.weight("model.embed_tokens.weight"), rows, pool);
  }

  int64_t num_tokens() const { return T_; }
  int64_t num_sequences() const { return T_ / length_; }
  int64_t width() const { return config_.width; }
  float* x() { return x_.as<float>(); }

  // Its first tokens, as many as `out` has.
  void copy_to(Matrix* out) const {
    if (device_ != nullptr) {
      device_->download(out->values.data(), x_.data(), out->values.size() * sizeof(float));
    } else {
      std::copy_n(x_.as<float>(), out->values.size(), out->values.data());
    }
  }

  // The inputs of a set, x [T, K] for each piece in order, given that the stream stands before the
  // set's block. Those of o and down stay for add_kept.
  template <typename Visit>
  void visit_inputs(const LayerWeights& weights, int64_t layer, LinearSet set, Visit&& visit) {
    visit_inputs(weights, layer, set, T_, visit);
  }
  // Of the first num_tokens, whole rows.
  template <typename Visit>
  void visit_inputs(const LayerWeights& weights, int64_t layer, LinearSet set, int64_t num_tokens,
                    Visit&& visit) {
    const int64_t C = config_.width, K = input_width(config_, set);
    float* normed = normed_.as<float>();
    if (set == LinearSet::o) forward_->place(weights, LinearSet::qkv);
    if (set == LinearSet::down) forward_->place(weights, LinearSet::gate_up);
    for (int64_t t = 0; t < num_tokens; t += forward_->max_tokens()) {
      const int64_t T = std::min(forward_->max_tokens(), num_tokens - t);
      float* x = x_.as<float>() + t * C;
      const bool is_attention = set == LinearSet::qkv || set == LinearSet::o;
      forward_->norm(x, T, is_attention ? weights.attn_norm : weights.ffn_norm, normed);
      float* kept = inputs_.as<float>() + t * K;
      if (set == LinearSet::o) forward_->attention(weights, layer, normed, T, kept);
      if (set == LinearSet::down) forward_->gate_up(weights, normed, T, kept);
      visit(set == LinearSet::o || set == LinearSet::down ? kept : normed, T);
    }
  }

  // x += linear(kept inputs), for the one of o or down.
  void add_kept(const LayerWeights& weights, LinearSet set) {
    add_kept(weights, set, T_, x_.as<float>());
  }
  // The same of the first num_tokens to `out` [num_tokens, C].
  void add_kept(const LayerWeights& weights, LinearSet set, int64_t num_tokens, float* out) {
    const LinearWork& linear = weights[linears_of(set)[0]];
    const int64_t C = config_.width, K = linear.weight.K;
    forward_->place(weights, set);
    for (int64_t t = 0; t < num_tokens; t += forward_->max_tokens()) {
      const int64_t T = std::min(forward_->max_tokens(), num_tokens - t);
      forward_->add_linear(linear, inputs_.as<float>() + t * K, T, out + t * C);
    }
  }

 private:
  Buffer floats(int64_t n) const {
    return Buffer(static_cast<size_t>(n) * sizeof(float), device_);
  }

  void embed(const Weight& embedding, const CalibrationRows& rows, ThreadPool& pool) {
    const int64_t C = config_.width, most = forward_->max_tokens();
    Buffer staging(device_ != nullptr ? static_cast<size_t>(most * C) * sizeof(float) : 0);
    for (int64_t first = 0; first < T_; first += most) {
      const int64_t count = std::min(most, T_ - first);
      float* x = x_.as<float>() + first * C;
      float* to = device_ != nullptr ? staging.as<float>() : x;
      pool.parallel_for(count, 64, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t) {
          decode_row(embedding, rows.ids[static_cast<size_t>(first + t)], to + t * C);
        }
      });
      if (device_ != nullptr) {
        device_->upload(x, to, static_cast<size_t>(count * C) * sizeof(float));
      }
    }
  }

  const ModelConfig& config_;
  int64_t length_, T_;
  Device* device_;
  std::unique_ptr<Forward> forward_;
  Buffer x_;       // [T, C]
  Buffer inputs_;  // [T, H D] or [T, F]
  Buffer normed_;  // [a piece, C]
};

int64_t search_rows(const CalibrationRows& rows) {
  return rows_at_a_time(rows, LayerSearch::kMaxSearchTokens);
}

// The first rows once more, on the host, for steps that prepare a layer.
class RowSearch : public LayerSearch {
 public:
  RowSearch(const Checkpoint& source, const CalibrationRows& rows, ThreadPool& pool)
      : pool_(pool),
        stream_(source, rows, search_rows(rows), pool, nullptr),
        num_rough_tokens_(rows_at_a_time(rows, kMaxRoughTokens) * rows.length) {}

  // Takes the residual stream before a layer and the weights that the layer came with.
  std::array<InputStatistics, kNumSets> begin_layer(Stream& all, const LayerWeights& weights,
                                                    int64_t layer, bool with_gram) {
    layer_ = layer;
    before_attention_ = Matrix(stream_.num_tokens(), stream_.width());
    all.copy_to(&before_attention_);
    std::ranges::copy(before_attention_.values, stream_.x());
    std::array<InputStatistics, kNumSets> statistics;
    for (const LinearSet set : kLinearSets) {
      StatisticsBuilder builder(weights[linears_of(set)[0]].weight.K, stream_.num_tokens(),
                                stream_.num_sequences(), with_gram, pool_);
      stream_.visit_inputs(weights, layer, set,
                           [&](const float* x, int64_t T) { builder.add(x, T); });
      statistics[static_cast<size_t>(set)] = builder.finish();
      if (set == LinearSet::o) {
        stream_.add_kept(weights, LinearSet::o);
        before_mlp_ = Matrix(stream_.num_tokens(), stream_.width());
        stream_.copy_to(&before_mlp_);
      }
    }
    return statistics;
  }

  int64_t num_tokens() const override { return stream_.num_tokens(); }
  int64_t num_rough_tokens() const override { return num_rough_tokens_; }
  Matrix attention_output(const LayerWeights& weights, int64_t num_tokens) const override {
    return block_output(before_attention_, weights, LinearSet::o, num_tokens);
  }
  Matrix mlp_output(const LayerWeights& weights, int64_t num_tokens) const override {
    return block_output(before_mlp_, weights, LinearSet::down, num_tokens);
  }

 private:
  Matrix block_output(const Matrix& before, const LayerWeights& weights, LinearSet last,
                      int64_t num_tokens) const {
    Matrix output(num_tokens, stream_.width());
    std::copy_n(before.values.data(), output.values.size(), stream_.x());
    stream_.visit_inputs(weights, layer_, last, num_tokens, [](const float*, int64_t) {});
    stream_.add_kept(weights, last, num_tokens, output.values.data());
    return output;
  }

  ThreadPool& pool_;
  mutable Stream stream_;  // its state is what the call at hand makes of it
  const int64_t num_rough_tokens_;
  Matrix before_attention_, before_mlp_;  // [T, C]
  int64_t layer_ = 0;
};

StepNeeds needs_of(const Steps& steps) {
  StepNeeds all;
  for (const auto& step : steps) {
    const StepNeeds needs = step->needs();
    all.inputs |= needs.inputs;
    all.gram |= needs.gram;
    all.layer_inputs |= needs.layer_inputs;
    all.search |= needs.search;
  }
  return all;
}

// Rows that run through all layers: the search's alone where no step asks for more.
int64_t stream_rows(const StepNeeds& needs, const CalibrationRows& rows) {
  return needs.inputs ? rows.num() : search_rows(rows);
}

// Where the sets' grams go, given that there is a device: where all steps that look at inputs want
// them.
GramPlace gram_place(const Steps& steps) {
  if (!needs_of(steps).gram) return GramPlace::none;
  const bool all = std::ranges::all_of(steps, [](const std::unique_ptr<Step>& step) {
    const StepNeeds needs = step->needs();
    return needs.device_gram || !(needs.inputs || needs.gram || needs.layer_inputs || needs.search);
  });
  return all ? GramPlace::device : GramPlace::host;
}

void check_results(const Steps& steps, const ModelConfig& config) {
  for (int64_t l = 0; l < config.num_layers; ++l) {
    for (int i = 0; i < kNumLinears; ++i) {
      const auto linear = static_cast<Linear>(i);
      int found = 0;
      for (const auto& step : steps) found += step->gives_result(l, linear) ? 1 : 0;
      if (found < 2) continue;
      fail(ErrorKind::usage,
           "recipe: {} steps quantize {}, expected at most one: give them different matrices with "
           "'only' or 'skip'",
           found, module_name(l, linear));
    }
  }
}

class Run {
 public:
  // num_finished: layers that an earlier run has left.
  Run(const Checkpoint& source, const Steps& steps, const CalibrationRows* rows,
      int64_t num_finished, ThreadPool& pool, FloatWork* work,
      const std::function<void(const SequentialProgress&)>& progress)
      : source_(source),
        steps_(steps),
        needs_(needs_of(steps)),
        num_finished_(num_finished),
        work_(work),
        gram_place_(gram_place(steps)),
        pool_(pool),
        progress_(progress) {
    if (!needs_inputs(steps)) return;
    CHECK(rows != nullptr && rows->num() > 0, "steps need calibration rows");
    if (work != nullptr) check_memory(*rows);
    stream_ = std::make_unique<Stream>(source, *rows, stream_rows(needs_, *rows), pool, work);
    if (needs_.layer_inputs || needs_.search) {
      search_ = std::make_unique<RowSearch>(source, *rows, pool);
    }
  }

  void compress_layer(int64_t layer, LayerWeights* weights) {
    if (search_ != nullptr) prepare(layer, weights);
    for (const LinearSet set : kLinearSets) {
      report(layer, set);
      InputStatistics inputs;
      if (stream_ != nullptr) inputs = measure(layer, set, *weights);
      SetWork work{source_.config, layer, set, *weights, inputs, pool_, work_};
      for (const auto& step : steps_) step->run_set(work);
      settle(weights, layer, set, pool_);
      add_to_stream(layer, set, *weights);
    }
  }

  // Runs the rows over a layer that an earlier run has finished.
  void pass(int64_t layer, const LayerWeights& weights) {
    if (stream_ == nullptr) return;
    for (const LinearSet set : {LinearSet::o, LinearSet::down}) {
      report(layer, set);
      stream_->visit_inputs(weights, layer, set, [](const float*, int64_t) {});
      add_to_stream(layer, set, weights);
    }
  }

 private:
  void report(int64_t layer, LinearSet set) const {
    if (!progress_) return;
    const int64_t L = source_.config.num_layers;
    const int64_t sets = (layer - num_finished_) * kNumSets + static_cast<int64_t>(set);
    const double share = static_cast<double>(sets) / static_cast<double>((L - num_finished_) * kNumSets);
    progress_({layer, L, set, layer < num_finished_ ? 0.0 : share});
  }

  void check_memory(const CalibrationRows& rows) const {
    const uint64_t wanted = device_calibration_bytes(source_.config, rows);
    const uint64_t free = work_->device().free_bytes();
    if (wanted <= free) return;
    fail(ErrorKind::no_memory,
         "{}: {} rows of {} tokens want {} MiB of its memory, {} MiB are free; take fewer with "
         "--samples",
         work_->device().name(), rows.num(), rows.length, wanted >> 20, free >> 20);
  }

  StatisticsBuilder make_builder(LinearSet set) {
    const int64_t K = input_width(source_.config, set), T = stream_->num_tokens();
    if (work_ == nullptr) return {K, T, stream_->num_sequences(), needs_.gram, pool_};
    return {K, T, stream_->num_sequences(), gram_place_, *work_, pool_};
  }

  void prepare(int64_t layer, LayerWeights* weights) {
    auto inputs = search_->begin_layer(*stream_, *weights, layer, needs_.gram);
    LayerWork work{source_.config, layer, *weights, inputs, search_.get(), pool_};
    for (const auto& step : steps_) step->prepare_layer(work);
  }

  InputStatistics measure(int64_t layer, LinearSet set, const LayerWeights& weights) {
    const bool is_block_end = set == LinearSet::o || set == LinearSet::down;
    if (!needs_.inputs) {  // still, what the block adds to the stream needs them
      if (is_block_end) stream_->visit_inputs(weights, layer, set, [](const float*, int64_t) {});
      return {};
    }
    StatisticsBuilder builder = make_builder(set);
    stream_->visit_inputs(weights, layer, set,
                          [&](const float* x, int64_t T) { builder.add(x, T); });
    return builder.finish();
  }

  void add_to_stream(int64_t layer, LinearSet set, const LayerWeights& weights) {
    if (stream_ == nullptr || (set != LinearSet::o && set != LinearSet::down)) return;
    if (set == LinearSet::down && layer + 1 == source_.config.num_layers) return;
    stream_->add_kept(weights, set);
  }

  const Checkpoint& source_;
  const Steps& steps_;
  const StepNeeds needs_;
  const int64_t num_finished_;
  FloatWork* work_;  // null: the host
  const GramPlace gram_place_;
  ThreadPool& pool_;
  const std::function<void(const SequentialProgress&)>& progress_;
  std::unique_ptr<Stream> stream_;     // null: no step needs inputs
  std::unique_ptr<RowSearch> search_;  // null: no step prepares layers
};

}  // namespace

bool needs_inputs(const Steps& steps) {
  const StepNeeds needs = needs_of(steps);
  return needs.inputs || needs.gram || needs.layer_inputs || needs.search;
}

std::filesystem::path layer_file(const std::filesystem::path& folder, int64_t layer) {
  return folder / fmt::format("layer-{}.safetensors", layer);
}

uint64_t calibration_bytes(const ModelConfig& config, const CalibrationRows& rows) {
  const int64_t width = std::max(config.num_heads * config.head_dim, config.ffn_width);
  return rows.ids.size() * sizeof(float) * static_cast<uint64_t>(config.width + width);
}

uint64_t calibration_bytes(const ModelConfig& config, const Steps& steps,
                           const CalibrationRows& rows) {
  const StepNeeds needs = needs_of(steps);
  const auto part = [&](int64_t num_rows) { return static_cast<uint64_t>(num_rows * rows.length); };
  const uint64_t each = calibration_bytes(config, rows) / rows.ids.size();
  uint64_t bytes = part(stream_rows(needs, rows)) * each;
  // The search has a stream of its own, and what stood before either block.
  const uint64_t before = 2 * static_cast<uint64_t>(config.width) * sizeof(float);
  if (needs.layer_inputs || needs.search) bytes += part(search_rows(rows)) * (each + before);
  return bytes;
}

uint64_t device_calibration_bytes(const ModelConfig& config, const CalibrationRows& rows) {
  const int64_t at_a_time = rows_at_a_time(rows, kDeviceTokensAtATime);
  uint64_t matrix = 0;
  for (int i = 0; i < kNumLinears; ++i) {
    const auto linear = static_cast<Linear>(i);
    const int64_t K = width_of(config, linear);
    const int64_t N = std::max({config.num_heads * config.head_dim, config.ffn_width, config.width});
    matrix = std::max(matrix, device_gptq_bytes(K == config.ffn_width ? config.width : N, K));
  }
  return calibration_bytes(config, rows) +
         static_cast<uint64_t>(at_a_time * rows.length * config.width) * sizeof(float) +
         DeviceForward::device_bytes(config, rows.length, at_a_time) + matrix;
}

void compress_layers(const Checkpoint& source, const Steps& steps, const CalibrationRows* rows,
                     const std::filesystem::path& folder, ThreadPool& pool,
                     const std::function<void(const SequentialProgress&)>& progress,
                     const std::function<void(int64_t layer, const LayerWeights&)>& finished,
                     FloatWork* device) {
  check_results(steps, source.config);
  // Layers are finished in order.
  int64_t num_finished = 0;
  while (std::filesystem::exists(layer_file(folder, num_finished))) ++num_finished;
  Run run(source, steps, rows, num_finished, pool, device, progress);
  LayerWeights weights;  // of one layer after the other, in the same memory
  for (int64_t l = 0; l < source.config.num_layers; ++l) {
    const std::filesystem::path file = layer_file(folder, l);
    if (l < num_finished) {
      weights = load_saved_layer(file, pool);
      run.pass(l, weights);
    } else {
      load_layer(source, l, pool, &weights);
      run.compress_layer(l, &weights);
      save_layer(file, weights);
      source.release_pages();
    }
    finished(l, weights);
  }
}

}  // namespace tandem
