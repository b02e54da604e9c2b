// The functions that every chat template can call, and the methods of lists, objects and `loop`.
#include <array>

#include "text/jinja/builtins.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"

namespace tandem::jinja {
namespace {

Value range(Work& work, const Value&, const Bound& args) {
  auto list = std::make_shared<List>();
  list->kind = ListKind::range;
  const int64_t first = expect_integer(work, args[0], "range");
  list->start = args.has(1) ? first : 0;
  list->stop = args.has(1) ? expect_integer(work, args[1], "range") : first;
  list->stride = args.has(2) ? expect_integer(work, args[2], "range") : 1;
  if (list->stride == 0) work.refuse("a range with a step of 0");
  int64_t at = list->start;
  while (list->stride > 0 ? at < list->stop : at > list->stop) {
    if (static_cast<int64_t>(list->items.size()) == kMaxRange) {
      work.refuse("a range of more than {} items", kMaxRange);
    }
    append(work, *list, at);
    if (__builtin_add_overflow(at, list->stride, &at)) break;
  }
  return ListPtr(std::move(list));
}

// dict(entries, **named), where entries is a dict or a list of pairs.
std::shared_ptr<Dict> made_dict(Work& work, const Bound& args) {
  auto dict = std::make_shared<Dict>();
  if (args.has(0)) {
    if (is_undefined(args[0])) work.refuse("dict of what is undefined");
    const Dict* given = as_dict(args[0]);
    for (const Value& key : items_of(work, args[0])) {
      if (given) {
        insert(work, *dict, key, given->entries[given->positions.at(*hash_key(key))].second);
        continue;
      }
      const std::vector<Value> pair = items_of(work, key);
      if (pair.size() != 2) work.refuse("dict of an item that is no pair");
      insert(work, *dict, pair[0], pair[1]);
    }
  }
  for (const auto& [name, value] : args.named) insert(work, *dict, markup_value(name), value);
  return dict;
}
Value dict(Work& work, const Value&, const Bound& args) { return DictPtr(made_dict(work, args)); }

Value new_namespace(Work& work, const Value&, const Bound& args) {
  auto names = std::make_shared<Namespace>();
  const std::shared_ptr<Dict> given = made_dict(work, args);
  for (const auto& [key, value] : given->entries) {
    const std::string& name = expect_text(work, key, "a namespace's name").bytes;
    if (name.starts_with('_')) work.refuse("a namespace with the name {}", quote(name));
    names->entries[name] = value;
  }
  return names;
}

Value raise_exception(Work& work, const Value&, const Bound& args) {
  fail(ErrorKind::usage, "the model's chat template refuses these messages: {}",
       quote(to_text(work, args[0])->bytes, 400));
}

Value strftime_now(Work& work, const Value&, const Bound& args) {
  const std::string& format = expect_text(work, args[0], "strftime_now").bytes;
  if (format.empty()) return markup_value("");
  if (format.find("%f") != std::string::npos) work.refuse("strftime_now with %f is not known");
  if (format.find('\0') != std::string::npos) work.refuse("strftime_now with a NUL");
  const std::tm now = work.clock();
  std::array<char, 4096> text{};
  const size_t bytes = std::strftime(text.data(), text.size(), format.c_str(), &now);
  if (bytes == 0) work.refuse("a time of no or more than {} bytes", text.size() - 1);
  return markup_value({text.data(), bytes});
}

constexpr Builtin kFunctions[] = {
    {"dict", "_? **", dict},
    {"namespace", "_? **", new_namespace},
    {"raise_exception", "message", raise_exception},
    {"range", "_ _? _?", range},
    {"strftime_now", "format", strftime_now},
};

// --- methods of lists and tuples

Value list_index(Work& work, const Value& self, const Bound& args) {
  const std::vector<Value>& items = as_list(self)->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(work, items[i], args[0])) return static_cast<int64_t>(i);
  }
  work.refuse("index of an item that is not there");
}
Value list_count(Work& work, const Value& self, const Bound& args) {
  int64_t count = 0;
  for (const Value& item : as_list(self)->items) count += equal(work, item, args[0]);
  return count;
}
Value list_copy(Work&, const Value& self, const Bound&) { return self; }

constexpr Builtin kListMethods[] = {{"count", "_", list_count}, {"index", "_", list_index}};
constexpr Builtin kOwnListMethods[] = {{"copy", "", list_copy}};

// --- methods of objects

Value view_of(Work& work, const Value& self, ListKind kind) {
  auto view = std::make_shared<List>();
  view->kind = kind;
  for (const auto& [key, value] : as_dict(self)->entries) {
    if (kind != ListKind::items) {
      append(work, *view, kind == ListKind::keys ? key : value);
      continue;
    }
    auto pair = std::make_shared<List>();
    pair->kind = ListKind::tuple;
    append(work, *pair, key);
    append(work, *pair, value);
    append(work, *view, ListPtr(std::move(pair)));
  }
  return ListPtr(std::move(view));
}
Value dict_items(Work& work, const Value& self, const Bound&) {
  return view_of(work, self, ListKind::items);
}
Value dict_keys(Work& work, const Value& self, const Bound&) {
  return view_of(work, self, ListKind::keys);
}
Value dict_values(Work& work, const Value& self, const Bound&) {
  return view_of(work, self, ListKind::values);
}
Value dict_get(Work& work, const Value& self, const Bound& args) {
  const Dict& dict = *as_dict(self);
  const std::optional<std::string> key = hash_key(args[0]);
  if (!key) work.refuse("{} as a key", kind_name(args[0]));
  const auto found = dict.positions.find(*key);
  return found == dict.positions.end() ? args.get(1, None()) : dict.entries[found->second].second;
}
Value dict_copy(Work&, const Value& self, const Bound&) { return self; }

constexpr Builtin kDictMethods[] = {
    {"copy", "", dict_copy}, {"get", "_ _?", dict_get},   {"items", "", dict_items},
    {"keys", "", dict_keys}, {"values", "", dict_values},
};

// --- methods of `loop`

Value loop_cycle(Work& work, const Value& self, const Bound& args) {
  if (args.values.empty()) work.refuse("loop.cycle without values");
  return args[as_loop(self)->index % args.values.size()];
}

// Whether the arguments differ from those of the call before.
Value loop_changed(Work& work, const Value& self, const Bound& args) {
  Loop& loop = *as_loop(self);
  std::vector<Value> now;
  for (const auto& value : args.values) now.push_back(checked_part(work, *value));
  bool same = loop.last_changed && loop.last_changed->size() == now.size();
  for (size_t i = 0; same && i < now.size(); ++i) {
    same = equal(work, now[i], (*loop.last_changed)[i]);
  }
  loop.last_changed = std::move(now);
  return !same;
}

constexpr Builtin kLoopMethods[] = {{"changed", "*", loop_changed}, {"cycle", "*", loop_cycle}};

}  // namespace

const Builtin* find_function(std::string_view name) { return find_in(kFunctions, name); }
const Builtin* find_dict_method(std::string_view name) { return find_in(kDictMethods, name); }
const Builtin* find_loop_method(std::string_view name) { return find_in(kLoopMethods, name); }
const Builtin* find_list_method(std::string_view name, ListKind kind) {
  if (kind >= ListKind::keys) return nullptr;
  const Builtin* method = find_in(kListMethods, name);
  if (method || kind != ListKind::list) return method;
  return find_in(kOwnListMethods, name);
}

}  // namespace tandem::jinja
