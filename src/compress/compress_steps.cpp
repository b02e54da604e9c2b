#include "compress/compress_steps.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/version.h"
#include "compress/encoded_files.h"
#include "compress/grid_files.h"
#include "compress/layer_shard.h"
#include "compress/manifest.h"
#include "compress/methods.h"
#include "compress/row_stream.h"
#include "compress/rtn.h"
#include "compress/sparse_files.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

GridLayout layout_of(const StepRecipe& recipe) {
  return recipe.format == "gptq"      ? GridLayout::gptq
         : recipe.format == "gptq_v2" ? GridLayout::gptq_v2
         : recipe.format == "awq"     ? GridLayout::awq
         : recipe.activations != "none" ? GridLayout::int_quantized
                                      : GridLayout::pack_quantized;
}

// What is known of a module before its tensors are written.
struct Module {
  int64_t layer = 0;
  Linear linear = Linear::q;
  std::optional<GridShape> grid = {};  // what its result is; neither: bf16
  std::optional<EncodedShape> encoded = {};
  float input_scale = 0;                // of static inputs; 0: none
  std::optional<Encoding> sparse = {};  // of a matrix that is written as 2:4

  bool has_result() const { return grid || encoded; }
};

using Modules = std::map<std::string, Module>;

std::string manifest_json(const Checkpoint& source, const StepRecipe& recipe,
                          const CalibrationRows* rows, FloatWork* work) {
  Json manifest = {{"source", source.path.string()},
                   {"source_format", source.format},
                   {"source_hash", checkpoint_hash(source)},
                   {"recipe", recipe.name},
                   {"recipe_text", recipe.text}};
  if (rows != nullptr) {
    manifest["calibration"] = {{"source", rows->source},   {"source_hash", rows->source_hash},
                               {"rows", rows->num()},      {"length", rows->length},
                               {"seed", rows->seed},       {"rows_hash", rows->hash}};
  }
  if (work != nullptr) manifest["device"] = work->device().description();
  manifest["version"] = version();
  manifest["commit"] = commit();
  return dump_json(manifest, 2) + "\n";
}

// The folder of finished layers, and the words that say whose they are.
class PartialFolder {
 public:
  PartialFolder(const fs::path& out_dir, const std::string& manifest) {
    path_ = out_dir.lexically_normal();
    if (!path_.has_filename()) path_ = path_.parent_path();
    path_ += ".partial";
    const fs::path owner = path_ / "compression.json";
    std::error_code error;
    if (fs::exists(owner, error)) {
      if (read_text_file(owner, 1 << 24) == manifest) return;
      fail(ErrorKind::usage,
           "{}: holds the finished layers of another source, recipe or calibration (see {}): remove "
           "it, or give another -o",
           path_.string(), owner.string());
    }
    fs::create_directories(path_, error);
    if (error) {
      fail(ErrorKind::system, "{}: cannot create the folder: {}", path_.string(), error.message());
    }
    write_file_atomic(owner, manifest);
  }

  // A compression that ended before its first layer leaves nothing.
  ~PartialFolder() {
    std::error_code ignored;
    if (!fs::exists(layer_file(path_, 0), ignored)) fs::remove_all(path_, ignored);
  }
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  const fs::path& path() const { return path_; }
  void remove() const {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

 private:
  fs::path path_;
};

// The layer that the tensors at hand come from. They are written in the order of their types, and
// within one type layer by layer.
class SavedLayers {
 public:
  SavedLayers(fs::path folder, ThreadPool& pool) : folder_(std::move(folder)), pool_(pool) {}

  const LayerWeights& layer(int64_t l, SavedParts parts = SavedParts::fits) {
    if (l != current_ || (parts == SavedParts::results && parts != parts_)) {
      weights_ = {};
      weights_ = load_saved_layer(layer_file(folder_, l), pool_, parts);
      current_ = l;
      parts_ = parts;
    }
    return weights_;
  }

