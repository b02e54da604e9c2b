#include "formats/checkpoint.h"

#include "base/error.h"
#include "base/hash.h"
#include "base/thread_pool.h"
#include "formats/gguf.h"
#include "formats/hf_folder.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

// PyTorch's pickles run code when read: they are refused by name, unread.
void refuse_pickle(const fs::path& path) {
  for (const char* extension : {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}) {
    if (path.extension() != extension) continue;
    fail(ErrorKind::bad_file,
         "{}: a {} file is usually a pickle, which can run code and is never read: "
         "save the model with save_pretrained(..., safe_serialization=True) or convert it to GGUF",
         path.string(), extension);
  }
}

Checkpoint load_folder(const fs::path& dir) {
  if (fs::exists(dir / "config.json")) return read_hf_folder(dir);
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.path().extension() == ".gguf") {
      fail(ErrorKind::bad_file,
           "{}: a folder without config.json; name the GGUF file in it, such as {}", dir.string(),
           quote(entry.path().filename().string()));
    }
  }
  fail(ErrorKind::bad_file,
       "{}: a folder without config.json, expected a Hugging Face folder or a GGUF "
       "file",
       dir.string());
}

}  // namespace

const NamedTensor* Checkpoint::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors[it->second];
}

const Weight& Checkpoint::weight(std::string_view name) const {
  ThreadPool alone(1);
  return weight(name, alone);
}

const Weight& Checkpoint::weight(std::string_view name, ThreadPool& pool) const {
  const NamedTensor* tensor = find(name);
  if (tensor == nullptr) {
    fail(ErrorKind::bad_file, "{}: tensor {} is missing", path.string(), quote(name));
  }
  if (Repacked* planes = find_planes(repacked, tensor->weight)) planes->ensure(pool);
  return tensor->weight;
}

void Checkpoint::release_pages() const {
  for (const auto& file : files) file->release_pages();
  for (const auto& [address, planes] : repacked) {
    if (planes.use_count() == 1) planes->release();  // else a model reads them still, through its own copy
  }
}

void Checkpoint::index_tensors() {
  index_.clear();
  for (size_t i = 0; i < tensors.size(); ++i) index_.emplace(tensors[i].name, i);
}

Checkpoint load_checkpoint(const fs::path& path) try {
  std::error_code error;
  if (fs::is_directory(path, error)) return load_folder(path);
  refuse_pickle(path);
  if (path.extension() == ".safetensors" && fs::exists(path, error)) {
    fail(ErrorKind::bad_file, "{}: holds weights without a config: name the folder it is in",
         path.string());
  }
  return read_gguf(path);
} catch (const fs::filesystem_error& error) {  // a folder not to be read, a circle of links
  fail(ErrorKind::bad_file, "{}: {}", error.path1().string(), error.code().message());
}

std::string checkpoint_hash(const Checkpoint& checkpoint) {
  if (checkpoint.is_random) {  // its matrices are views of a few sheets
    std::string parts;
    for (const auto& part : checkpoint.memory) {
      parts += hash_hex({part->data(), part->size_bytes()});
    }
    for (const NamedTensor& tensor : checkpoint.tensors) {
      parts += fmt::format("{} {} {} ", tensor.name, tensor.weight.N, tensor.weight.K);
    }
    return hash_hex(parts);
  }
  CHECK(!checkpoint.files.empty(), "no files");
  if (checkpoint.files.size() == 1) return hash_hex(checkpoint.files.front()->bytes());
  std::string hashes;
  for (const auto& file : checkpoint.files) hashes += hash_hex(file->bytes());
  return hash_hex(std::as_bytes(std::span(hashes)));
}

}  // namespace tandem
