// The tensors of a matrix in the file formats of float codes: bitsandbytes' tables, FP8 with scales of
// the matrix or of blocks, 2:4 with a mask. They are written far apart, since a safetensors file is
// ordered by the size of its elements; so each is made from the source anew rather than kept.
// Internal to this room.
#pragma once

#include <vector>

#include "compress/recipe.h"
#include "compress/row_stream.h"

namespace tandem {

// Bytes that are there already.
TensorSource bytes_source(RowStream& stream, const NamedTensor& tensor, std::string name,
                          const char* dtype, int64_t count, std::string bytes);

// nf4, fp4 and code books, as bitsandbytes names them. Double quantization reads the matrix at once:
// its offset stands in the file's header.
void add_table_sources(RowStream& stream, const NamedTensor& tensor, const Recipe& recipe,
                       std::vector<TensorSource>& out);

void add_fp8_sources(RowStream& stream, const NamedTensor& tensor, const Recipe& recipe,
                     std::vector<TensorSource>& out);

// sparse-24-bitmask of bf16 numbers: of each four the two largest magnitudes, of equals the later.
void add_masked_sources(RowStream& stream, const NamedTensor& tensor, const Encoding& encoding,
                        std::vector<TensorSource>& out);

}  // namespace tandem
