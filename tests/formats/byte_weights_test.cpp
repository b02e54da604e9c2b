// E4M3 and int8 matrices with scales of a row, a tensor or blocks, and 2:4 with a mask: what they
// decode to, and what is refused.
#include "formats/byte_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <span>
#include <tuple>

#include "base/error_message.h"
#include "formats/compressed_tensors.h"
#include "formats/fp8_folder.h"
#include "tensor/dtype.h"
#include "tensor/sparse.h"

namespace tandem {
namespace {

using Scales = ByteScheme::Scales;
using Inputs = ByteScheme::Inputs;

// Tensors of a file, with their bytes.
struct Tensors {
  std::vector<std::unique_ptr<std::string>> bytes;
  SafetensorsFile file;

  template <typename T>
  SafetensorsEntry add(std::string name, std::string dtype, std::vector<int64_t> shape,
                       const std::vector<T>& values) {
    bytes.push_back(std::make_unique<std::string>(reinterpret_cast<const char*>(values.data()),
                                                  values.size() * sizeof(T)));
    const SafetensorsEntry entry{std::move(name), std::move(dtype), std::move(shape),
                                 std::as_bytes(std::span(*bytes.back()))};
    file.tensors.push_back(entry);
    return entry;
  }
};

std::vector<float> row_of(const Weight& weight, int64_t n) {
  std::vector<float> row(static_cast<size_t>(weight.K));
  decode_row(weight, n, row.data());
  return row;
}

// E4M3 bytes 0x30 ... of [N, K].
std::vector<uint8_t> codes_of(int64_t N, int64_t K) {
  std::vector<uint8_t> codes(static_cast<size_t>(N * K));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(0x30 + i % 64);
  return codes;
}

TEST(ByteWeights, BlocksThatAreCutOffAtBothEnds) {
  constexpr int64_t N = 130, K = 200;
  Tensors tensors;
  const auto codes = tensors.add("w.weight", "F8_E4M3", {N, K}, codes_of(N, K));
  const auto scale = tensors.add<float>("w.weight_scale_inv", "F32", {2, 2}, {0.5f, 2.0f, 3.0f, 7.0f});
  std::vector<std::shared_ptr<const Buffer>> memory;
  const ByteScheme scheme{.scales = Scales::block, .block_rows = 128};
  const Weight weight = read_byte_weight(scheme, codes, scale, nullptr, "x", &memory);
  EXPECT_EQ(weight.encoding, fp8_block(ScaleType::f32));
  for (const auto& [n, k, factor] : {std::tuple(0, 0, 0.5f), std::tuple(127, 127, 0.5f), std::tuple(0, 128, 2.0f),
                                     std::tuple(127, 199, 2.0f), std::tuple(128, 0, 3.0f), std::tuple(129, 199, 7.0f)}) {
    const uint8_t code = codes_of(N, K)[static_cast<size_t>(n * K + k)];
    EXPECT_EQ(row_of(weight, n)[static_cast<size_t>(k)], e4m3_to_float(code) * factor) << n << " " << k;
  }
  const auto wrong = tensors.add<float>("s", "F32", {2, 1}, {1, 1});
  message_of(ErrorKind::bad_file, [&] { read_byte_weight(scheme, codes, wrong, nullptr, "x", &memory); });
}

TEST(ByteWeights, OneScaleForAllRows) {
  Tensors tensors;
  const auto codes = tensors.add("w.weight", "F8_E4M3", {3, 8}, codes_of(3, 8));
  std::vector<std::shared_ptr<const Buffer>> memory;
  for (const auto& shape : std::vector<std::vector<int64_t>>{{}, {1}, {1, 1}}) {
    const auto scale = tensors.add<float>("s", "F32", shape, {0.25f});
    const Weight weight =
        read_byte_weight({.scales = Scales::tensor}, codes, scale, nullptr, "x", &memory);
    EXPECT_EQ(weight.encoding, fp8_channel(ScaleType::f32));
    EXPECT_EQ(row_of(weight, 2)[7], e4m3_to_float(0x30 + 23) * 0.25f);
  }
  const auto rows = tensors.add<float>("s", "F32", {3}, {1, 2, 4});
  const Weight weight = read_byte_weight({.scales = Scales::row}, codes, rows, nullptr, "x", &memory);
  EXPECT_EQ(row_of(weight, 2)[0], e4m3_to_float(0x30 + 16) * 4);
}

TEST(ByteWeights, FixedActivationScales) {
  Tensors tensors;
  const auto codes = tensors.add<int8_t>("w.weight", "I8", {1, 4}, {-128, 0, 1, 127});
  const auto scale = tensors.add<float>("s", "F32", {1, 1}, {0.5f});
  std::vector<std::shared_ptr<const Buffer>> memory;
  const ByteScheme scheme{.is_float = false, .inputs = Inputs::fixed};
  const auto input = tensors.add<float>("i", "F32", {1}, {0.125f});
  const Weight weight = read_byte_weight(scheme, codes, scale, &input, "x", &memory);
  EXPECT_EQ(weight.encoding, int8_static(ScaleType::f32));
  EXPECT_EQ(weight.input_scale, 0.125f);
  EXPECT_EQ(row_of(weight, 0), (std::vector<float>{-64, 0, 0.5f, 63.5f}));
  const auto refused = [&](const SafetensorsEntry* entry) {
    return message_of(ErrorKind::bad_file,
                      [&] { read_byte_weight(scheme, codes, scale, entry, "x", &memory); });
  };
  EXPECT_EQ(refused(nullptr), "x: its input_scale is missing, which its config asks for");
  for (const float bad : {0.0f, -1.0f, NAN, INFINITY}) {
    const auto entry = tensors.add<float>("i", "F32", {1}, {bad});
    EXPECT_NE(refused(&entry).find("expected a finite number above 0"), std::string::npos);
  }
}

TEST(ByteWeights, WhatNoKernelRunsIsRefused) {
  for (const ByteScheme& scheme : {ByteScheme{.scales = Scales::block, .inputs = Inputs::fixed},
                                   ByteScheme{.is_float = false, .scales = Scales::block},
                                   ByteScheme{.scales = Scales::block, .inputs = Inputs::plain},
                                   ByteScheme{.is_float = false, .inputs = Inputs::plain}}) {
    message_of(ErrorKind::bad_file, [&] { scheme.packing("x"); });
  }
}

TEST(Fp8Folder, ReadsEachDialect) {
  Tensors tensors;
  const std::string layer = "model.layers.0.mlp.down_proj";
  tensors.add(layer + ".weight", "F8_E4M3", {2, 8}, codes_of(2, 8));
  tensors.add<float>(layer + ".weight_scale", "F32", {1}, {2.0f});
  tensors.add<float>(layer + ".input_scale", "F32", {}, {0.5f});
  tensors.add<uint16_t>("model.norm.weight", "BF16", {1}, {0x3F80});
  std::vector<std::shared_ptr<const Buffer>> memory;
  const Json fixed = {{"quant_method", "fp8"}, {"activation_scheme", "static"}, {"ignored_layers", {"lm_head"}}};
  const auto read = read_fp8_weights(tensors.file, read_fp8_config(fixed, "c"), "f", &memory);
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(read[0].weight.encoding, fp8_static(ScaleType::f32));
  EXPECT_EQ(read[0].weight.input_scale, 0.5f);
  EXPECT_EQ(row_of(read[0].weight, 1)[0], e4m3_to_float(0x38) * 2);

  const Json dynamic = {{"quant_method", "fp8"}};
  EXPECT_EQ(read_fp8_weights(tensors.file, read_fp8_config(dynamic, "c"), "f", &memory)[0].weight.encoding,
            fp8_channel(ScaleType::f32));
  const Json block = {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
  EXPECT_EQ(message_of(ErrorKind::bad_file,
                       [&] { read_fp8_weights(tensors.file, read_fp8_config(block, "c"), "f", &memory); }),
            "f: tensor 'model.layers.0.mlp.down_proj.weight': its companion "
            "'model.layers.0.mlp.down_proj.weight_scale_inv' is missing");
}

TEST(Mask24, ReadsValuesBesideAMask) {
  Tensors tensors;
  const std::string module = "model.layers.0.mlp.down_proj";
  // Kept: 0 and 1, then 0 and 2. Bit j of the byte is column j.
  tensors.add<uint16_t>(module + ".compressed", "BF16", {1, 4}, {0x3F80, 0x4000, 0x4040, 0x4080});
  tensors.add<uint8_t>(module + ".bitmask", "U8", {1, 1}, {0x53});
  tensors.add<int64_t>(module + ".shape", "I64", {2, 1}, {1, 8});
  const Json config = {{"quant_method", "compressed-tensors"},
                       {"sparsity_config", {{"format", "sparse-24-bitmask"}}}};
  RepackedPlanes planes;
  std::vector<std::shared_ptr<const Buffer>> memory;
  const auto read = [&] {
    return read_weights(tensors.file, read_quantization_config(config, "c"), "f", &planes, &memory);
  };
  const auto weights = read();
  ASSERT_EQ(weights.size(), 1u);
  EXPECT_EQ(weights[0].name, module + ".weight");
  EXPECT_EQ(row_of(weights[0].weight, 0), (std::vector<float>{1, 2, 0, 0, 3, 0, 4, 0}));
  EXPECT_EQ(weights[0].weight.total_bytes(), 9u);

  std::vector<std::byte> bytes(weights[0].weight.encoding.row_bytes(8));
  const Weight canonical = with_places(weights[0].weight, bytes.data());
  EXPECT_EQ(row_of(canonical, 0), row_of(weights[0].weight, 0));
  EXPECT_EQ(bytes[8], std::byte{0x84});

  for (const uint8_t mask : {0x51, 0x57, 0x50, 0xF3}) {  // one, three, none and four of a group
    *tensors.bytes[1] = std::string(1, static_cast<char>(mask));
    EXPECT_GE(first_bad_places(read()[0].weight, 0), 0) << int{mask};
  }
  tensors.file.tensors[0].shape = {1, 3};
  message_of(ErrorKind::bad_file, read);
}

}  // namespace
}  // namespace tandem
