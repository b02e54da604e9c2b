// HQQ's search on a device; when it ends is decided here.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "compress/hqq.h"

namespace tandem {

GridMatrix device_hqq_integer_zeros(const Matrix& w, const IntegerGrid& grid,
                                    const HqqOptions& options, FloatWork& work) {
  CHECK(!grid.symmetric && grid.bits >= 2 && grid.bits <= 8, "bits {}", grid.bits);
  Device& device = work.device();
  GridMatrix out(grid, w.N, w.K);
  Buffer values(w.values.size() * sizeof(float), &device);
  Buffer scales(out.scales.size() * sizeof(float), &device);
  Buffer zeros(scales.size_bytes(), &device), codes(out.codes.size(), &device);
  Buffer errors(static_cast<size_t>(w.N) * sizeof(double), &device);
  device.upload(values.data(), w.values.data(), values.size_bytes());
  ZeroSearch search;
  search.w = values.as<float>();
  search.N = w.N;
  search.K = w.K;
  search.group = grid.group_size(w.K);
  search.bits = grid.bits;
  search.scale_type = grid.scale_type;
  search.spans_zero = true;
  search.p = options.p;
  search.beta = options.beta;
  search.threshold = hqq_threshold(options);
  search.scales = scales.as<float>();
  search.zeros = zeros.as<float>();
  search.row_errors = errors.as<double>();
  search.codes = codes.as<uint8_t>();
  work.find_ranges(search);
  std::vector<double> row_errors(static_cast<size_t>(w.N));
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < options.max_iterations; ++i) {
    work.move_zeros(search);
    device.download(row_errors.data(), errors.data(), errors.size_bytes());
    double error = 0.0;
    for (const double row : row_errors) error += row;
    if (error >= best) break;
    best = error;
  }
  std::vector<float> rounded(out.zeros.size());
  device.download(rounded.data(), zeros.data(), zeros.size_bytes());
  for (size_t i = 0; i < rounded.size(); ++i) {
    const float most = static_cast<float>(grid.max_code());
    rounded[i] = std::clamp(std::nearbyintf(rounded[i]), 0.0f, most);
    out.zeros[i] = static_cast<uint8_t>(rounded[i]);
  }
  device.upload(zeros.data(), rounded.data(), zeros.size_bytes());
  work.make_codes(search);
  device.download(out.codes.data(), codes.data(), codes.size_bytes());
  device.download(out.scales.data(), scales.data(), scales.size_bytes());
  return out;
}

}  // namespace tandem
