#include "compress/mask_file.h"

#include "base/error.h"

namespace tandem {

std::vector<uint8_t> read_mask(const NpzFile& file, const std::string& module, int64_t N,
                               int64_t K) {
  CHECK(K % 4 == 0, "K {}", K);
  const std::string name = module + ".weight.mask";
  const auto count = static_cast<size_t>(N * K);
  const std::vector<uint8_t> bits = file.read_bytes(name, (count + 7) / 8);
  std::vector<uint8_t> keep(count);
  int kept = 0;
  for (size_t i = 0; i < count; ++i) {
    keep[i] = bits[i / 8] >> (7 - i % 8) & 1;
    kept += keep[i];
    if (i % 4 != 3) continue;
    if (kept != 2) {
      fail(ErrorKind::bad_file, "{}: array {}: row {} keeps {} of columns {} to {}, expected 2",
           file.path().string(), quote(name), i / static_cast<size_t>(K), kept,
           i % static_cast<size_t>(K) - 3, i % static_cast<size_t>(K));
    }
    kept = 0;
  }
  return keep;
}

}  // namespace tandem