 private:
  fs::path folder_;
  ThreadPool& pool_;
  int64_t current_ = -1;
  SavedParts parts_ = SavedParts::fits;
  LayerWeights weights_;
};

TensorSource bf16_source(const NamedTensor& tensor, const Checkpoint& source, RowStream& stream) {
  const int64_t N = tensor.weight.N, K = tensor.weight.K;
  const std::vector<int64_t> shape = N == 1 ? std::vector{K} : std::vector{N, K};
  const size_t row_bytes = kBF16.row_bytes(K);
  return {tensor.name, "BF16", shape, static_cast<uint64_t>(N) * row_bytes,
          [&tensor, &source, &stream, row_bytes](const ByteSink& sink) {
            const Weight& w = source.weight(tensor.name);
            stream.write(tensor.name, w.N, w.K, row_bytes, "bf16",
                         [&](int64_t n, float* row, std::byte* out) {
                           decode_row(w, n, row);
                           if (!round_row_to_bf16(row, w.K)) return false;
                           store_row_bf16(row, w.K, out);
                           return true;
                         },
                         sink);
          }};
}

// Numbers of a saved layer, which are bf16 already.
TensorSource saved_source(const NamedTensor& tensor,
                          std::function<const std::vector<float>&()> values) {
  const int64_t N = tensor.weight.N, K = tensor.weight.K;
  const std::vector<int64_t> shape = N == 1 ? std::vector{K} : std::vector{N, K};
  return {tensor.name, "BF16", shape, static_cast<uint64_t>(N * K) * 2,
          [N, K, values = std::move(values)](const ByteSink& sink) {
            std::vector<std::byte> bytes(static_cast<size_t>(N * K) * 2);
            store_row_bf16(values().data(), N * K, bytes.data());
            sink(bytes);
          }};
}

// The scale is a number of bf16 already.
TensorSource input_scale_source(const std::string& module, float scale) {
  return {module + ".input_scale", "BF16", {1}, 2, [scale](const ByteSink& sink) {
            std::array<std::byte, 2> bytes;
            store_row_bf16(&scale, 1, bytes.data());
            sink(bytes);
          }};
}

// "model.layers.3.input_layernorm.weight" -> 3, "input_layernorm.weight"; none for other tensors.
std::optional<std::pair<int64_t, std::string>> layer_part(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const size_t dot = name.find('.', kPrefix.size());
  return std::pair{static_cast<int64_t>(std::stoll(name.substr(kPrefix.size(), dot))),
                   name.substr(dot + 1)};
}

class Assembly {
 public:
  Assembly(const Checkpoint& source, const StepRecipe& recipe, const Modules& modules,
           const fs::path& folder, ThreadPool& pool)
      : source_(source),
        recipe_(recipe),
        modules_(modules),
        layers_(folder, pool),
        pool_(pool),
        stream_(source, pool, progress_) {}

  std::vector<TensorSource> tensors(CompressResult* result) {
    std::vector<TensorSource> all;
    for (const NamedTensor& tensor : source_.tensors) {
      const size_t first = all.size();
      const auto module = modules_.find(tensor.name.substr(0, tensor.name.rfind('.')));
      const bool is_matrix = module != modules_.end() && tensor.name.ends_with(".weight");
      if (is_matrix) {
        add_matrix(tensor, module->first, module->second, &all);
      } else if (const auto part = layer_part(tensor.name)) {
        all.push_back(saved_source(tensor, vector_of(part->first, part->second)));
      } else {
        all.push_back(bf16_source(tensor, source_, stream_));
      }
      const auto elements = static_cast<uint64_t>(tensor.weight.N * tensor.weight.K);
      uint64_t bytes = 0;
      for (size_t i = first; i < all.size(); ++i) bytes += all[i].size_bytes;
      result->source_bytes += tensor.weight.total_bytes();
      result->output_bytes += bytes;
      result->num_weights += elements;
      result->num_layer_weights += is_matrix ? elements : 0;
      result->layer_output_bytes += is_matrix ? bytes : 0;
    }
    stream_.set_total_bytes(result->output_bytes);
    return all;
  }

