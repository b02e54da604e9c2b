#include "compress/manifest.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"
#include "base/version.h"
#include "formats/gguf.h"
#include "formats/gguf_write.h"
#include "formats/hf_folder.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxManifestBytes = uint64_t{64} << 20;

std::vector<fs::path> files_of(const fs::path& dir) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.path().filename() != kManifestFile) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

// All tensors' bytes, from the first to the end of the file.
std::string gguf_data_hash(const fs::path& path) {
  const MappedFile file(path);
  const GgufFile gguf = parse_gguf(file.bytes(), path.string());
  const std::byte* begin = file.bytes().data() + file.bytes().size();
  for (const GgufTensor& tensor : gguf.tensors) begin = std::min(begin, tensor.bytes.data());
  return hash_hex(file.bytes().subspan(static_cast<size_t>(begin - file.bytes().data())));
}

std::string shape_text(int64_t N, int64_t K) { return fmt::format("[{}, {}]", N, K); }

void verify_files(const fs::path& dir, const Json& manifest, std::vector<std::string>* problems) {
  std::vector<std::string> listed;
  for (const Json& entry : manifest.at("files")) {
    const auto name = entry.at("name").get<std::string>();
    listed.push_back(name);
    const fs::path path = dir / fs::path(name).filename();
    if (!fs::exists(path)) {
      problems->push_back(fmt::format("{}: is missing", quote(name)));
      continue;
    }
    const MappedFile file(path);
    const auto bytes = entry.at("bytes").get<uint64_t>();
    if (file.bytes().size() != bytes) {
      problems->push_back(fmt::format("{}: has {} bytes, the manifest says {}", quote(name),
                                      file.bytes().size(), bytes));
    } else if (const std::string hash = hash_hex(file.bytes()); hash != entry.at("hash")) {
      problems->push_back(fmt::format("{}: hash is {}, the manifest says {}", quote(name), hash,
                                      entry.at("hash").get<std::string>()));
    }
  }
  for (const fs::path& path : files_of(dir)) {
    const std::string name = path.filename().string();
    const bool counts = path.extension() == ".safetensors" || path.extension() == ".json";
    if (counts && std::ranges::find(listed, name) == listed.end()) {
      problems->push_back(fmt::format("{}: is not in the manifest", quote(name)));
    }
  }
}

void verify_matrices(const Checkpoint& checkpoint, const Json& manifest,
                     std::vector<std::string>* problems) {
  // What a recipe of steps makes of a matrix is said by the list alone.
  const Json method = manifest.value("method", Json::object());
  const std::string encoding = method.value("encoding", "");
  // A GGUF file's widths may hold another encoding than the recipe's.
  bool has_encoding = encoding.empty() || method.value("container", "") == "gguf";
  for (const Json& entry : manifest.at("matrices")) {
    const auto name = entry.at("name").get<std::string>();
    const auto shape = entry.at("shape").get<std::vector<int64_t>>();
    has_encoding |= entry.at("encoding") == encoding;
    const NamedTensor* tensor = checkpoint.find(name);
    const std::string said = entry.at("encoding").get<std::string>() + " " +
                             (shape.size() == 2 ? shape_text(shape[0], shape[1]) : "[?]");
    const std::string found =
        tensor == nullptr ? "missing"
                          : tensor->weight.encoding.name() + " " +
                                shape_text(tensor->weight.N, tensor->weight.K);
    if (found != said) {
      problems->push_back(fmt::format("{}: is {}, the manifest says {}", quote(name), found, said));
    }
  }
  if (!has_encoding) {
    problems->push_back(fmt::format("recipe {}: no matrix is {}",
                                    quote(manifest.at("recipe").get<std::string>()), encoding));
  }
}

}  // namespace

Json make_manifest(const Checkpoint& source, const Recipe& recipe) {
  Json manifest = {{"schema", "tandem.manifest/1"},
                   {"source", source.path.string()},
                   {"source_format", source.format},
                   {"source_hash", checkpoint_hash(source)},
                   {"recipe", recipe.name}};
  if (recipe.group != 0) manifest["group"] = recipe.group;
  if (recipe.off_grid) manifest["seed"] = recipe.seed;
  manifest["method"] = recipe_json(recipe);
  manifest["version"] = version();
  manifest["commit"] = commit();
  return manifest;
}

void write_folder_manifest(const fs::path& dir, Json manifest) {
  Json& files = manifest["files"] = Json::array();
  for (const fs::path& path : files_of(dir)) {
    const MappedFile file(path);
    files.push_back({{"name", path.filename().string()},
                     {"bytes", file.bytes().size()},
                     {"hash", hash_hex(file.bytes())}});
  }
  write_file_atomic(dir / kManifestFile, dump_json(manifest, 1) + "\n");
}

std::string gguf_manifest_room(size_t num_tensors) {
  return std::string(8192 + 256 * num_tensors, ' ');
}

void write_gguf_manifest(const fs::path& file, Json manifest) {
  manifest["data_hash"] = gguf_data_hash(file);
  replace_gguf_text(file, kGgufManifestKey, dump_json(manifest));
}

std::optional<Json> read_manifest(const Checkpoint& checkpoint) {
  std::string text, where;
  if (std::filesystem::is_directory(checkpoint.path)) {
    const fs::path path = checkpoint.path / kManifestFile;
    if (!fs::exists(path)) return std::nullopt;
    where = path.string();
    text = read_text_file(path, kMaxManifestBytes);
  } else {
    where = checkpoint.path.string() + ": " + kGgufManifestKey;
    for (const auto& [key, value] : checkpoint.metadata) {
      if (key == kGgufManifestKey) text = value;
    }
    if (text.empty()) return std::nullopt;
  }
  Json manifest = parse_json(text, where);
  if (!manifest.is_object()) fail(ErrorKind::bad_file, "{}: is no JSON object", where);
  return manifest;
}

std::vector<std::string> verify_compressed(const fs::path& path) {
  std::vector<std::string> problems;
  try {
    // The files first: what is damaged may not be readable as a model.
    const fs::path manifest_path = path / kManifestFile;
    std::optional<Json> manifest;
    if (fs::is_directory(path) && fs::exists(manifest_path)) {
      manifest = parse_json(read_text_file(manifest_path, kMaxManifestBytes),
                            manifest_path.string());
      if (manifest->contains("files")) verify_files(path, *manifest, &problems);
    }
    const Checkpoint checkpoint = load_checkpoint(path);
    if (!manifest) manifest = read_manifest(checkpoint);
    if (!manifest || !manifest->contains("matrices")) {
      problems.push_back(fmt::format("{}: has no manifest of this version of a compression",
                                     path.string()));
      return problems;
    }
    if (manifest->contains("data_hash")) {
      const std::string hash = gguf_data_hash(path);
      if (hash != manifest->at("data_hash")) {
        problems.push_back(fmt::format("{}: hash of the tensors is {}, the manifest says {}",
                                       path.string(), hash,
                                       manifest->at("data_hash").get<std::string>()));
      }
    }
    verify_matrices(checkpoint, *manifest, &problems);
  } catch (const Json::exception& error) {
    problems.push_back(fmt::format("{}: manifest: {}", path.string(), quote(error.what(), 160)));
  } catch (const Error& error) {
    if (error.kind != ErrorKind::bad_file) throw;
    problems.push_back(error.what());
  }
  return problems;
}

}  // namespace tandem
