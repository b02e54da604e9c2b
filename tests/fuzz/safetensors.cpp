// safetensors: the container, what is written of it again, and its tensors as weights in each of
// the layouts that a folder's config may announce.
#include "formats/safetensors.h"

#include <cstring>

#include "base/error.h"
#include "formats/compressed_tensors.h"
#include "formats/gguf_builder.h"
#include "fuzz/json_mutator.h"
#include "fuzz/target.h"
#include "tensor/sparse.h"

namespace tandem::fuzz {
namespace {

void decode_rows(const std::vector<NamedTensor>& tensors) {
  for (const auto& [name, weight] : tensors) {
    if (weight.N < 1 || weight.K < 1) continue;
    if (weight.encoding.is_sparse()) {  // the model's door looks at the places before a row is decoded
      first_bad_places(weight, weight.N - 1);
      continue;
    }
    std::vector<float> row(static_cast<size_t>(weight.K));
    decode_row(weight, 0, row.data());
    decode_row(weight, weight.N - 1, row.data());
  }
}

// What is written from a file reads as the same tensors.
void check_round_trip(const SafetensorsFile& file) {
  static const ScratchFolder folder;
  std::vector<TensorSource> sources;
  for (const SafetensorsEntry& entry : file.tensors) {
    sources.push_back({entry.name, entry.dtype, entry.shape, entry.bytes.size(),
                       [&entry](const ByteSink& sink) { sink(entry.bytes); }});
  }
  write_safetensors(folder.path() + "/copy.safetensors", sources);
  const MappedFile mapped(folder.path() + "/copy.safetensors");
  const SafetensorsFile copy = parse_safetensors(mapped.bytes(), "copy");
  require(copy.tensors.size() == file.tensors.size(), "as many tensors come back");
  for (const SafetensorsEntry& entry : file.tensors) {
    const auto same = [&](const SafetensorsEntry& other) { return other.name == entry.name; };
    const auto found = std::ranges::find_if(copy.tensors, same);
    require(found != copy.tensors.end() && found->dtype == entry.dtype &&
                found->shape == entry.shape && std::ranges::equal(found->bytes, entry.bytes),
            "a tensor comes back as it was");
  }
}

void run(std::string_view input) {
  expect_error_or_success([&] {
    const SafetensorsFile file = parse_safetensors(std::as_bytes(std::span(input)), "x");
    QuantizationConfig int8, int4, fp8, masks;
    int8.schemes.emplace_back().bytes.is_float = false;
    fp8.schemes.emplace_back().bytes.scales = ByteScheme::Scales::block;
    fp8.schemes.back().bytes.block_rows = 128;
    masks.has_masks = true;
    int4.schemes.push_back({.kind = WeightScheme::Kind::integers,
                            .targets = {},
                            .in_words = true,
                            .bits = 4,
                            .scales = WeightScheme::Scales::group,
                            .group = 32});
    RepackedPlanes planes;
    std::vector<std::shared_ptr<const Buffer>> memory;
    for (const auto& layout : {std::optional<QuantizationConfig>(), std::optional(int8),
                               std::optional(int4), std::optional(fp8), std::optional(masks)}) {
      expect_error_or_success(
          [&] { decode_rows(read_weights(file, layout, "x", &planes, &memory)); });
    }
    if (file.tensors.size() < 8) check_round_trip(file);
  });
}

std::string file_of(const std::string& header, const std::string& data) {
  return raw<uint64_t>(header.size()) + header + data;
}

std::string mutate(const std::string& input, Random& random, const ByteMutator& bytes) {
  static const std::vector<std::string> kWords = {"dtype",
                                                  "shape",
                                                  "data_offsets",
                                                  "__metadata__",
                                                  "F32",
                                                  "F16",
                                                  "BF16",
                                                  "I8",
                                                  "I32",
                                                  "I64",
                                                  "F64",
                                                  "U8",
                                                  "BOOL",
                                                  "F8_E4M3",
                                                  "F4",
                                                  "a.weight",
                                                  "a.weight_scale",
                                                  "a.weight_packed",
                                                  "a.weight_shape",
                                                  "b.weight",
                                                  "lm_head.weight",
                                                  "x_proj.weight"};
  uint64_t header_bytes = 0;
  if (input.size() >= 8) std::memcpy(&header_bytes, input.data(), 8);
  if (input.size() < 8 || header_bytes > input.size() - 8) return file_of("{}", "");
  std::string header = input.substr(8, header_bytes), data = input.substr(8 + header_bytes);
  switch (random.below(8)) {
    case 0:
      data.resize(random.below(2) == 0 ? data.size() + random.below(9)
                                       : random.below(data.size() + 1));
      return file_of(header, data);
    case 1:
      return raw(edge_number(random)) + header + data;
    case 2:
      bytes(data);
      return file_of(header, data);
    default:
      return file_of(mutate_json(header, random, bytes, kWords), data);
  }
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  size_t begin, size_t end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", name, dtype,
                     shape, begin, end);
}

std::string header_of(const std::vector<std::string>& entries) {
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

std::vector<std::string> seeds() {
  std::vector<std::string> out = {file_of("{}", ""), file_of(" {} \n", ""),
                                  file_of(R"({"__metadata__":{"format":"pt"}})", "")};
  for (const char* dtype : {"F64", "I64", "U64", "F32", "I32", "U32", "F16", "BF16", "I16", "U16",
                            "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"}) {
    const auto size = static_cast<size_t>(safetensors_dtype_bytes(dtype)) * 6;
    out.push_back(
        file_of(header_of({entry("a.weight", dtype, "2,3", 0, size)}), std::string(size, '\1')));
  }
  const auto add = [&](const std::vector<std::string>& entries, const std::string& data) {
    out.push_back(file_of(header_of(entries), data));
  };
  add({entry("a", "F32", "", 0, 4), entry("b", "F32", "0,5", 4, 4)}, std::string(4, '\1'));
  add({entry("a.weight", "I8", "2,4", 0, 8), entry("a.weight_scale", "BF16", "2,1", 8, 12)},
      std::string(12, '\1'));
  // int4: two rows of 32, their scales, and the shape that the packed tensor stands for.
  add({entry("a.weight_packed", "I32", "2,4", 0, 32), entry("a.weight_scale", "F16", "2,1", 32, 36),
       entry("a.weight_shape", "I64", "2", 36, 52)},
      std::string(36, '\1') + raw<int64_t>(2) + raw<int64_t>(32));
  return out;
}

}  // namespace

const Target& safetensors_target() {
  static const Target target{"safetensors", run, seeds, mutate};
  return target;
}

}  // namespace tandem::fuzz
