#include "base/json.h"

#include <unordered_set>
#include <vector>

#include "base/error.h"

namespace tandem {
namespace {

template <typename Value>
Value parse(std::string_view text, std::string_view name) {
  constexpr int kMaxDepth = 64;
  std::vector<std::unordered_set<std::string>> keys;
  const auto callback = [&](int depth, typename Value::parse_event_t event, Value& parsed) {
    if (depth > kMaxDepth) {
      fail(ErrorKind::bad_file, "{}: JSON nested deeper than {}", name, kMaxDepth);
    }
    if (event == Value::parse_event_t::object_start) keys.emplace_back();
    if (event == Value::parse_event_t::object_end) keys.pop_back();
    if (event == Value::parse_event_t::key) {
      const auto& key = parsed.template get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        fail(ErrorKind::bad_file, "{}: key {} stands twice in one JSON object", name, quote(key));
      }
    }
    return true;
  };
  try {
    return Value::parse(text.begin(), text.end(), callback);
  } catch (const typename Value::parse_error& error) {
    fail(ErrorKind::bad_file, "{}: not valid JSON at byte {}: {}", name, error.byte,
         quote(error.what(), 160));
  } catch (const typename Value::out_of_range& error) {
    fail(ErrorKind::bad_file, "{}: {}", name, quote(error.what(), 160));
  }
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
