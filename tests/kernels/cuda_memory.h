// What tests of CUDA kernels share: the device, or a skip without one; and vectors on it.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <vector>

#include "base/error.h"
#include "kernels/device.h"
#include "kernels/random_weight.h"
#include "kernels/rows.h"

namespace tandem {

// The GPU with the kernels of `isa`: its own, or an older generation's. Null, with the reason, where
// there is none.
inline std::shared_ptr<Device> cuda_or_null(std::string* reason, const std::string& isa = "cuda") {
  static std::map<std::string, std::shared_ptr<Device>> devices;
  try {
    std::shared_ptr<Device>& device = devices[isa];
    if (device == nullptr) device = open_device(isa == "cuda" ? isa : "cuda@" + isa);
    return device;
  } catch (const Error& error) {
    *reason = error.what();
    return nullptr;
  }
}

template <typename T>
struct OnDevice {
  OnDevice(Device& device_, const std::vector<T>& values)
      : device(device_),
        count(values.size()),
        buffer(std::max<size_t>(values.size() * sizeof(T), 16), &device_) {
    device.upload(buffer.data(), values.data(), values.size() * sizeof(T));
  }
  T* data() { return buffer.as<T>(); }
  std::vector<T> values() {
    std::vector<T> out(count);
    device.download(out.data(), buffer.data(), count * sizeof(T));
    return out;
  }
  Device& device;
  size_t count;
  Buffer buffer;
};

// What there is besides linear, Hopper's first; empty in a build without CUDA.
inline std::vector<OpSet> cuda_op_sets() {
  std::vector<OpSet> sets(older_cuda_ops().begin(), older_cuda_ops().end());
  if (cuda_ops() != nullptr) sets.insert(sets.begin(), *cuda_ops());
  return sets;
}

// Activations on the device, every field filled with what no kernel writes.
struct DeviceActivations {
  DeviceActivations(Device& device, ActType type, int64_t T, int64_t K)
      : host(type, T, K),
        f32(device, host.f32),
        scales(device, host.scales),
        sums(device, host.sums),
        codes(device, host.codes),
        half(device, std::vector<uint16_t>(static_cast<size_t>(T * host.view.K_padded()), 0x7FFF)) {
    view = host.view;
    view.f32 = f32.data();
    view.scales = scales.data();
    view.sums = sums.data();
    view.codes = codes.data();
    view.half = half.data();
  }
  // The numbers as they lie on the device, in `host`.
  const OwnedActivations& fetch() {
    host.f32 = f32.values();
    host.scales = scales.values();
    host.sums = sums.values();
    host.codes = codes.values();
    return host;
  }
  // What stands for x[t, k], once fetched.
  double value(int64_t t, int64_t k) {
    if (view.type != ActType::bf16 && view.type != ActType::f16) return host.value(t, k);
    if (halves.empty()) halves = half.values();
    const uint16_t h = halves[static_cast<size_t>(t * view.K_padded() + k)];
    return view.type == ActType::bf16 ? bf16_to_float(h) : f16_to_float(h);
  }
  OwnedActivations host;
  OnDevice<float> f32, scales, sums;
  OnDevice<int8_t> codes;
  OnDevice<uint16_t> half;
  std::vector<uint16_t> halves;
  Activations view;
};

}  // namespace tandem
