#include "compress/layer_shard.h"

#include <cstring>
#include <span>

#include "base/error.h"
#include "compress/rtn.h"
#include "formats/safetensors.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr const char* kNames[kNumLinears] = {"q", "k", "v", "o", "gate", "up", "down"};

class ShardWriter {
 public:
  template <typename T>
  void add(const std::string& name, const char* dtype, std::vector<int64_t> shape,
           const std::vector<T>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    sources_.push_back({name, dtype, std::move(shape), bytes.size(),
                        [bytes](const ByteSink& sink) { sink(bytes); }});
  }
  // Floats that are bf16 numbers already.
  void add_bf16(const std::string& name, std::vector<int64_t> shape,
                const std::vector<float>& values) {
    const auto size = static_cast<int64_t>(values.size());
    sources_.push_back({name, "BF16", std::move(shape), values.size() * 2,
                        [&values, size](const ByteSink& sink) {
                          std::vector<std::byte> bytes(values.size() * 2);
                          store_row_bf16(values.data(), size, bytes.data());
                          sink(bytes);
                        }});
  }
  void add_vector(const std::string& name, const std::vector<float>& values) {
    if (!values.empty()) add_bf16(name, {static_cast<int64_t>(values.size())}, values);
  }
  // Values that no one else keeps.
  void add_numbers(const std::string& name, std::vector<int32_t> values) {
    const auto size = static_cast<int64_t>(values.size());
    sources_.push_back({name, "I32", {size}, values.size() * 4,
                        [values = std::move(values)](const ByteSink& sink) {
                          sink(std::as_bytes(std::span(values)));
                        }});
  }
  void write(const std::filesystem::path& file) const { write_safetensors(file, sources_); }

 private:
  std::vector<TensorSource> sources_;
};

void add_linear(ShardWriter& writer, const std::string& name, const LinearWork& linear) {
  const int64_t N = linear.weight.N, K = linear.weight.K;
  writer.add_vector(name + ".bias", linear.bias);
  if (!linear.keep.empty()) writer.add(name + ".keep", "U8", {N, K}, linear.keep);
  if (linear.input_scale != 0) {
    int32_t bits = 0;
    std::memcpy(&bits, &linear.input_scale, sizeof bits);
    writer.add_numbers(name + ".input_scale", {bits});
  }
  if (const auto* grid = std::get_if<GridMatrix>(&linear.result)) {
    writer.add_numbers(name + ".grid",
                       {grid->grid.bits, static_cast<int32_t>(grid->grid.group),
                        grid->grid.symmetric, static_cast<int32_t>(grid->grid.scale_type)});
    writer.add(name + ".codes", "U8", {N, K}, grid->codes);
    writer.add(name + ".scales", "F32", {N, grid->groups()}, grid->scales);
    writer.add(name + ".zeros", "U8", {N, grid->groups()}, grid->zeros);
    if (!grid->columns.empty()) writer.add(name + ".columns", "I32", {K}, grid->columns);
  } else if (const auto* encoded = std::get_if<EncodedMatrix>(&linear.result)) {
    writer.add_numbers(name + ".encoding",
                       {static_cast<int32_t>(encoded->encoding.packing),
                        static_cast<int32_t>(encoded->encoding.scale_type),
                        static_cast<int32_t>(encoded->encoding.group), static_cast<int32_t>(N),
                        static_cast<int32_t>(K), static_cast<int32_t>(encoded->scale_rows)});
    writer.add(name + ".data", "U8", {static_cast<int64_t>(encoded->data.size())}, encoded->data);
    writer.add(name + ".data_scales", "U8", {static_cast<int64_t>(encoded->scales.size())},
               encoded->scales);
  } else {
    writer.add_bf16(name + ".weight", {N, K}, linear.weight.values);
  }
}

class ShardReader {
 public:
  explicit ShardReader(const std::filesystem::path& file)
      : file_(file), tensors_(parse_safetensors(file_.bytes(), file.string())) {
    for (const SafetensorsEntry& entry : tensors_.tensors) entries_[entry.name] = &entry;
  }

