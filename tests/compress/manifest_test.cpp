// What a result says of itself, and every way in which it may not be true.
#include "compress/manifest.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/error_message.h"
#include "base/hash.h"
#include "base/version.h"
#include "compress/compress.h"
#include "formats/hf_folder.h"
#include "formats/temporary_folder.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = fs::path(TANDEM_TEST_DIR) / "golden" / "families" / "llama";

// A folder and a GGUF file, made once.
struct Made {
  TemporaryFolder dir;
  fs::path folder = dir.path() / "folder", file = dir.path() / "out.gguf";
  CompressResult of_folder, of_file;

  Made() {
    ThreadPool pool(1, /*pin=*/false);
    const Checkpoint source = load_checkpoint(kSource);
    const Judge judge = [](const fs::path& staged, Json* manifest) {
      (*manifest)["gate"] = {{"seen", load_checkpoint(staged).tensors.size()}};
    };
    of_folder = compress(source, recipe_from_name("int8"), folder, pool, {}, judge);
    of_file = compress_to_gguf(source, recipe_from_name("f16", 0, Container::gguf), file, pool, {},
                               judge);
  }
};

Json manifest_of(const fs::path& path) { return *read_manifest(load_checkpoint(path)); }

void overwrite(const fs::path& path, std::streamoff offset, char byte) {
  std::fstream out(path, std::ios::binary | std::ios::in | std::ios::out);
  out.seekp(offset, offset < 0 ? std::ios::end : std::ios::beg);
  out.put(byte);
}

TEST(Manifest, SaysWhereTheModelIsFromAndHowItWasMade) {
  const Made made;
  const Checkpoint source = load_checkpoint(kSource);
  for (const fs::path& path : {made.folder, made.file}) {
    const Json manifest = manifest_of(path);
    EXPECT_EQ(manifest.at("source"), kSource.string());
    EXPECT_EQ(manifest.at("source_hash"), checkpoint_hash(source));
    EXPECT_EQ(manifest.at("version"), version());
    EXPECT_EQ(manifest.at("commit"), commit());
    EXPECT_EQ(manifest.at("gate").at("seen"), source.tensors.size());
    EXPECT_EQ(manifest.at("source_bytes"), made.of_folder.source_bytes);
    size_t num_matrices = 0;
    for (const auto& [name, weight] : source.tensors) num_matrices += weight.N != 1;
    ASSERT_EQ(manifest.at("matrices").size(), num_matrices);
    for (const Json& matrix : manifest.at("matrices")) {
      const Weight& w = source.weight(matrix.at("name").get<std::string>());
      EXPECT_EQ(matrix.at("shape"), Json::array({w.N, w.K}));
      EXPECT_LT(matrix.at("error").get<double>(), 0.01);
    }
    EXPECT_TRUE(verify_compressed(path).empty()) << verify_compressed(path).front();
  }
  const Json folder = manifest_of(made.folder);
  EXPECT_EQ(folder.at("recipe"), "int8");
  EXPECT_EQ(folder.at("method").at("encoding"), "int8 per channel");
  for (const Json& file : folder.at("files")) {
    const MappedFile bytes(made.folder / file.at("name").get<std::string>());
    EXPECT_EQ(file.at("hash"), hash_hex(bytes.bytes()));
  }
  EXPECT_EQ(manifest_of(made.file).at("recipe"), "f16");
}

TEST(Verify, FindsDamageOfFolders) {
  const auto problem = [](const auto& spoil) {
    const Made made;
    spoil(made.folder);
    std::string all;
    for (const std::string& line : verify_compressed(made.folder)) all += line + "\n";
    return all;
  };
  const auto expect_part = [&](const std::string& part, const auto& spoil) {
    const std::string found = problem(spoil);
    EXPECT_NE(found.find(part), std::string::npos) << part << " in: " << found;
  };
  expect_part("'model.safetensors': hash is", [](const fs::path& dir) {
    overwrite(dir / "model.safetensors", -1, '\x55');
  });
  expect_part("'config.json': is missing",
              [](const fs::path& dir) { fs::remove(dir / "config.json"); });
  expect_part("bytes, the manifest says", [](const fs::path& dir) {
    std::ofstream(dir / "tokenizer.json", std::ios::app) << " ";
  });
  expect_part("'more.safetensors': is not in the manifest", [](const fs::path& dir) {
    std::ofstream(dir / "more.safetensors") << "x";
  });
  expect_part("has no manifest", [](const fs::path& dir) { fs::remove(dir / kManifestFile); });
  expect_part("manifest: ", [](const fs::path& dir) {
    Json manifest = manifest_of(dir);
    manifest["matrices"][0].erase("shape");
    write_file_atomic(dir / kManifestFile, dump_json(manifest));
  });
  expect_part("is int8 per channel", [](const fs::path& dir) {
    Json manifest = manifest_of(dir);
    for (Json& matrix : manifest["matrices"]) matrix["encoding"] = "nf4";
    write_file_atomic(dir / kManifestFile, dump_json(manifest));
  });
  expect_part("recipe 'int8': no matrix is nf4", [](const fs::path& dir) {
    Json manifest = manifest_of(dir);
    manifest["method"]["encoding"] = "nf4";
    write_file_atomic(dir / kManifestFile, dump_json(manifest));
  });
}

TEST(Verify, FindsDamageOfGgufFiles) {
  const Made made;
  overwrite(made.file, -40, '\x55');
  const auto problems = verify_compressed(made.file);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].find("hash of the tensors is"), std::string::npos) << problems[0];
  EXPECT_NE(verify_compressed(kSource).front().find("has no manifest"), std::string::npos);
}

TEST(Judge, WhatItThrowsLeavesNothing) {
  const TemporaryFolder dir;
  ThreadPool pool(1, /*pin=*/false);
  const Checkpoint source = load_checkpoint(kSource);
  const Judge refuse = [](const fs::path&, Json*) { fail(ErrorKind::quality_gate, "too bad"); };
  EXPECT_EQ(message_of(ErrorKind::quality_gate,
                       [&] {
                         compress(source, recipe_from_name("int8"), dir.path() / "out", pool, {},
                                  refuse);
                       }),
            "too bad");
  EXPECT_EQ(message_of(ErrorKind::quality_gate,
                       [&] {
                         compress_to_gguf(source, recipe_from_name("q8_0", 0, Container::gguf),
                                          dir.path() / "out.gguf", pool, {}, refuse);
                       }),
            "too bad");
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

}  // namespace
}  // namespace tandem
