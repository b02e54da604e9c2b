#include "compress/calibration_rows.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/random.h"

namespace tandem {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 30;

using Ids = std::vector<int32_t>;

Ids read_ids(const Json& array, const Tokenizer& tokenizer, const std::string& where) {
  Ids ids;
  for (const Json& item : array) {
    const bool is_whole = item.is_number_integer();
    const int64_t id = is_whole ? item.get<int64_t>() : -1;
    if (id < 0 || id >= tokenizer.vocab_size()) {
      fail(ErrorKind::bad_file, "{}: {} is no token id, expected 0 to {}", where,
           quote(dump_json(item)), tokenizer.vocab_size() - 1);
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

Ids read_document(std::string_view line, const Tokenizer& tokenizer, const std::string& where) {
  const Json document = parse_json(line, where);
  if (document.is_array()) return read_ids(document, tokenizer, where);
  if (document.is_object()) {
    const auto ids = document.find("input_ids");
    if (ids != document.end() && ids->is_array()) return read_ids(*ids, tokenizer, where);
    const auto text = document.find("text");
    if (text != document.end() && text->is_string()) {
      return tokenizer.encode(text->get<std::string>());
    }
  }
  fail(ErrorKind::bad_file,
       "{}: expected an object with a \"text\" or with \"input_ids\", or an array of ids", where);
}

std::vector<Ids> read_documents(std::string_view text, const Tokenizer& tokenizer,
                                const std::string& name) {
  std::vector<Ids> documents;
  int line_number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    documents.push_back(
        read_document(line, tokenizer, fmt::format("{}:{}", name, line_number)));
  }
  return documents;
}

// The first `count` of a random order of 0 ... n - 1.
std::vector<size_t> draw(size_t n, size_t count, Random& random) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  count = std::min(count, n);
  for (size_t i = 0; i < count; ++i) std::swap(order[i], order[i + random.below(n - i)]);
  order.resize(count);
  return order;
}

[[noreturn]] void refuse_short(const CalibrationOptions& options, const char* what, size_t most) {
  fail(ErrorKind::bad_file,
       "{}: {} {} tokens, expected at least the {} of a calibration window (--length)",
       options.file.string(), what, most, options.length);
}

void take_documents(const CalibrationOptions& options, std::vector<Ids> documents,
                    CalibrationRows* rows) {
  const auto length = static_cast<size_t>(options.length);
  size_t longest = 0;
  bool are_rows = true;
  for (const Ids& ids : documents) {
    longest = std::max(longest, ids.size());
    are_rows = are_rows && ids.size() == length;
  }
  if (longest < length) refuse_short(options, "its longest document has", longest);
  std::erase_if(documents, [&](const Ids& ids) { return ids.size() < length; });
  Random random(options.seed);
  std::vector<size_t> chosen = draw(documents.size(), static_cast<size_t>(options.samples), random);
  if (are_rows) std::iota(chosen.begin(), chosen.end(), size_t{0});
  for (const size_t d : chosen) {
    const Ids& ids = documents[d];
    const size_t begin = random.below(ids.size() - length + 1);
    rows->ids.insert(rows->ids.end(), ids.begin() + static_cast<int64_t>(begin),
                     ids.begin() + static_cast<int64_t>(begin + length));
  }
}

void take_windows(const CalibrationOptions& options, const Ids& ids, CalibrationRows* rows) {
  const auto length = static_cast<size_t>(options.length);
  if (ids.size() < length) refuse_short(options, "has", ids.size());
  Random random(options.seed);
  for (const size_t window :
       draw(ids.size() / length, static_cast<size_t>(options.samples), random)) {
    const auto begin = ids.begin() + static_cast<int64_t>(window * length);
    rows->ids.insert(rows->ids.end(), begin, begin + options.length);
  }
}

}  // namespace

CalibrationRows random_rows_of_ids(const CalibrationOptions& options, int64_t vocab_size) {
  CHECK(options.samples > 0 && options.length > 0, "{} x {}", options.samples, options.length);
  CalibrationRows rows;
  rows.length = options.length;
  rows.seed = options.seed;
  rows.source = "random ids";
  Random random(options.seed);
  for (int64_t i = 0; i < options.samples * options.length; ++i) {
    rows.ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab_size))));
  }
  rows.hash = hash_hex(std::as_bytes(std::span(rows.ids)));
  rows.source_hash = rows.hash;
  return rows;
}

CalibrationRows read_calibration(const CalibrationOptions& options, const Tokenizer& tokenizer) {
  CHECK(options.samples > 0 && options.length > 0, "{} x {}", options.samples, options.length);
  const std::string text = read_text_file(options.file, kMaxBytes);
  CalibrationRows rows;
  rows.length = options.length;
  rows.seed = options.seed;
  rows.source = options.file.string();
  rows.source_hash = hash_hex(text);
  if (options.file.extension() == ".jsonl") {
    take_documents(options, read_documents(text, tokenizer, rows.source), &rows);
  } else {
    take_windows(options, tokenizer.encode(text), &rows);
  }
  if (rows.num() < options.samples) {
    rows.note = fmt::format("{}: calibrated on the {} windows of {} tokens it has, not on {}",
                            rows.source, rows.num(), rows.length, options.samples);
  }
  rows.hash = hash_hex(std::as_bytes(std::span(rows.ids)));
  return rows;
}

}  // namespace tandem