  bool has(const std::string& name) const { return entries_.contains(name); }
  const SafetensorsEntry& entry(const std::string& name) const {
    const auto it = entries_.find(name);
    if (it == entries_.end()) {
      fail(ErrorKind::bad_file, "{}: tensor {} is missing", file_.path().string(), quote(name));
    }
    return *it->second;
  }
  // Empty when there is none.
  template <typename T>
  std::vector<T> values(const std::string& name) const {
    if (!has(name)) return {};
    const auto bytes = entry(name).bytes;
    std::vector<T> out(bytes.size() / sizeof(T));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
    return out;
  }
  std::vector<float> floats(const std::string& name) const {
    const std::vector<uint16_t> stored = values<uint16_t>(name);
    std::vector<float> out(stored.size());
    for (size_t i = 0; i < out.size(); ++i) out[i] = bf16_to_float(stored[i]);
    return out;
  }
  // The same into what has their number already; copied by all threads.
  void copy_bytes(const std::string& name, ThreadPool& pool, std::vector<uint8_t>* out) const {
    const auto bytes = entry(name).bytes;
    if (bytes.size() != out->size()) {
      fail(ErrorKind::bad_file, "{}: tensor {} has {} bytes, expected {}", file_.path().string(),
           quote(name), bytes.size(), out->size());
    }
    const auto size = static_cast<int64_t>(bytes.size());
    pool.parallel_for(size, 1 << 20, [&](int64_t begin, int64_t end, int) {
      std::memcpy(out->data() + begin, bytes.data() + begin, static_cast<size_t>(end - begin));
    });
  }
  // Exactly `count` numbers.
  std::vector<int32_t> numbers(const std::string& name, size_t count) const {
    std::vector<int32_t> out = values<int32_t>(name);
    if (out.size() != count) {
      fail(ErrorKind::bad_file, "{}: tensor {} has {} numbers, expected {}",
           file_.path().string(), quote(name), out.size(), count);
    }
    return out;
  }

 private:
  MappedFile file_;
  SafetensorsFile tensors_;
  std::map<std::string, const SafetensorsEntry*> entries_;
};

GridMatrix read_grid(const ShardReader& reader, const std::string& name, ThreadPool& pool,
                     bool with_codes) {
  const std::vector<int32_t> numbers = reader.numbers(name + ".grid", 4);
  const std::vector<int64_t>& shape = reader.entry(name + ".codes").shape;
  GridMatrix grid({numbers[0], numbers[1], numbers[2] != 0, static_cast<ScaleType>(numbers[3])},
                  shape.at(0), shape.at(1));
  if (with_codes) {
    reader.copy_bytes(name + ".codes", pool, &grid.codes);
  } else {
    grid.codes = {};
  }
  grid.scales = reader.values<float>(name + ".scales");
  grid.zeros = reader.values<uint8_t>(name + ".zeros");
  grid.columns = reader.values<int32_t>(name + ".columns");
  return grid;
}

EncodedMatrix read_encoded(const ShardReader& reader, const std::string& name) {
  const std::vector<int32_t> numbers = reader.numbers(name + ".encoding", 6);
  return {{static_cast<Packing>(numbers[0]), static_cast<ScaleType>(numbers[1]), numbers[2]},
          numbers[3],
          numbers[4],
          reader.values<std::byte>(name + ".data"),
          reader.values<std::byte>(name + ".data_scales"),
          numbers[5]};
}

// Its floats become what its result decodes to.
void decode_result(LinearWork* linear, ThreadPool& pool) {
  pool.parallel_for(linear->weight.N, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n) {
      if (const auto* grid = std::get_if<GridMatrix>(&linear->result)) {
        decode_row(*grid, n, linear->weight.row(n));
      } else {
        decode_row(std::get<EncodedMatrix>(linear->result).weight(), n, linear->weight.row(n));
      }
    }
  });
}