 private:
  void add_matrix(const NamedTensor& tensor, const std::string& name, const Module& module,
                  std::vector<TensorSource>* all) {
    if (module.sparse) {
      const auto work = [this, module]() -> const LinearWork& {
        return layers_.layer(module.layer)[module.linear];
      };
      for (TensorSource& made : sparse_tensors(name, *module.sparse, tensor.weight.N,
                                               tensor.weight.K, work)) {
        all->push_back(std::move(made));
      }
      return;
    }
    if (!module.has_result()) {
      all->push_back(saved_source(tensor, [this, module]() -> const std::vector<float>& {
        return layers_.layer(module.layer)[module.linear].weight.values;
      }));
      return;
    }
    // Valid until another layer is asked for: while its tensor is written.
    const auto make = [this, module](bool with_codes) {
      const LayerWeights& layer =
          layers_.layer(module.layer, with_codes ? SavedParts::results : SavedParts::fits);
      const auto* grid = &std::get<GridMatrix>(layer[module.linear].result);
      return std::shared_ptr<const GridMatrix>(std::shared_ptr<void>(), grid);
    };
    const auto make_encoded = [this, module] {
      return std::get<EncodedMatrix>(
          layers_.layer(module.layer, SavedParts::results)[module.linear].result);
    };
    for (TensorSource& made :
         module.grid ? grid_tensors(layout_of(recipe_), name, *module.grid, make, pool_)
                     : encoded_tensors(name, *module.encoded, make_encoded)) {
      all->push_back(std::move(made));
    }
    if (module.input_scale != 0) all->push_back(input_scale_source(name, module.input_scale));
  }

  std::function<const std::vector<float>&()> vector_of(int64_t layer, const std::string& part) {
    return [this, layer, part]() -> const std::vector<float>& {
      const LayerWeights& weights = layers_.layer(layer);
      if (part == "input_layernorm.weight") return weights.attn_norm;
      if (part == "post_attention_layernorm.weight") return weights.ffn_norm;
      if (part == "self_attn.q_norm.weight") return weights.q_norm;
      if (part == "self_attn.k_norm.weight") return weights.k_norm;
      for (int i = 0; i < kNumLinears; ++i) {
        const auto linear = static_cast<Linear>(i);
        if (module_name(layer, linear).ends_with(part.substr(0, part.rfind('.')))) {
          return weights[linear].bias;
        }
      }
      CHECK(false, "layer {} has no {}", layer, part);
    };
  }

