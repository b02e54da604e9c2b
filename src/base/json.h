// JSON from files and users: nesting at most 64, duplicate keys refused, strict UTF-8.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tandem {

using Json = nlohmann::ordered_json;

// Throws bad_file with `name` in front: "name: offset 17: unexpected ...".
Json parse_json(std::string_view text, std::string_view name);

// The same with keys in byte order and logarithmic look-up. Json looks a key up by walking all of them,
// so an object with thousands of keys (a vocabulary, a list of tensors) is read through this one.
using SortedJson = nlohmann::json;
SortedJson parse_sorted_json(std::string_view text, std::string_view name);

// Never throws on bytes that are not UTF-8: they become U+FFFD. indent < 0 writes one line.
std::string dump_json(const Json& value, int indent = -1);

}  // namespace tandem
