#include "study/random_model.h"

#include "formats/random_checkpoint.h"

namespace tandem {
namespace {

constexpr uint64_t kSeed = 1;

}  // namespace

RandomWeights parse_random_weights(const std::string& name) {
  RandomWeights weights;
  const size_t plus = name.find('+');
  weights.encoding = name.substr(0, plus);
  if (plus != std::string::npos) weights.lm_head = name.substr(plus + 1);
  encoding_of(weights.encoding);
  encoding_of(weights.lm_head);
  return weights;
}

Checkpoint make_random_model(const std::filesystem::path& shape, const RandomWeights& weights,
                             Device* device, ThreadPool& pool) {
  const RowMaker maker{
      device, [device](const RandomRows& rows, int64_t N, std::byte* data, std::byte* scales) {
        device->random_rows(rows, N, data, scales);
      }};
  return random_checkpoint(read_model_shape(shape), encoding_of(weights.encoding),
                           encoding_of(weights.lm_head), kSeed, pool,
                           device != nullptr ? &maker : nullptr);
}

}  // namespace tandem
