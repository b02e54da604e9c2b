// Checkpoint: what every model file becomes. A config, named tensors in Hugging Face's names and a
// tokenizer's tables, all validated: whatever reads a Checkpoint need not check it again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "formats/model_config.h"
#include "formats/repacked.h"
#include "formats/tokenizer_spec.h"
#include "tensor/buffer.h"
#include "tensor/weight.h"

namespace tandem {

// A tensor of a model file. Vectors (norms, biases) have N = 1.
struct NamedTensor {
  std::string name;  // Hugging Face's: "model.layers.0.self_attn.q_proj.weight"
  Weight weight;
};

struct Checkpoint {
  std::filesystem::path path;  // the file or folder as the user named it
  std::string format;          // "GGUF v3", "Hugging Face folder"
  ModelConfig config;
  TokenizerSpec tokenizer;
  std::vector<NamedTensor> tensors;  // in file order
  uint64_t file_bytes = 0;           // all weight files together
  // Key -> printable value: the file's own metadata or the manifest of a compression (for
  // `inspect`).
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<std::string> warnings;  // things found and tolerated, one line each

  // The files behind the tensors; weights point into them.
  std::vector<std::shared_ptr<MappedFile>> files;
  // Made by random_checkpoint: every number is finite, and matrices may lie in a device's memory.
  bool is_random = false;
  // The memory behind tensors that come from no file.
  std::vector<std::shared_ptr<const Buffer>> memory;
  // The planes of weights that their file keeps in another order.
  RepackedPlanes repacked;
  // Vectors that the reader had to put in another order; their weights point here.
  std::vector<std::shared_ptr<const std::vector<float>>> reordered;

  // nullptr when there is none. The bytes of repacked planes are there only after weight().
  const NamedTensor* find(std::string_view name) const;
  // With its bytes, until release_pages(). Throws bad_file naming the tensor when there is none.
  const Weight& weight(std::string_view name) const;
  // The same with the threads of a pool, where there are bytes to be made.
  const Weight& weight(std::string_view name, ThreadPool& pool) const;
  // Mapped pages and repacked planes are no longer needed (after prepack).
  void release_pages() const;
  // Rebuilds the index behind find(); a reader calls it once, after the last tensor.
  void index_tensors();

 private:
  std::map<std::string, size_t, std::less<>> index_;
};

// Reads a GGUF file or a Hugging Face folder. Throws bad_file (what, found, expected).
Checkpoint load_checkpoint(const std::filesystem::path& path);

// A tensor to be written: bytes are produced piece by piece by `write`, in total `size_bytes`.
struct TensorSource {
  std::string name;
  std::string dtype;  // safetensors' names: "BF16", "I8", "I32", "F32", "I64"
  std::vector<int64_t> shape;
  uint64_t size_bytes = 0;
  std::function<void(const ByteSink&)> write;
};

// Writes DIR/{model.safetensors, config.json, tokenizer.json, tokenizer_config.json,
// generation_config.json} so that transformers loads it; quantization_config and manifest may be
// null. The tokenizer's files and generation_config.json are copied from `source_dir`, a Hugging
// Face folder with this tokenizer, or made from `tokenizer` where that is empty. DIR appears
// complete or not at all (built beside it, then renamed). Throws usage when DIR exists and is not
// empty or the tokenizer cannot be said in these files, system when it cannot be written.
void write_hf_folder(const std::filesystem::path& dir, const ModelConfig& config,
                     const TokenizerSpec& tokenizer, const std::vector<TensorSource>& tensors,
                     const std::string& quantization_config_json, const std::string& manifest_json,
                     const std::filesystem::path& source_dir = {});

// XXH3-128 of the weight file, for Records; of several, the hash of their hashes in their order.
std::string checkpoint_hash(const Checkpoint& checkpoint);

}  // namespace tandem
