#include "base/json.h"

#include <set>
#include <vector>

#include "base/error.h"

namespace tandem {

Json parse_json(std::string_view text, std::string_view name) {
  constexpr int kMaxDepth = 64;
  std::vector<std::set<std::string>> keys;
  const auto callback = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth) {
      fail(ErrorKind::bad_file, "{}: JSON nested deeper than {}", name, kMaxDepth);
    }
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        fail(ErrorKind::bad_file, "{}: key {} stands twice in one JSON object", name, quoted(key));
      }
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), callback);
  } catch (const Json::parse_error& error) {
    fail(ErrorKind::bad_file, "{}: not valid JSON at byte {}: {}", name, error.byte,
         quoted(error.what(), 160));
  } catch (const Json::out_of_range& error) {
    fail(ErrorKind::bad_file, "{}: {}", name, quoted(error.what(), 160));
  }
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace tandem