  const Checkpoint& source_;
  const StepRecipe& recipe_;
  const Modules& modules_;
  SavedLayers layers_;
  ThreadPool& pool_;
  const Progress progress_;
  RowStream stream_;
};

std::vector<GridGroup> grid_groups(const Modules& modules) {
  std::vector<GridGroup> groups;
  for (const auto& [name, module] : modules) {
    if (!module.grid) continue;
    const auto same = [&](const GridGroup& group) {
      return group.grid == module.grid->grid && group.act_order == module.grid->act_order;
    };
    auto group = std::ranges::find_if(groups, same);
    if (group == groups.end()) {
      group = groups.insert(groups.end(), {module.grid->grid, module.grid->act_order, {}});
    }
    group->modules.push_back(name);
  }
  return groups;
}

// Modules that are encoded alike; the shape is that of the first.
struct EncodedGroup {
  EncodedShape shape;
  std::vector<std::string> modules;
};

std::vector<EncodedGroup> encoded_groups(const Modules& modules) {
  std::vector<EncodedGroup> groups;
  for (const auto& [name, module] : modules) {
    if (!module.encoded) continue;
    const EncodedShape& shape = *module.encoded;
    auto group = std::ranges::find_if(groups, [&](const EncodedGroup& each) {
      return each.shape.encoding == shape.encoding &&
             each.shape.is_one_scale() == shape.is_one_scale();
    });
    if (group == groups.end()) group = groups.insert(groups.end(), {shape, {}});
    group->modules.push_back(name);
  }
  return groups;
}

// Throws usage for what the format cannot hold, of the layers done so far.
void check_format(const StepRecipe& recipe, const Modules& modules) {
  for (const auto& [name, module] : modules) {
    if (module.grid) check_layout(layout_of(recipe), name, *module.grid);
  }
  const std::vector<GridGroup> groups = grid_groups(modules);
  if (groups.size() < 2 || recipe.is_compressed_tensors()) return;
  fail(ErrorKind::usage,
       "{}: format {} holds one number of bits, one group and one order, found {} and {} in groups of "
       "{} and {} ({}, {}): choose compressed-tensors",
       recipe.name, recipe.format, groups[0].grid.bits, groups[1].grid.bits, groups[0].grid.group,
       groups[1].grid.group, groups[0].modules[0], groups[1].modules[0]);
}

// compressed-tensors' words for inputs of 8-bit integers; null where they stay floats.
Json inputs_json(const StepRecipe& recipe) {
  if (recipe.activations == "none") return nullptr;
  const bool dynamic = recipe.activations == "dynamic";
  return {{"num_bits", 8},     {"type", "int"},         {"symmetric", true},
          {"dynamic", dynamic}, {"group_size", nullptr}, {"strategy", dynamic ? "token" : "tensor"}};
}

std::string config_json(const StepRecipe& recipe, const Modules& modules) {
  std::vector<GridGroup> groups = grid_groups(modules);
  const std::vector<EncodedGroup> encoded = encoded_groups(modules);
  if (groups.empty() && encoded.empty() && !recipe.is_sparse()) return {};
  std::vector<std::string> ignored = {"lm_head"}, dense = {"lm_head"};
  for (const auto& [name, module] : modules) {
    if (!module.has_result()) ignored.push_back(name);
    if (!module.sparse) dense.push_back(name);
  }
  const bool is_one = groups.size() + encoded.size() == 1;
  if (is_one && !groups.empty()) groups[0].modules.clear();
  if (!recipe.is_compressed_tensors()) {
    return grid_config_json(layout_of(recipe), groups, ignored);
  }
  std::vector<Json> schemes;
  for (const GridGroup& group : groups) {
    schemes.push_back(grid_scheme_json(layout_of(recipe), group));
    schemes.back()["input_activations"] = inputs_json(recipe);
  }
  for (const EncodedGroup& group : encoded) {
    schemes.push_back(encoded_scheme_json(
        group.shape, recipe.activations,
        is_one ? std::vector<std::string>{"Linear"} : group.modules));
  }
  if (!recipe.is_sparse()) return compressed_tensors_json(schemes, ignored);
  Json config = {{"quant_method", "compressed-tensors"}};
  if (!schemes.empty()) config = parse_json(compressed_tensors_json(schemes, ignored), "config");
  config["sparsity_config"] = sparsity_config_json(dense);
  return dump_json(config, 2);
}

void check_output(const Checkpoint& source, const fs::path& out_dir) {
  std::error_code error;
  if (fs::equivalent(source.path, out_dir, error)) {
    fail(ErrorKind::usage, "{}: is the source model, expected another folder", out_dir.string());
  }
  if (fs::exists(out_dir, error) && !(fs::is_directory(out_dir, error) && fs::is_empty(out_dir, error))) {
    fail(ErrorKind::usage, "{}: exists and is not empty", out_dir.string());
  }
}

Modules modules_of(const Checkpoint& source) {
  Modules modules;
  for (int64_t l = 0; l < source.config.num_layers; ++l) {
    for (int i = 0; i < kNumLinears; ++i) {
      const auto linear = static_cast<Linear>(i);
      modules[module_name(l, linear)] = {l, linear, {}, {}, 0};
    }
  }
  return modules;
}

// Throws usage where the folder cannot hold what the step makes.
void check_fp8(const StepRecipe& recipe, const StepSpec& spec) {
  if (!recipe.is_compressed_tensors()) {
    fail(ErrorKind::usage, "{}: fp8 in format {}, expected compressed-tensors", spec.options.where,
         recipe.format);
  }
  std::vector<const OptionTable*> tables = {&spec.options};
  for (const StepOverride& each : spec.overrides) tables.push_back(&each.options);
  for (const OptionTable* table : tables) {
    const auto scales = table->values.find("scales");
    if (scales == table->values.end() || recipe.activations == "dynamic" ||
        scales->second.value != std::variant<bool, int64_t, double, std::string>("block")) {
      continue;
    }
    fail(ErrorKind::usage, "{}: fp8 with scales \"block\" meets activations \"dynamic\", found {}",
         scales->second.where, quote(recipe.activations));
  }
}

// What a layer's results are, for the files.
void note_results(int64_t layer, const LayerWeights& weights, Modules* modules) {
  for (int i = 0; i < kNumLinears; ++i) {
    const auto linear = static_cast<Linear>(i);
    const LinearWork& work = weights[linear];
    Module& module = (*modules)[module_name(layer, linear)];
    if (const auto* grid = std::get_if<GridMatrix>(&work.result)) {
      module.grid = GridShape{grid->grid, grid->N, grid->K, !grid->columns.empty()};
    } else if (const auto* encoded = std::get_if<EncodedMatrix>(&work.result)) {
      module.encoded = EncodedShape{encoded->encoding, encoded->N, encoded->K, encoded->scale_rows};
    }
    if (work.has_result()) module.input_scale = work.input_scale;
  }
}

// The same for a folder of 2:4. Throws usage for what has no such form.
void note_sparse(const StepRecipe& recipe, int64_t layer, const LayerWeights& weights,
                 Modules* modules) {
  for (int i = 0; i < kNumLinears; ++i) {
    const auto linear = static_cast<Linear>(i);
    const LinearWork& work = weights[linear];
    if (!work.has_result() && work.keep.empty()) continue;
    const std::string name = module_name(layer, linear);
    Module& module = (*modules)[name];
    module.sparse = sparse_encoding(name, work, recipe.activations != "none");
    if (module.encoded) module.encoded->scale_rows = 1;  // one a row is written
  }
}

}  // namespace

