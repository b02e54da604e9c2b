// The GPU as a device: its facts, its limits, rows of random weights to the bit, and memory that it
// does not have.
#include <gtest/gtest.h>

#include "kernels/cuda_memory.h"
#include "tensor/random_rows.h"

namespace tandem {
namespace {

class CudaDeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    device_ = cuda_or_null(&reason);
    if (device_ == nullptr) GTEST_SKIP() << reason;
  }

  void expect_host_rows(const Encoding& encoding, int64_t N, int64_t K,
                        const std::vector<int64_t>& wanted) {
    SCOPED_TRACE(encoding.name() + " K " + std::to_string(K));
    RandomRows rows;
    ASSERT_TRUE(random_rows_of(encoding, K, 42, rows));
    const auto data_bytes = static_cast<size_t>(rows.row_bytes);
    const auto scales_bytes = static_cast<size_t>(rows.groups * rows.scale_bytes);
    Buffer data(static_cast<size_t>(N) * data_bytes, device_.get());
    Buffer scales(std::max<size_t>(static_cast<size_t>(N) * scales_bytes, 16), device_.get());
    device_->random_rows(rows, N, data.data(), scales.data());
    std::vector<std::byte> row(data_bytes), row_scales(scales_bytes), made(data_bytes),
        made_scales(scales_bytes);
    for (const int64_t n : wanted) {
      const auto at = static_cast<size_t>(n);
      device_->download(made.data(), data.data() + at * data_bytes, data_bytes);
      device_->download(made_scales.data(), scales.data() + at * scales_bytes, scales_bytes);
      make_random_row(rows, n, row.data(), row_scales.data());
      ASSERT_EQ(row, made) << "row " << n;
      ASSERT_EQ(row_scales, made_scales) << "row " << n;
    }
  }
  std::shared_ptr<Device> device_;
};

// What a GPU makes itself.
const Encoding kMade[] = {kBF16,
                          kF16,
                          int8_channel(ScaleType::bf16),
                          int4_group(32, ScaleType::f16),
                          int4_group(128, ScaleType::f16),
                          kQ4_0,
                          kQ4_1,
                          kQ8_0,
                          kQ4_K,
                          kQ6_K,
                          kNF4,
                          kFP4,
                          fp8_channel(ScaleType::bf16),
                          kBF16_24,
                          kF16_24,
                          int4_group_24(128, ScaleType::f16)};

TEST_F(CudaDeviceTest, IsDescribedWithoutBeingOpened) {
  const DeviceFacts facts = describe_device("cuda");
  EXPECT_EQ(facts.name, "cuda:0");
  EXPECT_EQ(facts.description(), device_->description());
  EXPECT_GT(facts.memory_bytes, device_->free_bytes());
  EXPECT_GT(facts.multiprocessors, 0);
  EXPECT_NE(facts.pci_address.find(':'), std::string::npos);
}

TEST_F(CudaDeviceTest, OneThatIsNotThereIsRefused) {
  try {
    describe_device("cuda:99");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::no_device);
    EXPECT_NE(std::string(error.what()).find("cuda:99: there "), std::string::npos) << error.what();
  }
}

TEST_F(CudaDeviceTest, MemoryThatIsNotThereIsRefusedWithBothNumbers) {
  const uint64_t wanted = describe_device("cuda").memory_bytes + 1;
  try {
    const Buffer buffer(wanted, device_.get());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, ErrorKind::no_memory);
    EXPECT_NE(std::string(error.what()).find(std::to_string(wanted) + " bytes wanted, "),
              std::string::npos)
        << error.what();
  }
}

// Every row of a small sheet; this one also runs under compute-sanitizer.
TEST_F(CudaDeviceTest, RandomRowsOfSmallSheets) {
  std::vector<int64_t> all(33);
  for (size_t n = 0; n < all.size(); ++n) all[n] = static_cast<int64_t>(n);
  for (const Encoding& encoding : kMade) expect_host_rows(encoding, 33, 768, all);
}

// At the shapes of large models the host makes again the first, the last and some between.
TEST_F(CudaDeviceTest, RandomRowsOfLargeSheets) {
  for (const Encoding& encoding : kMade) {
    expect_host_rows(encoding, 4097, 14336, {0, 1, 1366, 4095, 4096});
    expect_host_rows(encoding, 128257, 4096, {0, 1, 42752, 128255, 128256});
  }
}

TEST_F(CudaDeviceTest, LimitsArePlausible) {
  const DeviceLimits limits = device_->measure_limits();
  EXPECT_GT(limits.stream_bytes, uint64_t{1} << 30);
  // A copy moves each byte twice, so it can hardly be faster than reading, nor much slower.
  EXPECT_GT(limits.read_bytes_per_second, 0.8 * limits.copy_bytes_per_second);
  EXPECT_LT(limits.read_bytes_per_second, 2 * limits.copy_bytes_per_second);
  EXPECT_GT(limits.launch_seconds, 1e-7);
  EXPECT_LT(limits.launch_seconds, 1e-4);
  EXPECT_EQ(limits.gemms.empty(), device_->gemm_library().empty());
  for (const DeviceLimits::Gemm& gemm : limits.gemms) {
    EXPECT_GT(gemm.operations_per_second, 1e13) << gemm.type;
  }
}

}  // namespace
}  // namespace tandem
