#include "fuzz/gguf_mutator.h"

#include <algorithm>
#include <optional>

#include "formats/gguf.h"
#include "tensor/dtype.h"

namespace tandem::fuzz {
namespace {

// Reads what is there without judging it; nothing when the bytes end too early.
class Lenient {
 public:
  explicit Lenient(const std::string& bytes) : bytes_(bytes) {}

  std::optional<GgufBuilder> parse() {
    GgufBuilder b;
    b.magic = take(4);
    b.version = number<uint32_t>();
    const auto num_tensors = number<uint64_t>(), num_keys = number<uint64_t>();
    if (!good_ || num_keys > bytes_.size() || num_tensors > bytes_.size()) return std::nullopt;
    for (uint64_t i = 0; i < num_keys && good_; ++i) {
      const std::string key = take(number<uint64_t>());
      b.keys.emplace_back(key, value());
    }
    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < num_tensors && good_; ++i) {
      GgufBuilder::Tensor tensor;
      tensor.name = take(number<uint64_t>());
      const auto num_dims = number<uint32_t>();
      for (uint32_t d = 0; d < num_dims && good_; ++d) tensor.dims.push_back(number<int64_t>());
      tensor.type = number<uint32_t>();
      offsets.push_back(number<uint64_t>());
      b.tensors.push_back(std::move(tensor));
    }
    if (!good_) return std::nullopt;
    const size_t data = std::min((at_ + 31) / 32 * 32, bytes_.size());
    for (size_t i = 0; i < offsets.size(); ++i) {
      const uint64_t end = i + 1 < offsets.size() ? offsets[i + 1] : bytes_.size() - data;
      if (offsets[i] > end || end > bytes_.size() - data) return std::nullopt;
      b.tensors[i].data = bytes_.substr(data + offsets[i], end - offsets[i]);
    }
    return b;
  }

