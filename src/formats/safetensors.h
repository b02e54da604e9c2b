// The safetensors container: bytes <-> named tensors of plain types.
// Eight bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data.
// As the reference reader does, this one wants the tensors to cover the data without holes or
// overlaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "formats/checkpoint.h"

namespace tandem {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // "BF16"; one of the names of safetensors_dtype_bytes
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

struct SafetensorsFile {
  std::vector<SafetensorsEntry> tensors;        // in order of their bytes
  std::map<std::string, std::string> metadata;  // of "__metadata__"
};

// Bytes of an element; 0 for a name the format does not have or this version does not read.
int64_t safetensors_dtype_bytes(std::string_view dtype);

// `name` opens every message. Throws bad_file; views point into `bytes`.
SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& name);

// Writes the tensors ordered by falling element size, so that each lies aligned. Throws system.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorSource>& tensors);

}  // namespace tandem
