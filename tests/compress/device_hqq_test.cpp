// HQQ on a GPU against the host's: the same rules, sums in another order. Skipped without a GPU.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "compress/hqq.h"

namespace tandem {
namespace {

TEST(DeviceHqq, CodesAreTheHosts) {
  std::shared_ptr<Device> device;
  std::unique_ptr<FloatWork> work;
  try {
    device = open_device("cuda");
    work = make_float_work(*device);
  } catch (const Error& error) {
    GTEST_SKIP() << error.what();
  }
  ThreadPool pool(2);
  Matrix w(40, 384);
  Random random(1);
  for (float& value : w.values) {
    const double x = random.normal();
    value = static_cast<float>(x * x * x);  // with outliers
  }
  std::fill_n(w.row(3), w.K, 0.0f);
  for (const IntegerGrid grid : {IntegerGrid{4, 64, false, ScaleType::bf16},
                                 IntegerGrid{3, 128, false, ScaleType::f16},
                                 IntegerGrid{8, 0, false, ScaleType::f32}}) {
    const GridMatrix expected = hqq_integer_zeros(w, grid, {}, pool);
    const GridMatrix found = device_hqq_integer_zeros(w, grid, {}, *work);
    EXPECT_EQ(found.scales, expected.scales) << grid.bits;
    size_t codes = 0, zeros = 0;
    for (size_t i = 0; i < found.codes.size(); ++i) codes += found.codes[i] == expected.codes[i];
    for (size_t i = 0; i < found.zeros.size(); ++i) zeros += found.zeros[i] == expected.zeros[i];
    std::printf("%d bits: %zu of %zu codes, %zu of %zu zeros are equal\n", grid.bits, codes,
                found.codes.size(), zeros, found.zeros.size());
    EXPECT_GT(static_cast<double>(codes), 0.99 * static_cast<double>(found.codes.size()));
    EXPECT_GT(static_cast<double>(zeros), 0.98 * static_cast<double>(found.zeros.size()));
  }
}

}  // namespace
}  // namespace tandem
