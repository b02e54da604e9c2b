// GGUF: the container, the model inside, its rows decoded, its tokenizer and template built, and
// for what is small enough a few tokens run through the scalar reference.
#include "formats/gguf.h"

#include <algorithm>

#include "base/error.h"
#include "formats/checkpoint.h"
#include "formats/gguf_tokenizer.h"
#include "fuzz/gguf_mutator.h"
#include "fuzz/gguf_seeds.h"
#include "fuzz/target.h"
#include "model/model.h"
#include "runtime/engine.h"
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

void run(std::string_view input) {
  const auto bytes = std::as_bytes(std::span(input));
  expect_error_or_success([&] {
    const GgufFile file = parse_gguf(bytes, "x", GgufTensors::optional);
    expect_error_or_success([&] { use_tokenizer(read_gguf_tokenizer(file, "x")); });
  });
  constexpr const char* kFirst = "model-00001-of-00002.gguf";
  static const ScratchFolder folder;
  static const bool written = (folder.write("model-00002-of-00002.gguf", second_gguf_part()), true);
  require(written, "there is a second part");
  folder.write(kFirst, input);
  expect_error_or_success([] {
    const Checkpoint model = load_checkpoint(folder.path() + "/" + kFirst);
    decode_rows(model);
    if (numbers_in(model) <= kMaxNumbers) run_model(model);
  });
}

}  // namespace

const Target& gguf_target() {
  static const Target target{"gguf", run, gguf_seeds, mutate_gguf};
  return target;
}

}  // namespace tandem::fuzz
