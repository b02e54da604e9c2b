#include "base/json.h"

#include <unordered_set>
#include <vector>

#include "base/error.h"

namespace tandem {
namespace {

constexpr size_t kMaxDepth = 64;

// Walks a text without building a value. The library's own parser takes a callback too, but then
// scans the whole parent at the end of each nested object: quadratic in what a file controls.
class StructureCheck : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit StructureCheck(std::string_view name) : name_(name) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return open(); }
  bool start_array(size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& key) override {
    if (!keys_.back().insert(key).second) {
      fail(ErrorKind::bad_file, "{}: key {} stands twice in one JSON object", name_, quote(key));
    }
    return true;
  }
  bool parse_error(size_t offset, const std::string&,
                   const nlohmann::json::exception& error) override {
    fail(ErrorKind::bad_file, "{}: not valid JSON at byte {}: {}", name_, offset,
         quote(error.what(), 160));
  }

 private:
  bool open() {
    keys_.emplace_back();
    if (keys_.size() > kMaxDepth) {
      fail(ErrorKind::bad_file, "{}: JSON nested deeper than {}", name_, kMaxDepth);
    }
    return true;
  }
  bool close() {
    keys_.pop_back();
    return true;
  }

  std::string_view name_;
  std::vector<std::unordered_set<std::string>> keys_;  // of the objects and arrays that are open
};

template <typename Value>
Value parse(std::string_view text, std::string_view name) {
  StructureCheck check(name);
  nlohmann::json::sax_parse(text.begin(), text.end(), &check);
  return Value::parse(text.begin(), text.end());
}

}  // namespace

Json parse_json(std::string_view text, std::string_view name) { return parse<Json>(text, name); }

SortedJson parse_sorted_json(std::string_view text, std::string_view name) {
  return parse<SortedJson>(text, name);
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace tandem
