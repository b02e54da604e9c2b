#include "formats/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "tensor/dtype.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

struct Dtype {
  std::string_view name;
  int64_t bytes;
};
constexpr Dtype kDtypes[] = {{"F64", 8}, {"I64", 8}, {"U64", 8},  {"F32", 4},     {"I32", 4},
                             {"U32", 4}, {"F16", 2}, {"BF16", 2}, {"I16", 2},     {"U16", 2},
                             {"I8", 1},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

struct Placed {
  uint64_t begin = 0;
  uint64_t end = 0;
  SafetensorsEntry entry;
};

uint64_t natural(const SortedJson& value, const std::string& where, std::string_view what) {
  if (!value.is_number_unsigned()) {
    fail(ErrorKind::bad_file, "{}: {} is {}, expected an integer of at least 0", where, what,
         quote(value.dump(-1, ' ', false, SortedJson::error_handler_t::replace), 40));
  }
  return value.get<uint64_t>();
}

const SortedJson& field(const SortedJson& entry, const char* key, const std::string& where) {
  const auto it = entry.find(key);
  if (it == entry.end()) fail(ErrorKind::bad_file, "{}: '{}' is missing", where, key);
  return *it;
}

Placed read_entry(const std::string& tensor, const SortedJson& json, const std::string& name) {
  const std::string where = fmt::format("{}: tensor {}", name, quote(tensor));
  if (!json.is_object()) fail(ErrorKind::bad_file, "{}: its entry is not a JSON object", where);
  Placed placed;
  placed.entry.name = tensor;
  const SortedJson& dtype = field(json, "dtype", where);
  if (!dtype.is_string()) fail(ErrorKind::bad_file, "{}: 'dtype' is not a string", where);
  placed.entry.dtype = dtype.get<std::string>();
  const int64_t element_bytes = safetensors_dtype_bytes(placed.entry.dtype);
  if (element_bytes == 0) {
    fail(ErrorKind::bad_file, "{}: dtype {} is not supported by this version", where,
         quote(placed.entry.dtype));
  }
  const SortedJson& shape = field(json, "shape", where);
  if (!shape.is_array()) fail(ErrorKind::bad_file, "{}: 'shape' is not an array", where);
  std::optional<uint64_t> size = static_cast<uint64_t>(element_bytes);
  for (const auto& dim : shape) {
    const uint64_t n = natural(dim, where, "a dimension");
    size = size ? checked_mul(*size, n) : size;
    if (!size || n > INT64_MAX) fail(ErrorKind::bad_file, "{}: its shape overflows", where);
    placed.entry.shape.push_back(static_cast<int64_t>(n));
  }
  const SortedJson& offsets = field(json, "data_offsets", where);
  if (!offsets.is_array() || offsets.size() != 2) {
    fail(ErrorKind::bad_file, "{}: 'data_offsets' is not a pair", where);
  }
  placed.begin = natural(offsets[0], where, "the begin of 'data_offsets'");
  placed.end = natural(offsets[1], where, "the end of 'data_offsets'");
  if (placed.end < placed.begin || placed.end - placed.begin != *size) {
    fail(ErrorKind::bad_file, "{}: bytes [{}, {}), expected {} bytes from its shape and dtype",
         where, placed.begin, placed.end, *size);
  }
  return placed;
}

// The header's text; the data begins right after it.
std::string_view header_text(std::span<const std::byte> bytes, const std::string& name) {
  if (bytes.size() < 8) {
    fail(ErrorKind::bad_file, "{}: {} bytes, too short for the 8-byte header length of safetensors",
         name, bytes.size());
  }
  const auto header_bytes = load_unaligned<uint64_t>(bytes.data());
  if (header_bytes > kMaxHeaderBytes) {
    fail(ErrorKind::bad_file,
         "{}: header of {} bytes, at most {} are read: not a safetensors file?", name, header_bytes,
         kMaxHeaderBytes);
  }
  if (header_bytes > bytes.size() - 8) {
    fail(ErrorKind::bad_file, "{}: header of {} bytes, {} are left in the file", name, header_bytes,
         bytes.size() - 8);
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data() + 8), header_bytes);
  if (!utf8_valid(text)) fail(ErrorKind::bad_file, "{}: the header is not UTF-8", name);
  if (text.empty()) fail(ErrorKind::bad_file, "{}: the header is empty, expected JSON", name);
  if (text.substr(0, 3) == "\xEF\xBB\xBF") {
    fail(ErrorKind::bad_file, "{}: the header starts with a byte order mark", name);
  }
  return text;
}

}  // namespace

