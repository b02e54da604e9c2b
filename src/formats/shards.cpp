#include "formats/shards.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "formats/validate.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxIndexBytes = 64 << 20;
constexpr size_t kMaxShards = 4096;
constexpr size_t kMaxNameBytes = 255;

bool lies_in(const fs::path& file, const fs::path& folder) {
  const auto [end, ignored] =
      std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
  return end == folder.end();
}

void check_basename(const std::string& name, std::string_view tensor, const std::string& where) {
  const bool plain =
      !name.empty() && name.size() <= kMaxNameBytes && name.front() != '.' &&
      name.ends_with(".safetensors") && std::all_of(name.begin(), name.end(), [](char c) {
        return static_cast<unsigned char>(c) > 0x20 && c != 0x7F && c != '/' && c != '\\';
      });
  if (!plain) {
    fail(ErrorKind::bad_file,
         "{}: tensor {} lies in {}, expected the plain name of a .safetensors file in the folder",
         where, quote(tensor), quote(name, 100));
  }
}

// Tensor -> shard.
std::map<std::string, std::string> read_index(const fs::path& path, uint64_t* total_bytes) {
  const std::string where = path.string();
  const SortedJson json = parse_sorted_json(read_text_file(path, kMaxIndexBytes), where);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object() || map->empty()) {
    fail(ErrorKind::bad_file, "{}: 'weight_map' is missing, empty or not an object", where);
  }
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string()) {
      fail(ErrorKind::bad_file, "{}: the file of tensor {} is not text", where, quote(tensor));
    }
    check_basename(shard.get_ref<const std::string&>(), tensor, where);
    shards.emplace(tensor, shard.get<std::string>());
  }
  const auto metadata = json.find("metadata");
  if (metadata != json.end() && metadata->is_object()) {
    const auto total = metadata->find("total_size");
    if (total != metadata->end() && total->is_number_unsigned()) *total_bytes = *total;
  }
  return shards;
}

void add_file(const fs::path& path, FolderWeights* out) {
  out->files.push_back(std::make_shared<MappedFile>(path));
  out->file_bytes += out->files.back()->bytes().size();
}

FolderWeights open_shards(const fs::path& dir, const fs::path& index_path) {
  FolderWeights out;
  out.where = index_path.string();
  uint64_t stated_bytes = 0, found_bytes = 0;
  const auto index = read_index(index_path, &stated_bytes);
  std::map<std::string, fs::path> shards;  // by name
  for (const auto& [tensor, shard] : index) shards.emplace(shard, fs::path());
  if (shards.size() > kMaxShards) {
    fail(ErrorKind::bad_file, "{}: {} files, at most {} are read", out.where, shards.size(),
         kMaxShards);
  }
  for (auto& [name, path] : shards)
    path = resolve_weight_file(dir, name);  // all, before any is opened
  for (const auto& [name, path] : shards) add_file(path, &out);
  check_fits(out.where, out.file_bytes);

  size_t num_found = 0, file = 0;
  for (const auto& [name, path] : shards) {
    const std::string shard = (dir / name).string();
    for (auto& entry : parse_safetensors(out.files[file++]->bytes(), shard).tensors) {
      const auto it = index.find(entry.name);
      if (it == index.end() || it->second != name) {
        fail(ErrorKind::bad_file, "{}: holds tensor {}, which the index {}", shard,
             quote(entry.name), it == index.end() ? "does not name" : "puts into " + it->second);
      }
      ++num_found;
      found_bytes += entry.bytes.size();
      out.tensors.tensors.push_back(std::move(entry));
    }
  }
  if (num_found != index.size()) {
    std::map<std::string_view, bool> found;
    for (const auto& entry : out.tensors.tensors) found[entry.name] = true;
    for (const auto& [tensor, shard] : index) {
      if (found.contains(tensor)) continue;
      fail(ErrorKind::bad_file, "{}: tensor {} is not in {}", out.where, quote(tensor), shard);
    }
  }
  if (stated_bytes != 0 && stated_bytes != found_bytes) {
    out.warnings.push_back(fmt::format("{}: 'total_size' is {}, the tensors have {} bytes",
                                       index_path.filename().string(), stated_bytes, found_bytes));
  }
  return out;
}

}  // namespace

fs::path resolve_weight_file(const fs::path& dir, const std::string& name) {
  std::error_code error;
  const fs::path folder = fs::canonical(dir, error);
  const fs::path file = error ? fs::path() : fs::canonical(dir / name, error);
  if (error) {
    fail(ErrorKind::bad_file, "{}: cannot be read: {}", (dir / name).string(), error.message());
  }
  // The cache keeps models--ORG--NAME/snapshots/REVISION/FILE as links into
  // models--ORG--NAME/blobs.
  const fs::path root = folder.parent_path().parent_path();
  const bool is_snapshot = folder.parent_path().filename() == "snapshots" &&
                           root.filename().string().starts_with("models--");
  if (!lies_in(file, folder) && !(is_snapshot && lies_in(file, root / "blobs"))) {
    fail(ErrorKind::bad_file, "{}: is a link to {}, expected a file inside the model's folder",
         (dir / name).string(), quote(file.string(), 400));
  }
  return file;
}

FolderWeights open_folder_weights(const fs::path& dir) {
  const fs::path single = dir / "model.safetensors", index = dir / "model.safetensors.index.json";
  if (!fs::exists(fs::symlink_status(single)) && fs::exists(index)) return open_shards(dir, index);
  if (!fs::exists(fs::symlink_status(single))) {
    if (fs::exists(dir / "pytorch_model.bin")) {
      fail(ErrorKind::bad_file,
           "{}: pytorch_model.bin is a pickle, which can run code and is never read: "
           "save the model again with save_pretrained(..., safe_serialization=True)",
           dir.string());
    }
    fail(ErrorKind::bad_file, "{}: model.safetensors is missing", dir.string());
  }
  FolderWeights out;
  out.where = single.string();
  add_file(resolve_weight_file(dir, "model.safetensors"), &out);
  out.tensors = parse_safetensors(out.files.front()->bytes(), out.where);
  check_fits(out.where, out.file_bytes);
  return out;
}

}  // namespace tandem
