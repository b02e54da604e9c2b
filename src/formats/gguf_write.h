// Checkpoint -> GGUF file, version 3, as llama.cpp reads it: its keys, its names, its row order,
// the tokenizer included. What llama.cpp would not understand, or would understand otherwise, is
// refused by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "formats/checkpoint.h"

namespace tandem {

// A tensor of the file, made of rows of the checkpoint's.
struct GgufRows {
  std::string name;                       // "blk.0.attn_q.weight"
  std::vector<const NamedTensor*> parts;  // their rows one after another: Phi-3's fused matrices
  // The rows of each head of this many lie in the order of interleaved RoPE, as do the elements of
  // a bias; 0: they do not.
  int64_t interleaved_head = 0;

  bool is_vector() const { return parts.front()->weight.N == 1; }
  int64_t N() const;
  int64_t K() const { return parts.front()->weight.K; }
  // The part and the logical row of it that the file's row n is.
  std::pair<const NamedTensor*, int64_t> row(int64_t n) const;
};

// The file's tensors in its order. Throws usage naming what GGUF cannot say of this model: RoPE
// scalings, shapes, tensors or tokenizers that llama.cpp does not know in its architecture.
std::vector<GgufRows> gguf_rows(const Checkpoint& source);

// A tensor to be written: `write` produces its rows in order, encoding.row_bytes(K) bytes each.
struct GgufTensorSource {
  std::string name;
  Encoding encoding;
  int64_t N = 1;  // 1: a vector
  int64_t K = 0;
  std::function<void(const ByteSink&)> write;
};

// `file_type` is general.file_type, llama.cpp's number for the whole. `notes` are further string
// keys, such as where the weights come from. The file appears complete or not at all; `before_rename`
// gets it whole under a temporary name. Throws usage
// when `path` exists, bad_file or usage as gguf_rows does, system when it cannot be written.
void write_gguf(const std::filesystem::path& path, const Checkpoint& source, uint32_t file_type,
                const std::vector<std::pair<std::string, std::string>>& notes,
                const std::vector<GgufTensorSource>& tensors,
                const StagedPath& before_rename = {});

// Replaces a string of the file's metadata by `text`, filled up with spaces to the length it has:
// for what is known only when the tensors are written. Throws system; CHECKs that the text fits.
void replace_gguf_text(const std::filesystem::path& path, std::string_view key,
                       std::string_view text);

}  // namespace tandem
