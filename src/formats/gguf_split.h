// The files of a GGUF model as one: a whole file, or the parts NAME-00001-of-00003.gguf that
// llama.cpp's gguf-split makes. The first part holds the metadata, each holds some of the tensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/file.h"
#include "formats/gguf.h"

namespace tandem {

struct GgufModel {
  GgufFile gguf;  // the first part's metadata and the tensors of all, views into `files`
  std::vector<std::shared_ptr<MappedFile>> files;
  uint64_t file_bytes = 0;
};

// `path` is the whole file or the first part; the others lie beside it. Throws bad_file for any
// other part, for one that is missing, of another model or a link out of the folder, no_memory when
// the weights cannot fit.
GgufModel open_gguf(const std::filesystem::path& path);

}  // namespace tandem
