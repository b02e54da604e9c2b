// The filters of lists and objects.
#include <algorithm>
#include <charconv>

#include "text/jinja/builtins.h"
#include "text/jinja/members.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"
#include "text/jinja/text.h"

namespace tandem::jinja {
namespace {

Value list_value(Work& work, std::vector<Value> items, ListKind kind = ListKind::list) {
  auto list = std::make_shared<List>();
  list->kind = kind;
  for (Value& item : items) append(work, *list, std::move(item));
  return ListPtr(std::move(list));
}

// "a.b.0": the path that map(attribute=...) and others follow from an item.
class AttributePath {
 public:
  AttributePath(Work& work, const Value& attribute) : work_(work) {
    if (is_none(attribute)) return;
    if (!as_text(attribute)) {
      parts_.push_back(attribute);
      return;
    }
    std::string_view rest = as_text(attribute)->bytes;
    for (;;) {
      const std::string_view part = rest.substr(0, rest.find('.'));
      int64_t index = 0;
      const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
      const bool is_index = error == std::errc() && end == part.data() + part.size() && index >= 0;
      parts_.push_back(is_index ? Value(index) : markup_value(part));
      if (part.size() == rest.size()) return;
      rest.remove_prefix(part.size() + 1);
    }
  }

  Value follow(Value item, const Value& fallback = None()) const {
    for (const Value& part : parts_) {
      item = item_of(work_, item, part);
      if (is_undefined(item) && !is_none(fallback)) item = fallback;
    }
    return item;
  }

