#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include "formats/gguf_builder.h"
#include "formats/temporary_folder.h"

namespace tandem {
namespace {

std::string file_of(const std::string& header, size_t data_bytes) {
  return raw<uint64_t>(header.size()) + header + std::string(data_bytes, '\0');
}

std::string error_in(const std::string& bytes) {
  return error_of([&] { parse_safetensors(std::as_bytes(std::span(bytes)), "x"); });
}

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

struct Case {
  const char* name;
  const char* expected;
  std::string bytes;
};

TEST(Safetensors, RefusesHostileFiles) {
  const std::string a = R"("a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  const Case cases[] = {
      {"0 bytes", "too short", ""},
      {"7 bytes", "too short", "1234567"},
      {"N 0", "header is empty", raw<uint64_t>(0)},
      {"N beyond the file", "are left in the file", raw<uint64_t>(100) + "{}"},
      {"N 2^64-1", "at most 100000000", raw<uint64_t>(UINT64_MAX) + "{}"},
      {"N 100000001", "at most 100000000", raw<uint64_t>(100000001) + "{}"},
      {"not UTF-8", "not UTF-8", file_of("{\"\xff\":1}", 0)},
      {"byte order mark", "byte order mark", file_of("\xEF\xBB\xBF{}", 0)},
      {"not JSON", "not valid JSON", file_of("hello", 0)},
      {"an array", "not a JSON object", file_of("[]", 0)},
      {"junk after", "not valid JSON", file_of("{} x", 0)},
      {"name twice", "stands twice", file_of("{" + a + "," + a + "}", 4)},
      {"dtype twice", "stands twice",
       file_of(R"({"a":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}})", 4)},
      {"metadata twice", "stands twice", file_of(R"({"__metadata__":{},"__metadata__":{}})", 0)},
      {"deep", "nested deeper",
       file_of(R"({"__metadata__":)" + std::string(100000, '[') + std::string(100000, ']') + "}",
               0)},
      {"metadata number", "not a string", file_of(R"({"__metadata__":{"a":1}})", 0)},
      {"shared bytes", "expected to begin at 4",
       file_of("{" + a + R"(,"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4)},
      {"negative offset", "expected an integer", file_of(one("U8", "[4]", "[-4,0]"), 4)},
      {"float offset", "expected an integer", file_of(one("U8", "[4]", "[0,4.0]"), 4)},
      {"offset 1e3", "expected an integer", file_of(one("U8", "[1000]", "[0,1e3]"), 1000)},
      {"offset above 2^64", "expected an integer",
       file_of(one("U8", "[4]", "[0,18446744073709551620]"), 4)},
      {"end before begin", "expected 4 bytes", file_of(one("U8", "[4]", "[4,0]"), 4)},
      {"gap", "expected to begin at 0", file_of(one("U8", "[4]", "[4,8]"), 8)},
      {"beyond the end", "within the 3 bytes", file_of(one("U8", "[4]", "[0,4]"), 3)},
      {"trailing bytes", "expected 4", file_of(one("U8", "[4]", "[0,4]"), 8)},
      {"shape overflow", "overflows", file_of(one("U8", "[2,18446744073709551614]", "[0,4]"), 4)},
      {"shape near 2^63", "overflows", file_of(one("U8", "[2,9223372036854775808]", "[0,4]"), 4)},
      {"shape -1", "expected an integer", file_of(one("U8", "[-1]", "[0,4]"), 4)},
      {"shape 1.5", "expected an integer", file_of(one("U8", "[1.5]", "[0,4]"), 4)},
      {"shape and bytes", "expected 8 bytes", file_of(one("BF16", "[4]", "[0,4]"), 4)},
      {"dtype unknown", "'F4' is not supported", file_of(one("F4", "[8]", "[0,4]"), 4)},
      {"dtype lower case", "'bf16' is not supported", file_of(one("bf16", "[2]", "[0,4]"), 4)},
      {"dtype number", "not a string", file_of(R"({"a":{"dtype":1}})", 0)},
      {"entry number", "not a JSON object", file_of(R"({"a":1})", 0)},
      {"no shape", "'shape' is missing", file_of(R"({"a":{"dtype":"U8"}})", 0)},
  };
  for (const Case& c : cases) {
    const std::string error = error_in(c.bytes);
    EXPECT_EQ(error.substr(0, 7), "exit 3:") << c.name;
    EXPECT_NE(error.find(c.expected), std::string::npos) << c.name << ": " << error;
  }
}

TEST(Safetensors, AcceptsWhatTheReferenceAccepts) {
  EXPECT_EQ(error_in(file_of("{}", 0)), "");
  EXPECT_EQ(error_in(file_of(" \t\n{} \n", 0)), "");
  EXPECT_EQ(error_in(file_of(one("F32", "[]", "[0,4]"), 4)), "");
  EXPECT_EQ(error_in(file_of(one("F32", "[0]", "[0,0]"), 0)), "");
}

TEST(Safetensors, RefusesManyTensorsOnTheSameBytesQuickly) {
  std::string header = "{";
  for (int i = 0; i < 100000; ++i) {
    header += fmt::format(R"("{}":{{"dtype":"U8","shape":[16],"data_offsets":[0,16]}},)", i);
  }
  header.back() = '}';
  EXPECT_NE(error_in(file_of(header, 16)), "");
}

TEST(Safetensors, ReadsBackWhatItWrites) {
  const TemporaryFolder folder;
  const auto source = [](const std::string& name, const std::string& dtype,
                         std::vector<int64_t> shape, const std::string& bytes) {
    return TensorSource{name, dtype, std::move(shape), bytes.size(), [bytes](const ByteSink& sink) {
                          const auto all = std::as_bytes(std::span(bytes));
                          sink(all.first(all.size() / 2));
                          sink(all.subspan(all.size() / 2));
                        }};
  };
  const std::vector<TensorSource> tensors = {source("codes", "I8", {3, 1}, "abc"),
                                             source("scales", "BF16", {2}, "0123"),
                                             source("shape", "I64", {1}, "01234567")};
  const auto path = folder.path() / "model.safetensors";
  write_safetensors(path, tensors);
  const MappedFile mapped(path);
  const SafetensorsFile file = parse_safetensors(mapped.bytes(), "x");
  EXPECT_EQ(file.metadata.at("format"), "pt");
  ASSERT_EQ(file.tensors.size(), 3u);
  EXPECT_EQ(file.tensors[0].name, "shape");
  EXPECT_EQ(file.tensors[1].name, "scales");
  EXPECT_EQ(file.tensors[2].name, "codes");
  EXPECT_EQ(file.tensors[2].shape, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(std::memcmp(file.tensors[2].bytes.data(), "abc", 3), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.tensors[0].bytes.data()) % 8, 0u);
}

}  // namespace
}  // namespace tandem
