// Models in several GGUF files: what is read as one, and what is refused.
#include "formats/gguf_split.h"

#include <gtest/gtest.h>

#include "formats/gguf_builder.h"
#include "formats/temporary_folder.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

std::string u16_value(uint16_t v) { return raw<uint32_t>(2) + raw(v); }

std::string part_name(size_t no, size_t count) {
  return fmt::format("tiny-{:05}-of-{:05}.gguf", no + 1, count);
}

// The tiny model in three parts of 0, 6 and 5 tensors, as gguf-split --no-tensor-first-split does.
std::vector<GgufBuilder> tiny_parts() {
  const GgufBuilder whole = GgufBuilder::tiny();
  std::vector<GgufBuilder> parts(3);
  parts[0].keys = whole.keys;
  for (uint16_t no = 0; no < 3; ++no) {
    parts[no].set("split.no", u16_value(no));
    parts[no].set("split.count", u16_value(3));
    parts[no].set("split.tensors.count", i32_value(static_cast<int32_t>(whole.tensors.size())));
  }
  for (size_t i = 0; i < whole.tensors.size(); ++i) {
    parts[i < 6 ? 1 : 2].tensors.push_back(whole.tensors[i]);
  }
  return parts;
}

void write_parts(const TemporaryFolder& folder, const std::vector<GgufBuilder>& parts) {
  for (size_t no = 0; no < parts.size(); ++no) {
    folder.write(part_name(no, parts.size()), parts[no].bytes());
  }
}

TEST(GgufSplit, PartsAreTheWholeModel) {
  const TemporaryFolder folder;
  write_parts(folder, tiny_parts());
  const Checkpoint whole = load_checkpoint(folder.write("w.gguf", GgufBuilder::tiny().bytes()));
  const Checkpoint split = load_checkpoint(folder.path() / part_name(0, 3));
  EXPECT_EQ(split.format, "GGUF v3 in 3 parts");
  EXPECT_EQ(split.files.size(), 3u);
  EXPECT_EQ(split.tokenizer.tokens, whole.tokenizer.tokens);
  ASSERT_EQ(split.tensors.size(), whole.tensors.size());
  for (const NamedTensor& tensor : whole.tensors) {
    const Weight& other = split.weight(tensor.name);
    EXPECT_EQ(std::memcmp(other.data, tensor.weight.data, other.data_bytes()), 0) << tensor.name;
  }
}

TEST(GgufSplit, AFileThatIsTheOnlyPartNeedsNoSpecialName) {
  GgufBuilder b = GgufBuilder::tiny();
  b.set("split.no", u16_value(0));
  b.set("split.count", u16_value(1));
  const TemporaryFolder folder;
  EXPECT_EQ(load_checkpoint(folder.write("tiny.gguf", b.bytes())).format, "GGUF v3");
}

struct Case {
  const char* name;
  const char* expected;  // a part of the message
  std::function<void(const TemporaryFolder&, std::vector<GgufBuilder>&)> spoil;
};