Steps make_steps(const StepRecipe& recipe, const ModelConfig& config) {
  Steps steps;
  for (const StepSpec& spec : recipe.steps) {
    steps.push_back(make_step(spec, config));
    if (spec.method == "fp8") check_fp8(recipe, spec);
  }
  if (recipe.is_sparse() && recipe.activations == "static") {
    fail(ErrorKind::usage, "recipe {}: activations static in format {}, expected dynamic or none",
         recipe.name, recipe.format);
  }
  if (recipe.activations != "none" && !recipe.is_compressed_tensors()) {
    fail(ErrorKind::usage, "recipe {}: activations {} in format {}, expected compressed-tensors",
         recipe.name, recipe.activations, recipe.format);
  }
  if (recipe.activations == "static") {
    StepSpec inputs;
    inputs.method = "static-inputs";
    steps.push_back(make_step(inputs, config));
  }
  return steps;
}

CompressResult compress_by_steps(const Checkpoint& source, const StepRecipe& recipe,
                                 const CalibrationRows* rows, const fs::path& out_dir,
                                 ThreadPool& pool,
                                 const std::function<void(const SequentialProgress&)>& progress,
                                 const Judge& judge, FloatWork* device) {
  check_output(source, out_dir);
  check_not_compressed(source);
  const Steps steps = make_steps(recipe, source.config);
  const std::string manifest = manifest_json(source, recipe, rows, device);
  const PartialFolder partial(out_dir, manifest);
  Modules modules = modules_of(source);
  compress_layers(source, steps, rows, partial.path(), pool, progress,
                  [&](int64_t layer, const LayerWeights& weights) {
                    note_results(layer, weights, &modules);
                    if (recipe.is_sparse()) note_sparse(recipe, layer, weights, &modules);
                    check_format(recipe, modules);
                  },
                  device);
  CompressResult result;
  Assembly assembly(source, recipe, modules, partial.path(), pool);
  const std::vector<TensorSource> tensors = assembly.tensors(&result);
  const bool from_folder = fs::is_directory(source.path);
  const auto finish = [&](const fs::path& staged) {
    write_folder_manifest(staged, finish_manifest(source, parse_json(manifest, "manifest"), staged,
                                                  pool, judge, &result));
  };
  try {
    write_hf_folder(out_dir, source.config, source.tokenizer, tensors,
                    config_json(recipe, modules), "", from_folder ? source.path : fs::path(),
                    finish);
  } catch (const Error& error) {
    // The same layers would be refused again.
    if (error.kind == ErrorKind::quality_gate) partial.remove();
    throw;
  }
  partial.remove();
  if (rows != nullptr && !rows->note.empty()) result.notes.push_back(rows->note);
  return result;
}

}  // namespace tandem
