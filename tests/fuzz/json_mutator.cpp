#include "fuzz/json_mutator.h"

#include "base/error.h"
#include "base/json.h"

namespace tandem::fuzz {
namespace {

// Every node of the tree, parents first.
void collect(Json& node, std::vector<Json*>& out) {
  out.push_back(&node);
  if (node.is_structured()) {
    for (Json& child : node) collect(child, out);
  }
}

Json odd_value(Random& random, const std::vector<std::string>& words) {
  switch (random.below(10)) {
    case 0:
      return nullptr;
    case 1:
      return random.below(2) == 0;
    case 2:
      return -static_cast<int64_t>(random.below(100));
    case 3:
      return random.normal() * 1e3;
    case 4:
      return Json::array();
    case 5:
      return Json::object();
    case 6:
      return words.empty() ? Json("") : Json(pick(words, random));
    case 7:
      return Json::array({edge_number(random), edge_number(random)});
    default:
      return edge_number(random);
  }
}

std::string random_key(Json& object, Random& random) {
  return std::next(object.begin(), static_cast<ptrdiff_t>(random.below(object.size()))).key();
}

void rename_key(Json& object, Random& random, const ByteMutator& bytes,
                const std::vector<std::string>& words) {
  std::string key = random_key(object, random);
  const Json value = object[key];
  object.erase(key);
  if (!words.empty() && random.below(2) == 0) {
    key = pick(words, random);
  } else {
    bytes(key);
  }
  object[key] = value;
}

void change(Json& root, Random& random, const ByteMutator& bytes,
            const std::vector<std::string>& words) {
  std::vector<Json*> nodes;
  collect(root, nodes);
  Json& node = *pick(nodes, random);
  switch (random.below(8)) {
    case 0:
      node = odd_value(random, words);
      break;
    case 1: {
      const Json copy = *pick(nodes, random);  // may hold `node`
      node = copy;
      break;
    }
    case 2:
      if (node.is_object() && !node.empty()) rename_key(node, random, bytes, words);
      break;
    case 3:
      if (node.is_object() && !node.empty()) {
        node.erase(random_key(node, random));
      } else if (node.is_array() && !node.empty()) {
        node.erase(random.below(node.size()));
      }
      break;
    case 4:
      if (node.is_array()) {
        node.push_back(odd_value(random, words));
      } else if (node.is_object()) {
        node[words.empty() ? "k" : pick(words, random)] = odd_value(random, words);
      }
      break;
    case 5:
      if (node.is_array() && node.size() > 1) std::swap(pick(node, random), pick(node, random));
      break;
    default:
      if (node.is_string()) {
        std::string text = node.get<std::string>();
        bytes(text);
        node = text;
      } else if (node.is_number()) {
        node = edge_number(random);
      } else {
        node = odd_value(random, words);
      }
  }
}

// What no tree can say: a key twice, nesting without end, a number too large, an open bracket.
std::string break_syntax(std::string text, Random& random, const ByteMutator& bytes) {
  const size_t at = random.below(text.size() + 1);
  switch (random.below(5)) {
    case 0: {
      const size_t comma = text.find(',', at);
      if (comma != std::string::npos) text.insert(comma, text.substr(at, comma - at));
      break;
    }
    case 1:
      text.insert(at, std::string(1 + random.below(80), "[{\"("[random.below(4)]));
      break;
    case 2:
      text.insert(at, "1e999");
      break;
    case 3:
      text.resize(at);
      break;
    default:
      bytes(text);
  }
  return text;
}

}  // namespace

std::string mutate_json(const std::string& text, Random& random, const ByteMutator& bytes,
                        const std::vector<std::string>& words) {
  if (random.below(12) == 0) return break_syntax(text, random, bytes);
  Json root;
  try {
    root = parse_json(text, "x");
  } catch (const Error&) {
    return break_syntax(text, random, bytes);
  }
  change(root, random, bytes, words);
  return dump_json(root);
}

}  // namespace tandem::fuzz