int64_t safetensors_dtype_bytes(std::string_view dtype) {
  for (const Dtype& known : kDtypes) {
    if (known.name == dtype) return known.bytes;
  }
  return 0;
}

SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& name) {
  const std::string_view text = header_text(bytes, name);
  const SortedJson header = parse_sorted_json(text, name + ": header");
  if (!header.is_object()) fail(ErrorKind::bad_file, "{}: the header is not a JSON object", name);
  SafetensorsFile file;
  std::vector<Placed> placed;
  for (const auto& [key, value] : header.items()) {
    if (key != "__metadata__") {
      placed.push_back(read_entry(key, value, name));
      continue;
    }
    if (!value.is_object()) fail(ErrorKind::bad_file, "{}: '__metadata__' is not an object", name);
    for (const auto& [note, content] : value.items()) {
      if (!content.is_string()) {
        fail(ErrorKind::bad_file, "{}: '__metadata__' {} is not a string", name, quote(note));
      }
      file.metadata.emplace(note, content.get<std::string>());
    }
  }
  std::sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const auto data = bytes.subspan(8 + text.size());
  uint64_t expected = 0;
  for (Placed& tensor : placed) {
    if (tensor.begin != expected || tensor.end > data.size()) {
      fail(ErrorKind::bad_file,
           "{}: tensor {}: bytes [{}, {}), expected to begin at {} and to end within "
           "the {} bytes of data",
           name, quote(tensor.entry.name), tensor.begin, tensor.end, expected, data.size());
    }
    tensor.entry.bytes = data.subspan(tensor.begin, tensor.end - tensor.begin);
    expected = tensor.end;
    file.tensors.push_back(std::move(tensor.entry));
  }
  if (expected != data.size()) {
    fail(ErrorKind::bad_file, "{}: {} bytes of data, expected {} (the end of the last tensor)",
         name, data.size(), expected);
  }
  return file;
}

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<TensorSource>& tensors) {
  std::vector<const TensorSource*> order;
  for (const auto& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return safetensors_dtype_bytes(a->dtype) > safetensors_dtype_bytes(b->dtype);
  });
  // nlohmann's ordered object looks up each new key by walking all others; appending does not.
  Json::object_t header;
  header.emplace_back("__metadata__", Json{{"format", "pt"}});
  uint64_t offset = 0;
  for (const TensorSource* tensor : order) {
    uint64_t elements = 1;
    for (const int64_t dim : tensor->shape) elements *= static_cast<uint64_t>(dim);
    CHECK(elements * static_cast<uint64_t>(safetensors_dtype_bytes(tensor->dtype)) ==
              tensor->size_bytes,
          "{}: {} elements of {} in {} bytes", tensor->name, elements, tensor->dtype,
          tensor->size_bytes);
    header.emplace_back(tensor->name,
                        Json{{"dtype", tensor->dtype},
                             {"shape", tensor->shape},
                             {"data_offsets", {offset, offset + tensor->size_bytes}}});
    offset += tensor->size_bytes;
  }
  std::string text = dump_json(Json(std::move(header)));
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t header_bytes = text.size();
  write_file_atomic(path, [&](const ByteSink& sink) {
    sink(std::as_bytes(std::span(&header_bytes, 1)));
    sink(std::as_bytes(std::span(text)));
    for (const TensorSource* tensor : order) {
      uint64_t written = 0;
      tensor->write([&](std::span<const std::byte> piece) {
        written += piece.size();
        sink(piece);
      });
      CHECK(written == tensor->size_bytes, "{}: wrote {} of {} bytes", tensor->name, written,
            tensor->size_bytes);
    }
  });
}

}  // namespace tandem
