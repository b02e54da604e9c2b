// Checked arithmetic, UTF-8, JSON and files.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/utf8.h"

namespace tandem {
namespace {

std::filesystem::path fresh_dir(const std::string& name) {
  const auto dir = std::filesystem::temp_directory_path() / fmt::format("tandem-{}-{}", name, ::getpid());
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  return dir;
}

TEST(Checked, OverflowIsNoValue) {
  EXPECT_EQ(checked_mul(1u << 31, 2), uint64_t{1} << 32);
  EXPECT_FALSE(checked_mul(uint64_t{1} << 63, 2));
  EXPECT_FALSE(checked_add(~uint64_t{0}, 1));
  EXPECT_EQ(checked_align(33, 32), 64u);
  EXPECT_EQ(checked_align(0, 32), 0u);
  EXPECT_FALSE(checked_align(~uint64_t{0} - 3, 32));  // the rounding itself must not wrap
}

TEST(Utf8, AcceptsWhatRfc3629Accepts) {
  for (const char* good : {"a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xEF\xBF\xBF", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(utf8_valid_length(good), std::string_view(good).size());
  }
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x82", "\xC3"}) {
    EXPECT_EQ(utf8_valid_length(bad), 0u) << quote(bad);
  }
}

TEST(Utf8, EveryCodePointComesBack) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    utf8_append(text, c);
    ASSERT_EQ(utf8_valid_length(text), text.size()) << c;
    ASSERT_EQ(utf8_code_point(text, text.size()), c);
  }
}

TEST(Quote, ControlAndInvalidBytesAreEscaped) {
  EXPECT_EQ(quote("a\x1b[2J\n\xFF\xC2\x9B"), "'a\\x1b[2J\\x0a\\xff\\xc2\\x9b'");
  EXPECT_EQ(quote(std::string(200, 'x')).size(), 1 + 80 + 3 + 1u);
}

TEST(ParseJson, RefusesByName) {
  const auto message = [](const std::string& text) -> std::string {
    try {
      parse_json(text, "x.json");
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind, ErrorKind::bad_file);
      return error.what();
    }
  };
  EXPECT_EQ(message(R"({"a": [1, 2.5, "x"]})"), "");
  EXPECT_NE(message(R"({"a": 1, "b": 2, "a": 3})").find("'a' stands twice"), std::string::npos);
  EXPECT_EQ(message(R"({"a": {"k": 1}, "b": {"k": 2}})"), "");
  EXPECT_NE(message(std::string(100000, '[')).find("deeper than 64"), std::string::npos);
  for (const char* bad : {"", "{", "{\"a\":}", "[1,]", "NaN", "1e999", "{} x", "\"\xFF\"", "\"\\ud800\""}) {
    EXPECT_EQ(message(bad).rfind("x.json: ", 0), 0u) << bad << ": " << message(bad);
  }
}

TEST(DumpJson, NeverThrowsOnBytes) {
  Json value;
  value["text"] = "ok\xFF\xC3";
  EXPECT_EQ(dump_json(value), "{\"text\":\"ok\xEF\xBF\xBD\xEF\xBF\xBD\"}");
}

TEST(MappedFile, OnlyRegularFiles) {
  const auto dir = fresh_dir("mapped");
  EXPECT_THROW(MappedFile{dir}, Error);
  EXPECT_THROW(MappedFile(dir / "absent"), Error);
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_THROW(MappedFile(dir / "fifo"), Error);  // and does not wait for a writer
  EXPECT_THROW(MappedFile("/dev/zero"), Error);
  std::ofstream(dir / "empty");
  EXPECT_EQ(MappedFile(dir / "empty").bytes().size(), 0u);
  std::filesystem::remove_all(dir);
}

TEST(WriteFileAtomic, OldFileStaysWhenWritingFails) {
  const auto dir = fresh_dir("atomic");
  write_file_atomic(dir / "f", "old");
  EXPECT_THROW(write_file_atomic(dir / "f",
                                 [](const ByteSink& sink) {
                                   const std::byte half[3] = {};
                                   sink(half);
                                   fail(ErrorKind::system, "no more");
                                 }),
               Error);
  EXPECT_EQ(read_text_file(dir / "f", 100), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir), {}), 1) << "a temporary file was left";
  write_file_atomic(dir / "f", "new");
  EXPECT_EQ(read_text_file(dir / "f", 100), "new");
  EXPECT_THROW(read_text_file(dir / "f", 2), Error);
  EXPECT_THROW(write_file_atomic(dir / "absent" / "f", "x"), Error);
  std::filesystem::remove_all(dir);
}

TEST(Hash, IsXxh3OfTheBytes) {
  EXPECT_EQ(hash_hex(""), "99aa06d3014798d86001c324468d497f");  // XXH3_128bits of nothing, from its specification
  EXPECT_NE(hash_hex("a"), hash_hex("b"));
}

}  // namespace
}  // namespace tandem
