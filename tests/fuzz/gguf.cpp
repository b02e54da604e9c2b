// GGUF: the container, the model inside, its rows decoded, its tokenizer and template built, and
// for what is small enough a few tokens run through the scalar reference.
#include "formats/gguf.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "formats/checkpoint.h"
#include "formats/gguf_builder.h"
#include "formats/gguf_tokenizer.h"
#include "fuzz/target.h"
#include "model/model.h"
#include "runtime/engine.h"
#include "tensor/dtype.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tandem::fuzz {
namespace {

constexpr uint64_t kMaxNumbers = 1 << 14;  // of a model that is run

uint64_t numbers_in(const Checkpoint& model) {
  uint64_t sum = 0;
  for (const NamedTensor& tensor : model.tensors) {
    sum += static_cast<uint64_t>(tensor.weight.N) * static_cast<uint64_t>(tensor.weight.K);
  }
  return sum;
}

void decode_rows(const Checkpoint& model) {
  for (const NamedTensor& tensor : model.tensors) {
    std::vector<float> row(static_cast<size_t>(tensor.weight.K));
    for (const int64_t n : {int64_t{0}, tensor.weight.N / 2, tensor.weight.N - 1}) {
      decode_row(tensor.weight, n, row.data());
    }
  }
}

void use_tokenizer(const TokenizerSpec& spec) {
  const Tokenizer tokenizer(spec);
  for (const int32_t id : tokenizer.encode_prompt("a bc\xFF <|end|> 12\n")) {
    require(id >= 0 && id < tokenizer.vocab_size(), "ids lie in the vocabulary");
    tokenizer.token_name(id);
  }
  if (spec.chat_template.empty()) return;
  ChatTemplate(spec.chat_template).render({{"user", "hi"}}, true, "<s>", "</s>");
}

void run_model(const Checkpoint& checkpoint) {
  static ThreadPool pool(1, false);
  const Model model(checkpoint, pool, "ref");
  const std::vector<int32_t> tokens(
      static_cast<size_t>(std::min<int64_t>(3, checkpoint.config.max_context)), 0);
  Scorer scorer(model, KvType::f32, static_cast<int64_t>(tokens.size()));
  scorer.score(tokens, 0, [](int64_t, const float*) {});
}

std::string second_part();

void run(std::string_view input) {
  const auto bytes = std::as_bytes(std::span(input));
  expect_error_or_success([&] {
    const GgufFile file = parse_gguf(bytes, "x", GgufTensors::optional);
    expect_error_or_success([&] { use_tokenizer(read_gguf_tokenizer(file, "x")); });
  });
  constexpr const char* kFirst = "model-00001-of-00002.gguf";
  static const ScratchFolder folder;
  static const bool written = (folder.write("model-00002-of-00002.gguf", second_part()), true);
  require(written, "there is a second part");
  folder.write(kFirst, input);
  expect_error_or_success([] {
    const Checkpoint model = load_checkpoint(folder.path() + "/" + kFirst);
    decode_rows(model);
    if (numbers_in(model) <= kMaxNumbers) run_model(model);
  });
}

// --- bytes <-> GgufBuilder

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

// --- mutation

constexpr uint32_t kTensorTypes[] = {0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 30, 16, 24, 1000};

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

// What the tensor's dimensions and type ask for, so that the next check is reached.
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

std::string mutate(const std::string& input, Random& random, const ByteMutator& bytes) {
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

// --- seeds

GgufBuilder with_type(uint32_t type, int64_t width) {
  GgufBuilder b = GgufBuilder::tiny();
  for (GgufBuilder::Tensor& tensor : b.tensors) {
    for (int64_t& dim : tensor.dims) dim = dim == 8 || dim == 16 ? width : dim;
    if (tensor.dims.size() == 2) tensor.type = type;
    if (tensor.name == "blk.0.attn_k.weight" || tensor.name == "blk.0.attn_v.weight") {
      tensor.dims[1] = width / 2;
    }
    repair_data(tensor);
  }
  b.set("llama.embedding_length", u32_value(static_cast<uint32_t>(width)));
  b.set("llama.feed_forward_length", u32_value(static_cast<uint32_t>(width)));
  return b;
}

GgufBuilder sentencepiece() {
  GgufBuilder b = GgufBuilder::tiny();
  b.set("tokenizer.ggml.model", text_value("llama"));
  b.set("tokenizer.ggml.tokens", texts_value({"<unk>", "<s>", "</s>", "\u2581", "a", "\u2581a"}));
  b.set("tokenizer.ggml.token_type",
        array_head(5, 6) + raw(2) + raw(3) + raw(3) + raw(1) + raw(1) + raw(1));
  b.set("tokenizer.ggml.scores", array_head(6, 6) + std::string(24, '\0'));
  b.erase("tokenizer.ggml.merges");
  return b;
}

// SentencePiece's Unigram with a character map of one rule: "b" becomes "a".
GgufBuilder unigram() {
  GgufBuilder b = sentencepiece();
  std::vector<uint32_t> units(256, 0);
  units['b'] = uint32_t{'b'} << 10 | 0x100 | 'b';
  units[0] = 0x80000000;
  std::string map = raw<uint32_t>(1024);
  for (const uint32_t unit : units) map += raw(unit);
  map += std::string("a\0", 2);
  b.set("tokenizer.ggml.model", text_value("t5"));
  b.set("tokenizer.ggml.precompiled_charsmap", array_head(0, map.size()) + map);
  return b;
}

// The first of two parts; run() puts a second one beside it.
GgufBuilder first_part() {
  GgufBuilder b = GgufBuilder::tiny();
  b.tensors.pop_back();
  b.keys.emplace_back("split.no", raw<uint32_t>(2) + raw<uint16_t>(0));
  b.keys.emplace_back("split.count", raw<uint32_t>(2) + raw<uint16_t>(2));
  b.keys.emplace_back("split.tensors.count", i32_value(11));
  return b;
}

std::string second_part() {
  GgufBuilder b = first_part();
  b.keys.erase(b.keys.begin(), b.keys.end() - 3);
  b.set("split.no", raw<uint32_t>(2) + raw<uint16_t>(1));
  b.tensors = {GgufBuilder::tiny().tensors.back()};
  return b.bytes();
}

// The tiny model under another architecture's names.
GgufBuilder of_family(const std::string& family) {
  GgufBuilder b = GgufBuilder::tiny();
  b.set("general.architecture", text_value(family));
  for (auto& [key, value] : b.keys) {
    if (key.starts_with("llama.")) key = family + key.substr(5);
  }
  const auto vector = [&](const std::string& name, int64_t size) {
    b.tensors.push_back(
        {name, {size}, 0, std::string(static_cast<size_t>(size) * 4, '\0'), {}, {}});
  };
  if (family == "qwen2" || family == "llama") {
    vector("blk.0.attn_q.bias", 8), vector("blk.0.attn_k.bias", 4), vector("blk.0.attn_v.bias", 4);
  } else if (family == "qwen3") {
    vector("blk.0.attn_q_norm.weight", 4), vector("blk.0.attn_k_norm.weight", 4);
  } else {  // phi3: fused
    std::erase_if(b.tensors, [](const auto& t) {
      return t.name.find("attn_k.") != std::string::npos ||
             t.name.find("attn_v.") != std::string::npos ||
             t.name.find("ffn_gate") != std::string::npos;
    });
    b.tensor("blk.0.attn_q.weight").name = "blk.0.attn_qkv.weight";
    b.tensor("blk.0.attn_qkv.weight").dims = {8, 16};
    b.tensor("blk.0.ffn_up.weight").dims = {8, 32};
    for (GgufBuilder::Tensor& tensor : b.tensors) repair_data(tensor);
  }
  return b;
}

std::vector<std::string> seeds() {
  std::vector<std::string> out;
  const auto add = [&](const GgufBuilder& b) { out.push_back(b.bytes()); };
  add(GgufBuilder::tiny());
  for (const uint32_t type : kTensorTypes)
    add(with_type(type, type >= 10 && type <= 14 ? 256 : 32));
  // One file a value type; arrays of each, too.
  for (uint32_t type = 0; type <= 12; ++type) {
    GgufBuilder b = GgufBuilder::tiny();
    const std::string element = type == 8 ? text("text") : std::string(8, '\1');
    const size_t size = type == 8 ? element.size() : gguf_type_bytes(static_cast<GgufType>(type));
    if (type != 9) b.set("llama.seed", raw(type) + element.substr(0, size));
    b.set("llama.seeds", array_head(type, 2) + element.substr(0, size) + element.substr(0, size));
    add(b);
  }
  for (const uint32_t alignment : {8u, 256u, 65536u}) {
    GgufBuilder b = GgufBuilder::tiny();
    b.alignment = std::min(alignment, 4096u);  // the largest one is refused for its offsets
    b.set("general.alignment", u32_value(alignment));
    add(b);
  }
  add(sentencepiece());
  add(unigram());
  add(first_part());
  for (const char* family : {"llama", "qwen2", "qwen3", "phi3"}) add(of_family(family));
  GgufBuilder scaled = GgufBuilder::tiny();
  scaled.set("llama.rope.scaling.type", text_value("linear"));
  scaled.set("llama.rope.scaling.factor", f32_value(2));
  scaled.set("tokenizer.chat_template",
             text_value("{% for m in messages %}{{ m.content }}{% endfor %}"));
  add(scaled);
  GgufBuilder vocabulary = GgufBuilder::tiny();
  vocabulary.tensors.clear();
  add(vocabulary);
  return out;
}

}  // namespace

const Target& gguf_target() {
  static const Target target{"gguf", run, seeds, mutate};
  return target;
}

}  // namespace tandem::fuzz