void read_linear(const ShardReader& reader, const std::string& name, ThreadPool& pool,
                 SavedParts parts, LinearWork* linear) {
  linear->bias = reader.floats(name + ".bias");
  linear->keep = reader.values<uint8_t>(name + ".keep");
  if (reader.has(name + ".input_scale")) {
    const std::vector<int32_t> bits = reader.numbers(name + ".input_scale", 1);
    std::memcpy(&linear->input_scale, bits.data(), sizeof linear->input_scale);
  }
  if (reader.has(name + ".grid")) {
    GridMatrix grid = read_grid(reader, name, pool, parts != SavedParts::fits);
    if (parts == SavedParts::decoded) linear->weight = Matrix(grid.N, grid.K);
    linear->result = std::move(grid);
  } else if (reader.has(name + ".encoding")) {
    EncodedMatrix encoded = read_encoded(reader, name);
    if (parts == SavedParts::decoded) linear->weight = Matrix(encoded.N, encoded.K);
    linear->result = std::move(encoded);
  } else {
    const std::vector<int64_t>& shape = reader.entry(name + ".weight").shape;
    linear->weight.N = shape.at(0);
    linear->weight.K = shape.at(1);
    linear->weight.values = reader.floats(name + ".weight");
    return;
  }
  if (parts == SavedParts::decoded) decode_result(linear, pool);
}

void round_to_bf16(std::vector<float>& values, const std::string& name) {
  if (round_row_to_bf16(values.data(), static_cast<int64_t>(values.size()))) return;
  fail(ErrorKind::bad_file, "{}: a weight became NaN or infinite in bf16", name);
}

}  // namespace

void save_layer(const std::filesystem::path& file, const LayerWeights& weights) {
  ShardWriter writer;
  for (int i = 0; i < kNumLinears; ++i) {
    add_linear(writer, kNames[i], weights.linears[static_cast<size_t>(i)]);
  }
  writer.add_vector("attn_norm", weights.attn_norm);
  writer.add_vector("ffn_norm", weights.ffn_norm);
  writer.add_vector("q_norm", weights.q_norm);
  writer.add_vector("k_norm", weights.k_norm);
  writer.write(file);
}

LayerWeights load_saved_layer(const std::filesystem::path& file, ThreadPool& pool,
                              SavedParts parts) {
  const ShardReader reader(file);
  LayerWeights weights;
  for (int i = 0; i < kNumLinears; ++i) {
    read_linear(reader, kNames[i], pool, parts, &weights.linears[static_cast<size_t>(i)]);
  }
  weights.attn_norm = reader.floats("attn_norm");
  weights.ffn_norm = reader.floats("ffn_norm");
  weights.q_norm = reader.floats("q_norm");
  weights.k_norm = reader.floats("k_norm");
  return weights;
}

void settle(LayerWeights* weights, int64_t layer, LinearSet set, ThreadPool& pool) {
  for (const Linear linear : linears_of(set)) {
    LinearWork& work = (*weights)[linear];
    const std::string name = module_name(layer, linear);
    round_to_bf16(work.bias, name + ".bias");
    if (!work.has_result()) {
      round_to_bf16(work.weight.values, name + ".weight");
      continue;
    }
    decode_result(&work, pool);
  }
  if (set == LinearSet::qkv) {
    round_to_bf16(weights->attn_norm, fmt::format("model.layers.{}.input_layernorm", layer));
    round_to_bf16(weights->q_norm, fmt::format("model.layers.{}.self_attn.q_norm", layer));
    round_to_bf16(weights->k_norm, fmt::format("model.layers.{}.self_attn.k_norm", layer));
  }
  if (set == LinearSet::gate_up) {
    round_to_bf16(weights->ffn_norm,
                  fmt::format("model.layers.{}.post_attention_layernorm", layer));
  }
}

}  // namespace tandem
