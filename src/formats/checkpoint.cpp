#include "formats/checkpoint.h"

#include "base/error.h"
#include "base/hash.h"

namespace tandem {

const NamedTensor* Checkpoint::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors[it->second];
}

const Weight& Checkpoint::weight(std::string_view name) const {
  const NamedTensor* tensor = find(name);
  if (tensor == nullptr) {
    fail(ErrorKind::bad_file, "{}: tensor {} is missing", path.string(), quoted(name));
  }
  return tensor->weight;
}

void Checkpoint::release_pages() const {
  for (const auto& file : files) file->release_pages();
}

void Checkpoint::index_tensors() {
  index_.clear();
  for (size_t i = 0; i < tensors.size(); ++i) index_.emplace(tensors[i].name, i);
}

}  // namespace tandem