 private:
  std::string take(uint64_t size) {
    good_ = good_ && size <= bytes_.size() - at_;
    if (!good_) return {};
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  template <typename T>
  T number() {
    const std::string bytes = take(sizeof(T));
    return good_ ? load_unaligned<T>(reinterpret_cast<const std::byte*>(bytes.data())) : T{};
  }
  // The value's bytes with its type in front.
  std::string value() {
    const size_t begin = at_;
    auto type = number<uint32_t>();
    uint64_t count = 1;
    if (type == 9) {
      type = number<uint32_t>();
      count = number<uint64_t>();
    }
    if (type > 12 || type == 9) good_ = false;
    if (type == 8) {
      for (uint64_t i = 0; i < count && good_; ++i) take(number<uint64_t>());
    } else if (good_) {
      const size_t each = gguf_type_bytes(static_cast<GgufType>(type));
      good_ = count <= bytes_.size();
      take(good_ ? count * each : 0);
    }
    return good_ ? bytes_.substr(begin, at_ - begin) : "";
  }

  const std::string& bytes_;
  size_t at_ = 0;
  bool good_ = true;
};

std::string odd_value(Random& random) {
  switch (random.below(9)) {
    case 0:
      return bool_value(static_cast<uint8_t>(random.below(3)));
    case 1:
      return f32_value(static_cast<float>(random.normal() * 1e3));
    case 2:
      return f32_value(load_unaligned<float>(reinterpret_cast<const std::byte*>(
          raw<uint32_t>(0x7F800000u + static_cast<uint32_t>(random.below(3)) * 0x400000u).data())));
    case 3:
      return text_value(std::string(random.below(40), 'a'));
    case 4:
      return array_head(static_cast<uint32_t>(random.below(13)), edge_number(random));
    case 5:
      return u64_value(edge_number(random));
    case 6:
      return i32_value(static_cast<int32_t>(edge_number(random)));
    default:
      return u32_value(static_cast<uint32_t>(edge_number(random)));
  }
}

void mutate_key(GgufBuilder& b, Random& random, const ByteMutator& bytes) {
  if (b.keys.empty())
    return b.keys.emplace_back("general.architecture", text_value("llama")), void();
  auto& [key, value] = pick(b.keys, random);
  switch (random.below(6)) {
    case 0:
      value = odd_value(random);
      break;
    case 1: {  // the value's own bytes; its type stays
      std::string payload = value.substr(std::min<size_t>(4, value.size()));
      bytes(payload);
      value = value.substr(0, 4) + payload;
      break;
    }
    case 2:
      value = pick(b.keys, random).second;
      break;
    case 3:
      bytes(key);
      break;
    case 4: {
      const std::string copy = key;
      b.erase(copy);
      break;
    }
    default:
      b.keys.insert(b.keys.begin() + static_cast<ptrdiff_t>(random.below(b.keys.size() + 1)),
                    {random.below(4) == 0 ? key : "llama." + std::to_string(random.below(100)),
                     odd_value(random)});
  }
}

void mutate_tensor(GgufBuilder& b, Random& random, const ByteMutator& bytes) {
  if (b.tensors.empty()) return b.tensors.push_back({"token_embd.weight", {8}, 0, "", {}, {}});
  const size_t at = random.below(b.tensors.size());
  GgufBuilder::Tensor& tensor = b.tensors[at];
  switch (random.below(9)) {
    case 0:
      if (!tensor.dims.empty())
        pick(tensor.dims, random) = static_cast<int64_t>(edge_number(random));
      break;
    case 1:
      if (!tensor.dims.empty()) pick(tensor.dims, random) = 1 << random.below(10);
      break;
    case 2:
      tensor.dims.resize(random.below(6), 1);
      break;
    case 3:
      tensor.type = pick(kTensorTypes, random);
      break;
    case 4:
      bytes(tensor.name);
      break;
    case 5:
      tensor.offset = edge_number(random);
      break;
    case 6:
      std::swap(tensor.name, pick(b.tensors, random).name);
      break;
    case 7:
      tensor.num_dims = static_cast<uint32_t>(edge_number(random));
      break;
    default:
      bytes(tensor.data);
  }
  if (random.below(4) != 0) repair_data(tensor);
  if (random.below(16) == 0) {
    b.tensors.erase(b.tensors.begin() + static_cast<ptrdiff_t>(at));
  } else if (random.below(16) == 0) {
    b.tensors.push_back(tensor);
  }
}

}  // namespace

void repair_data(GgufBuilder::Tensor& tensor) {
  static constexpr struct {
    uint32_t type, block, bytes;
  } kSizes[] = {{0, 1, 4},      {1, 1, 2},      {2, 32, 18},   {3, 32, 20},    {6, 32, 22},
                {7, 32, 24},    {8, 32, 34},    {10, 256, 84}, {11, 256, 110}, {12, 256, 144},
                {13, 256, 176}, {14, 256, 210}, {20, 32, 18},  {30, 1, 2}};
  for (const auto& size : kSizes) {
    if (size.type != tensor.type || tensor.dims.empty()) continue;
    uint64_t elements = 1;
    for (const int64_t dim : tensor.dims) {
      if (dim < 1 || dim > 4096 || elements > 1 << 16) return;
      elements *= static_cast<uint64_t>(dim);
    }
    tensor.data.resize(elements / size.block * size.bytes);
  }
}

std::string mutate_gguf(const std::string& input, Random& random, const ByteMutator& bytes) {
  std::optional<GgufBuilder> b = Lenient(input).parse();
  if (!b) b = GgufBuilder::tiny();
  switch (random.below(8)) {
    case 0:
      b->version = static_cast<uint32_t>(edge_number(random));
      break;
    case 1:
      b->num_tensors = edge_number(random);
      break;
    case 2:
      b->num_keys = edge_number(random);
      break;
    case 3:
    case 4:
      mutate_tensor(*b, random, bytes);
      break;
    default:
      mutate_key(*b, random, bytes);
  }
  return b->bytes();
}

}  // namespace tandem::fuzz
