#include "formats/gguf_split.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "formats/shards.h"
#include "formats/validate.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxParts = 4096;
constexpr std::string_view kNo = "split.no", kCount = "split.count",
                           kTensors = "split.tensors.count";

uint64_t split_key(const GgufFile& file, std::string_view key, const std::string& where) {
  const GgufValue* value = file.find(key);
  const auto number = value == nullptr ? std::nullopt : value->unsigned_integer();
  if (number) return *number;
  const std::string found = value == nullptr ? "missing"
                            : value->is_integer()
                                ? fmt::to_string(value->number())
                                : fmt::format("a {}", gguf_type_name(value->type));
  fail(ErrorKind::bad_file, "{}: key '{}' is {}, expected an integer of at least 0", where, key,
       found);
}

// "-00002-of-00003.gguf"; `no` counts from 0.
std::string part_suffix(uint64_t no, uint64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", no + 1, count);
}

// The name that all parts begin with; `no` is the part that `path` says it is.
std::string part_prefix(const fs::path& path, uint64_t no, uint64_t count) {
  const std::string name = path.filename().string(), suffix = part_suffix(no, count);
  if (!name.ends_with(suffix) || name.size() == suffix.size()) {
    fail(ErrorKind::bad_file,
         "{}: is part {} of {} of a split model, expected a name that ends in {}", path.string(),
         no + 1, count, suffix);
  }
  return name.substr(0, name.size() - suffix.size());
}

// A part may repeat the first one's metadata and not contradict it.
void check_part(const GgufFile& part, const GgufFile& first, uint64_t no,
                const std::string& where) {
  if (const uint64_t found = split_key(part, kNo, where); found != no) {
    fail(ErrorKind::bad_file, "{}: key '{}' is {}, expected {}", where, kNo, found, no);
  }
  for (const std::string_view key : {kCount, kTensors}) {
    const uint64_t found = split_key(part, key, where), expected = split_key(first, key, where);
    if (found == expected) continue;
    fail(ErrorKind::bad_file, "{}: key '{}' is {}, expected {} as in the first part", where, key,
         found, expected);
  }
  for (const auto& [key, value] : part.metadata) {
    const GgufValue* other = key.starts_with("split.") ? nullptr : first.find(key);
    if (other == nullptr) continue;
    if (other->type != value.type || !std::ranges::equal(other->bytes, value.bytes)) {
      fail(ErrorKind::bad_file, "{}: key {} differs from the first part's: a part of another model",
           where, quote(key));
    }
  }
}

void check_whole(const GgufFile& all, uint64_t stated, const std::string& where) {
  if (all.tensors.size() != stated) {
    fail(ErrorKind::bad_file, "{}: key '{}' is {}, the parts hold {} tensors", where, kTensors,
         stated, all.tensors.size());
  }
  std::set<std::string_view> names;
  for (const GgufTensor& tensor : all.tensors) {
    if (!names.insert(tensor.name).second) {
      fail(ErrorKind::bad_file, "{}: tensor {} stands in two parts", where, quote(tensor.name));
    }
  }
}

void add_file(const fs::path& path, GgufModel* model) {
  model->files.push_back(std::make_shared<MappedFile>(path));
  model->file_bytes += model->files.back()->bytes().size();
}

void add_parts(const fs::path& path, uint64_t count, GgufModel* model) {
  const std::string prefix = part_prefix(path, 0, count);
  const fs::path dir = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::vector<fs::path> files;
  for (uint64_t no = 1; no < count; ++no) {
    files.push_back(resolve_weight_file(dir, prefix + part_suffix(no, count)));
  }
  for (const fs::path& file : files) add_file(file, model);
  for (uint64_t no = 1; no < count; ++no) {
    const std::string where = (dir / (prefix + part_suffix(no, count))).string();
    const GgufFile part = parse_gguf(model->files[no]->bytes(), where, GgufTensors::optional);
    check_part(part, model->gguf, no, where);
    model->gguf.tensors.insert(model->gguf.tensors.end(), part.tensors.begin(), part.tensors.end());
  }
}

}  // namespace

GgufModel open_gguf(const fs::path& path) {
  const std::string where = path.string();
  GgufModel model;
  add_file(path, &model);
  model.gguf = parse_gguf(model.files.front()->bytes(), where, GgufTensors::optional);
  const uint64_t count =
      model.gguf.find(kCount) == nullptr ? 1 : split_key(model.gguf, kCount, where);
  if (count > kMaxParts) {
    fail(ErrorKind::bad_file, "{}: key '{}' is {}, at most {} parts are read", where, kCount, count,
         kMaxParts);
  }
  if (count > 1) {
    const uint64_t no = split_key(model.gguf, kNo, where);
    if (no >= count) {
      fail(ErrorKind::bad_file, "{}: key '{}' is {}, expected below {}", where, kNo, no, count);
    }
    if (no != 0) {
      fail(ErrorKind::bad_file, "{}: is part {} of {} of a split model; name the first, {}", where,
           no + 1, count, quote(part_prefix(path, no, count) + part_suffix(0, count), 300));
    }
    const uint64_t num_tensors = split_key(model.gguf, kTensors, where);
    add_parts(path, count, &model);
    check_whole(model.gguf, num_tensors, where);
  }
  if (model.gguf.tensors.empty()) fail(ErrorKind::bad_file, "{}: holds no tensors", where);
  check_fits(where, model.file_bytes);
  return model;
}

}  // namespace tandem