 private:
  Work& work_;
  std::vector<Value> parts_;
};

Value without_case(Work& work, const Value& value) {
  const TaggedText* text = as_text(value);
  return text ? text_value(with_case(work, *text, LetterCase::lower)) : value;
}

// What items are sorted and compared by: args[i] is case_sensitive and args[i + 1] the attribute.
auto sort_key(Work& work, const Bound& args, size_t i) {
  return [&work, case_sensitive = args.flag(i),
          path = AttributePath(work, args.get(i + 1, None()))](const Value& item) {
    const Value key = path.follow(item);
    return case_sensitive ? key : without_case(work, key);
  };
}

Value filter_length(Work& work, const Value& self, const Bound&) { return length_of(work, self); }

Value filter_first(Work& work, const Value& self, const Bound&) {
  const List* list = as_list(self);
  if (list && list->kind == ListKind::generator) {
    return list->num_taken < list->items.size() ? list->items[list->num_taken++] : Value();
  }
  if (as_text(self)) return item_of(work, self, int64_t{0});
  const std::vector<Value> items = items_of(work, self);
  return items.empty() ? Value() : items.front();
}

void refuse_generator(Work& work, const Value& value, const char* what) {
  const List* list = as_list(value);
  if (list && list->kind == ListKind::generator) {
    work.refuse("{} of a generator; the filter list makes a list of it", what);
  }
}

Value filter_last(Work& work, const Value& self, const Bound&) {
  refuse_generator(work, self, "last");
  if (as_text(self)) return item_of(work, self, int64_t{-1});
  const std::vector<Value> items = items_of(work, self);
  return items.empty() ? Value() : items.back();
}

Value filter_list(Work& work, const Value& self, const Bound&) {
  return list_value(work, items_of(work, self));
}

Value filter_join(Work& work, const Value& self, const Bound& args) {
  const AttributePath path(work, args.get(1, None()));
  const TextPtr between = to_text(work, args.get(0, markup_value("")));
  TaggedText joined;
  bool first = true;
  for (const Value& item : items_of(work, self)) {
    const TextPtr text = to_text(work, path.follow(item));
    work.use_bytes(text->size() + between->size());
    if (!first) joined.append(*between);
    joined.append(*text);
    first = false;
  }
  return text_value(std::move(joined));
}

Value filter_reverse(Work& work, const Value& self, const Bound&) {
  if (as_text(self)) return slice_of(work, self, None(), None(), int64_t{-1});
  const List* list = as_list(self);
  const bool is_generator = list && list->kind == ListKind::generator;
  std::vector<Value> items = items_of(work, self);
  std::ranges::reverse(items);
  return list_value(work, std::move(items), is_generator ? ListKind::list : ListKind::generator);
}

Value filter_items(Work& work, const Value& self, const Bound&) {
  auto pairs = std::make_shared<List>();
  pairs->kind = ListKind::generator;
  const Dict* dict = as_dict(self);
  if (!dict && !is_undefined(self)) work.refuse("items of {}", kind_name(self));
  for (size_t i = 0; dict && i < dict->entries.size(); ++i) {
    const auto& [key, value] = dict->entries[i];
    append(work, *pairs, list_value(work, {key, value}, ListKind::tuple));
  }
  return ListPtr(std::move(pairs));
}

Value filter_dictsort(Work& work, const Value& self, const Bound& args) {
  const Dict* dict = as_dict(self);
  if (!dict) work.refuse("dictsort of {}", kind_name(self));
  const Value by = args.get(1, markup_value("key"));
  const std::string& wanted = expect_text(work, by, "dictsort").bytes;
  if (wanted != "key" && wanted != "value") work.refuse("dictsort by {}", quote(wanted));
  std::vector<Value> pairs;
  for (const auto& [key, value] : dict->entries) {
    pairs.push_back(list_value(work, {key, value}, ListKind::tuple));
  }
  const size_t part = wanted == "key" ? 0 : 1;
  sort_stably(
      work, pairs,
      [&](const Value& pair) {
        const Value& key = as_list(pair)->items[part];
        return args.flag(0) ? key : without_case(work, key);
      },
      args.flag(2));
  return list_value(work, std::move(pairs));
}

Value filter_sort(Work& work, const Value& self, const Bound& args) {
  std::vector<Value> items = items_of(work, self);
  const Value attribute = args.get(2, None());
  std::vector<AttributePath> paths;
  if (const TaggedText* text = as_text(attribute)) {
    const Value parts =
        run_builtin(work, *find_text_method("split"), attribute, {{markup_value(",")}, {}});
    for (const Value& part : as_list(parts)->items) paths.emplace_back(work, part);
    work.use_bytes(text->size());
  } else {
    paths.emplace_back(work, attribute);
  }
  const auto keys = [&](const Value& item) {
    std::vector<Value> parts;
    for (const AttributePath& path : paths) {
      const Value key = path.follow(item);
      parts.push_back(args.flag(1) ? key : without_case(work, key));
    }
    return list_value(work, std::move(parts));
  };
  sort_stably(work, items, keys, args.flag(0));
  return list_value(work, std::move(items));
}

Value filter_unique(Work& work, const Value& self, const Bound& args) {
  const auto key = sort_key(work, args, 0);
  std::vector<Value> kept;
  Dict seen;
  for (const Value& item : items_of(work, self)) {
    const size_t before = seen.entries.size();
    insert(work, seen, key(item), None());
    if (seen.entries.size() > before) kept.push_back(item);
  }
  return list_value(work, std::move(kept), ListKind::generator);
}

Value extreme(Work& work, const Value& self, const Bound& args, bool largest) {
  const std::vector<Value> items = items_of(work, self);
  if (items.empty()) return {};
  const auto key = sort_key(work, args, 0);
  size_t best = 0;
  Value best_key = key(items[0]);
  for (size_t i = 1; i < items.size(); ++i) {
    const Value other = key(items[i]);
    if (largest ? order(work, other, best_key) > 0 : order(work, other, best_key) < 0) {
      best = i;
      best_key = other;
    }
  }
  return items[best];
}
Value filter_min(Work& work, const Value& self, const Bound& args) {
  return extreme(work, self, args, false);
}
Value filter_max(Work& work, const Value& self, const Bound& args) {
  return extreme(work, self, args, true);
}

Value filter_sum(Work& work, const Value& self, const Bound& args) {
  const AttributePath path(work, args.get(0, None()));
  Value sum = args.get(1, int64_t{0});
  if (as_text(sum)) work.refuse("sum of strings");
  for (const Value& item : items_of(work, self)) {
    sum = arithmetic(work, Operator::add, sum, path.follow(item));
  }
  return sum;
}

Value filter_batch(Work& work, const Value& self, const Bound& args) {
  const int64_t size = expect_integer(work, args[0], "batch");
  std::vector<Value> rows, row;
  for (const Value& item : items_of(work, self)) {
    if (!row.empty() && static_cast<int64_t>(row.size()) == size) {
      rows.push_back(list_value(work, std::exchange(row, {})));
    }
    row.push_back(item);
  }
  while (!row.empty() && args.has(1) && !is_none(args[1]) &&
         static_cast<int64_t>(row.size()) < size) {
    work.use_bytes(kItemBytes);
    row.push_back(args[1]);
  }
  if (!row.empty()) rows.push_back(list_value(work, std::move(row)));
  return list_value(work, std::move(rows), ListKind::generator);
}

// The arguments from `first` on, for a filter or test that is named in a template's arguments.
Arguments rest_of(const Bound& args, size_t first) {
  Arguments rest;
  for (size_t i = first; i < args.values.size(); ++i) rest.positional.push_back(args[i]);
  rest.named = args.named;
  return rest;
}

Value filter_map(Work& work, const Value& self, const Bound& args) {
  std::vector<Value> mapped;
  const auto named = [&](std::string_view name) {
    const auto row = std::ranges::find(args.named, name, &std::pair<std::string, Value>::first);
    return row == args.named.end() ? nullptr : &row->second;
  };
  if (args.values.empty() && named("attribute")) {
    const Value* fallback = named("default");
    if (args.named.size() > (fallback ? 2 : 1)) work.refuse("map with unknown arguments");
    const AttributePath path(work, *named("attribute"));
    for (const Value& item : items_of(work, self)) {
      mapped.push_back(path.follow(item, fallback ? *fallback : None()));
    }
    return list_value(work, std::move(mapped), ListKind::generator);
  }
  if (args.values.empty()) work.refuse("map without a filter");
  const std::string& name = expect_text(work, args[0], "map").bytes;
  const std::vector<Value> items = items_of(work, self);
  const Builtin* filter = find_filter(name);
  if (!filter && !items.empty()) work.refuse("filter {} is not known", quote(name));
  for (const Value& item : items) {
    mapped.push_back(run_builtin(work, *filter, item, rest_of(args, 1)));
  }
  return list_value(work, std::move(mapped), ListKind::generator);
}

// select, reject and the same by attribute: keeps items for which the test gives `wanted`.
Value selected(Work& work, const Value& self, const Bound& args, bool by_attribute, bool wanted) {
  std::vector<Value> kept;
  const std::vector<Value> items = is_true(self) ? items_of(work, self) : std::vector<Value>();
  if (items.empty()) return list_value(work, {}, ListKind::generator);
  if (by_attribute && args.values.empty()) work.refuse("a selection without its attribute");
  const AttributePath path(work, by_attribute ? args[0] : None());
  const size_t first = by_attribute ? 1 : 0;
  const Builtin* test = nullptr;
  if (args.values.size() > first) {
    const std::string& name = expect_text(work, args[first], "a selection").bytes;
    test = find_test(name);
    if (!test) work.refuse("test {} is not known", quote(name));
  }
  for (const Value& item : items) {
    const Value value = path.follow(item);
    const bool passes =
        is_true(test ? run_builtin(work, *test, value, rest_of(args, first + 1)) : value);
    if (passes == wanted) kept.push_back(item);
  }
  return list_value(work, std::move(kept), ListKind::generator);
}
Value filter_select(Work& work, const Value& self, const Bound& args) {
  return selected(work, self, args, false, true);
}
Value filter_reject(Work& work, const Value& self, const Bound& args) {
  return selected(work, self, args, false, false);
}
Value filter_selectattr(Work& work, const Value& self, const Bound& args) {
  return selected(work, self, args, true, true);
}
Value filter_rejectattr(Work& work, const Value& self, const Bound& args) {
  return selected(work, self, args, true, false);
}

constexpr Builtin kListFilters[] = {
    {"batch", "linecount fill_with?", filter_batch},
    {"count", "", filter_length},
    {"dictsort", "case_sensitive? by? reverse?", filter_dictsort},
    {"first", "", filter_first},
    {"items", "", filter_items},
    {"join", "d? attribute?", filter_join},
    {"last", "", filter_last},
    {"length", "", filter_length},
    {"list", "", filter_list},
    {"map", "* **", filter_map},
    {"max", "case_sensitive? attribute?", filter_max},
    {"min", "case_sensitive? attribute?", filter_min},
    {"reject", "* **", filter_reject},
    {"rejectattr", "* **", filter_rejectattr},
    {"reverse", "", filter_reverse},
    {"select", "* **", filter_select},
    {"selectattr", "* **", filter_selectattr},
    {"sort", "reverse? case_sensitive? attribute?", filter_sort},
    {"sum", "attribute? start?", filter_sum},
    {"unique", "case_sensitive? attribute?", filter_unique},
};

}  // namespace

const Builtin* find_list_filter(std::string_view name) { return find_in(kListFilters, name); }

}  // namespace tandem::jinja
