#include "compress/device_gptq.h"

#include <algorithm>

#include "base/error.h"

namespace tandem {
namespace {

template <typename T>
Buffer on_device(const std::vector<T>& values, Device& device) {
  if (values.empty()) return {};
  Buffer buffer(values.size() * sizeof(T), &device);
  device.upload(buffer.data(), values.data(), buffer.size_bytes());
  return buffer;
}

template <typename T>
void fetch(std::vector<T>* values, const Buffer& from, Device& device) {
  device.download(values->data(), from.data(), values->size() * sizeof(T));
}

}  // namespace

DeviceFactor device_inverse_factor(const InputStatistics& inputs, double damping,
                                   std::vector<int32_t> order, FloatWork& work) {
  const int64_t K = inputs.K;
  Device& device = work.device();
  Buffer uploaded;
  if (inputs.device_gram == nullptr) uploaded = on_device(inputs.gram, device);
  const Buffer& gram = inputs.device_gram != nullptr ? *inputs.device_gram : uploaded;
  const std::vector<uint8_t> dead = dead_inputs(inputs);
  DeviceFactor factor;
  factor.K = K;
  factor.order = std::move(order);
  factor.channels = on_device(factor.order, device);
  factor.dead = on_device(dead, device);
  factor.upper = Buffer(static_cast<size_t>(K * K) * sizeof(float), &device);
  Buffer spare(factor.upper.size_bytes(), &device);
  const auto succeeds = [&](double added) {
    return work.inverse_factor(gram.as<float>(), K, factor.channels.as<int32_t>(),
                               factor.dead.as<uint8_t>(), static_cast<float>(added),
                               factor.upper.as<float>(), spare.as<float>());
  };
  factor.damping = find_damping(inputs, dead, damping, succeeds);
  device.synchronize();  // before `spare` goes
  return factor;
}

GridMatrix device_gptq(const Matrix& w, const std::vector<uint8_t>& keep,
                       const DeviceFactor& factor, const GptqOptions& options, FloatWork& work) {
  CHECK(factor.K == w.K && (keep.empty() || keep.size() == w.values.size()), "K {} {} keep {}",
        factor.K, w.K, keep.size());
  Device& device = work.device();
  GridMatrix out(options.grid, w.N, w.K);
  const bool has_columns = options.order == ColumnOrder::act && !options.static_groups;
  if (has_columns) out.columns = factor.order;
  const auto N = static_cast<size_t>(w.N);
  Buffer values = on_device(w.values, device), kept = on_device(keep, device);
  Buffer spare(factor.order.empty() ? 0 : values.size_bytes(), &device);
  Buffer errors(N * ColumnRounding::kBlockColumns * sizeof(float), &device);
  Buffer codes(out.codes.size(), &device), zeros(out.zeros.size(), &device);
  Buffer scales(out.scales.size() * sizeof(float), &device);
  ColumnRounding rounding;
  rounding.grid = {options.grid.bits, options.grid.group_size(w.K), options.grid.symmetric,
                   options.search, options.grid.scale_type};
  rounding.N = w.N;
  rounding.K = w.K;
  rounding.fits_first = options.static_groups;
  rounding.w = values.as<float>();
  rounding.spare = spare.as<float>();
  rounding.keep = kept.as<uint8_t>();
  rounding.dead = factor.dead.as<uint8_t>();
  rounding.channels = factor.channels.as<int32_t>();
  rounding.columns = has_columns ? nullptr : rounding.channels;
  rounding.factor = factor.upper.as<float>();
  rounding.errors = errors.as<float>();
  rounding.codes = codes.as<uint8_t>();
  rounding.scales = scales.as<float>();
  rounding.zeros = zeros.as<uint8_t>();
  work.round_columns(rounding);
  fetch(&out.codes, codes, device);
  fetch(&out.scales, scales, device);
  fetch(&out.zeros, zeros, device);
  return out;
}

uint64_t device_gptq_bytes(int64_t N, int64_t K) {
  const auto factor = static_cast<uint64_t>(3 * K * K) * sizeof(float);
  // w twice, codes and a mask; scales and zeros are at most as many as the codes of a group of 32.
  const auto matrix = static_cast<uint64_t>(N * K) * (2 * sizeof(float) + 2 + 1);
  return factor + matrix + static_cast<uint64_t>(N * ColumnRounding::kBlockColumns) * sizeof(float);
}

}  // namespace tandem
