// The weight files of a Hugging Face folder: model.safetensors, or the shards that
// model.safetensors.index.json names, as one list of tensors.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "formats/safetensors.h"

namespace tandem {

struct FolderWeights {
  std::string where;  // opens messages: the weight file or the index
  std::vector<std::shared_ptr<MappedFile>> files;
  SafetensorsFile tensors;  // of all files; views point into them
  uint64_t file_bytes = 0;
  std::vector<std::string> warnings;
};

// The file that `dir`/`name` is, links followed, for a file of weights that a folder or another
// file names. It must lie inside the folder; in a snapshot of the Hugging Face cache also in that
// model's blobs. Throws bad_file, before anything is opened.
std::filesystem::path resolve_weight_file(const std::filesystem::path& dir,
                                          const std::string& name);

// Throws bad_file, no_memory when the weights cannot fit.
FolderWeights open_folder_weights(const std::filesystem::path& dir);

}  // namespace tandem
