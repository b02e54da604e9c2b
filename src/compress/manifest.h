// What a compressed model says of itself: where it comes from, how it was made, what it cost. A
// JSON object, beside a folder's weights (kManifestFile) or as a text in a GGUF file's metadata.
//   source, source_format, source_hash   the model it was made of
//   recipe, group, seed, method          the recipe in full; of steps: recipe, recipe_text
//   calibration                          text, rows, seed and hashes, where there is one
//   version, commit                      of the program
//   source_bytes, output_bytes           of the tensors
//   matrices    each with its encoding, shape and relative error (compress/weight_error.h)
//   gate        what was measured before the result was kept
//   files       a folder's files with size and hash; GGUF: data_hash, of all tensors' bytes
// Hashes are XXH3-128: they find damage, not malice.
#pragma once

#include <filesystem>
#include <optional>

#include "base/json.h"
#include "compress/recipe.h"
#include "formats/checkpoint.h"

namespace tandem {

inline constexpr const char* kGgufManifestKey = "tandem.manifest";

Json make_manifest(const Checkpoint& source, const Recipe& recipe);

// Completes the manifest of a result that lies under its temporary name and writes it there.
void write_folder_manifest(const std::filesystem::path& dir, Json manifest);
void write_gguf_manifest(const std::filesystem::path& file, Json manifest);
// Spaces in whose place write_gguf_manifest writes.
std::string gguf_manifest_room(size_t num_tensors);

// Nothing where the model has none. Throws bad_file for one that is no JSON object.
std::optional<Json> read_manifest(const Checkpoint& checkpoint);

// Everything about a compressed model that is not as its manifest says, a line each: files, hashes,
// encodings, shapes; also that it cannot be read or has no manifest. Empty: all fits.
std::vector<std::string> verify_compressed(const std::filesystem::path& path);

}  // namespace tandem
