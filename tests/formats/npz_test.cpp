// .npz files: NumPy's own (tests/golden/masks, written by savez and savez_compressed), and what
// broken or hostile archives get.
#include "formats/npz.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error_message.h"
#include "formats/temporary_folder.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

const fs::path kMasks = fs::path(TANDEM_TEST_DIR) / "golden" / "masks";
const std::string kMask = "model.layers.0.self_attn.q_proj.weight.mask";
// np.packbits: the first bit is the highest.
const std::vector<uint8_t> kPacked = {0xca, 0x96, 0x53};

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Npz, ReadsWhatNumpyWrites) {
  const NpzFile deflated(kMasks / "deflated.npz");
  EXPECT_EQ(deflated.names(), (std::vector<std::string>{"long", kMask}));
  EXPECT_EQ(deflated.read_bytes(kMask, 3), kPacked);
  EXPECT_EQ(deflated.read_bytes("long", 5000), std::vector<uint8_t>(5000));
  EXPECT_EQ(NpzFile(kMasks / "stored.npz").read_bytes("a", 3), kPacked);
}

TEST(Npz, RefusesOtherArrays) {
  const NpzFile stored(kMasks / "stored.npz");
  const std::string where = (kMasks / "stored.npz").string() + ": array ";
  const auto refusal = [&](const char* name, uint64_t count) {
    const std::string message =
        message_of(ErrorKind::bad_file, [&] { stored.read_bytes(name, count); });
    EXPECT_TRUE(message.starts_with(where)) << message;
    return message.substr(where.size());
  };
  EXPECT_EQ(refusal("b", 3), "'b': missing");
  EXPECT_EQ(refusal("a", 4), "'a': dtype '|u1' shape '(3,)', expected '|u1' '(4,)'");
  EXPECT_EQ(refusal("floats", 12),
            "'floats': dtype '<f4' shape '(3,)', expected '|u1' '(12,)'");
  EXPECT_EQ(refusal("square", 6), "'square': dtype '|u1' shape '(2, 3)', expected '|u1' '(6,)'");
  EXPECT_EQ(refusal("a", 100000), "'a': 131 bytes, expected a .npy array of 100000");
}

// A member is not unpacked to see what it holds: its stated size decides first.
TEST(Npz, DoesNotUnpackWhatIsTooLarge) {
  EXPECT_EQ(message_of(ErrorKind::bad_file,
                       [] { NpzFile(kMasks / "deflated.npz").read_bytes("long", 3); }),
            (kMasks / "deflated.npz").string() +
                ": array 'long': 5128 bytes, expected a .npy array of 3");
}

TEST(Npz, NeverReadsPickles) {
  const NpzFile pickled(kMasks / "pickled.npz");
  const std::string message =
      message_of(ErrorKind::bad_file, [&] { pickled.read_bytes("a", 40); });
  EXPECT_TRUE(message.ends_with("pickled Python objects, which are never read")) << message;
}

// Every prefix and every changed byte: refused in one line or read as it was, never a crash.
TEST(Npz, SurvivesCutsAndChanges) {
  const std::string good = bytes_of(kMasks / "deflated.npz");
  const TemporaryFolder dir;
  const fs::path path = dir.path() / "mask.npz";
  int refused = 0, read = 0;
  const auto attempt = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    try {
      EXPECT_EQ(NpzFile(path).read_bytes(kMask, 3), kPacked);
      ++read;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind, ErrorKind::bad_file);
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      ++refused;
    }
  };
  for (size_t length = 0; length < good.size(); ++length) attempt(good.substr(0, length));
  EXPECT_EQ(read, 0);
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x5a);
    attempt(bytes);
  }
  EXPECT_GT(refused, static_cast<int>(good.size()));
  EXPECT_GT(read, 0);  // dates, versions and the other array's bytes do not matter
}

}  // namespace
}  // namespace tandem