const Case kCases[] = {
    {"missing part", "tiny-00002-of-00003.gguf: cannot be read: No such file",
     [](const auto& folder, auto&) { fs::remove(folder.path() / part_name(1, 3)); }},
    {"part of another count", "part 2: key 'split.count' is 4, expected 3",
     [](const auto&, auto& parts) { parts[1].set("split.count", u16_value(4)); }},
    {"part with another number", "part 3: key 'split.no' is 1, expected 2",
     [](const auto&, auto& parts) { parts[2].set("split.no", u16_value(1)); }},
    {"part without a number", "part 2: key 'split.no' is missing",
     [](const auto&, auto& parts) { parts[1].erase("split.no"); }},
    {"number that is text", "part 2: key 'split.no' is a string, expected",
     [](const auto&, auto& parts) { parts[1].set("split.no", text_value("1")); }},
    {"part of another total", "part 2: key 'split.tensors.count' is 12, expected 11",
     [](const auto&, auto& parts) { parts[1].set("split.tensors.count", i32_value(12)); }},
    {"all totals too large", "part 1: key 'split.tensors.count' is 12, the parts hold 11 tensors",
     [](const auto&, auto& parts) {
       for (auto& part : parts) part.set("split.tensors.count", i32_value(12));
     }},
    {"negative total", "part 1: key 'split.tensors.count' is -1, expected an integer",
     [](const auto&, auto& parts) { parts[0].set("split.tensors.count", i32_value(-1)); }},
    {"part of another model", "part 3: key 'general.name' differs from the first part's",
     [](const auto&, auto& parts) { parts[2].set("general.name", text_value("other")); }},
    {"tensor in two parts", "part 1: tensor 'blk.0.attn_norm.weight' stands in two parts",
     [](const auto&, auto& parts) { parts[2].tensors[0] = parts[1].tensors[1]; }},
    {"count beyond the cap", "part 1: key 'split.count' is 65535, at most 4096",
     [](const auto&, auto& parts) { parts[0].set("split.count", u16_value(65535)); }},
    {"number beyond the count", "part 1: key 'split.no' is 3, expected below 3",
     [](const auto&, auto& parts) { parts[0].set("split.no", u16_value(3)); }},
    {"link out of the folder", "part 2: is a link to",
     [](const auto& folder, auto&) {
       fs::remove(folder.path() / part_name(1, 3));
       fs::create_symlink("/etc/hostname", folder.path() / part_name(1, 3));
     }},
};

TEST(GgufSplit, SpoiltPartsAreRefused) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const TemporaryFolder folder;
    auto parts = tiny_parts();
    write_parts(folder, parts);
    c.spoil(folder, parts);
    for (size_t no = 0; no < parts.size(); ++no) {  // links and missing files stay
      const fs::path path = folder.path() / part_name(no, 3);
      if (fs::is_regular_file(fs::symlink_status(path)))
        folder.write(part_name(no, 3), parts[no].bytes());
    }
    std::string message = error_of([&] { load_checkpoint(folder.path() / part_name(0, 3)); });
    for (size_t no = 0; no < parts.size(); ++no) {  // "part 2" for the path that opens the message
      const std::string path = (folder.path() / part_name(no, 3)).string();
      const size_t at = message.find(path);
      if (at != std::string::npos && std::string(c.expected).starts_with("part")) {
        message.replace(at, path.size(), fmt::format("part {}", no + 1));
      }
    }
    EXPECT_NE(message.find(c.expected), std::string::npos) << message;
    EXPECT_TRUE(message.starts_with("exit 3: ")) << message;
  }
}

TEST(GgufSplit, OnlyTheFirstPartUnderItsNameIsAModel) {
  const TemporaryFolder folder;
  const auto parts = tiny_parts();
  write_parts(folder, parts);
  const auto message = [&](const fs::path& path) {
    return error_of([&] { load_checkpoint(path); });
  };
  EXPECT_NE(
      message(folder.path() / part_name(1, 3))
          .find("is part 2 of 3 of a split model; name the first, 'tiny-00001-of-00003.gguf'"),
      std::string::npos);
  for (const char* name : {"renamed.gguf", "-00001-of-00003.gguf"}) {
    EXPECT_NE(message(folder.write(name, parts[0].bytes()))
                  .find("expected a name that ends in -00001-of-00003.gguf"),
              std::string::npos)
        << name;
  }
}

TEST(GgufSplit, PartsInTheHubCacheMayBeLinksIntoItsBlobs) {
  const TemporaryFolder folder;
  const fs::path root = folder.path() / "models--org--tiny";
  const fs::path snapshot = root / "snapshots" / "abc";
  fs::create_directories(root / "blobs");
  fs::create_directories(snapshot);
  const auto parts = tiny_parts();
  for (size_t no = 0; no < parts.size(); ++no) {
    const std::string blob = fmt::format("models--org--tiny/blobs/{}", no);
    folder.write(blob, parts[no].bytes());
    fs::create_symlink(fmt::format("../../blobs/{}", no), snapshot / part_name(no, 3));
  }
  EXPECT_EQ(load_checkpoint(snapshot / part_name(0, 3)).files.size(), 3u);
}

}  // namespace
}  // namespace tandem
