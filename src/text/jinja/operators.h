// What Python's operators do with the values of a chat template. All throw bad_file with the line
// for values that an operator is not made for, and for an integer that does not fit 64 bits.
#pragma once

#include <algorithm>
#include <compare>

#include "text/jinja/ast.h"
#include "text/jinja/value.h"

namespace tandem::jinja {

bool equal(Work& work, const Value& left, const Value& right);
// Unordered for NaN.
std::partial_ordering order(Work& work, const Value& left, const Value& right);
bool contains(Work& work, const Value& container, const Value& wanted);
// operation: one of == != < <= > >= in, not in.
bool compare(Work& work, Operator operation, const Value& left, const Value& right);
// operation: one of + - * / // % **.
Value arithmetic(Work& work, Operator operation, const Value& left, const Value& right);
// operation: + or -.
Value unary(Work& work, Operator operation, const Value& value);

// len(value).
int64_t length_of(Work& work, const Value& value);
// What a loop over the value goes through; a generator is used up.
std::vector<Value> items_of(Work& work, const Value& value);

// Sorts items by key(item), which gives a value; as Python does, also when reversed.
template <typename Item, typename Key>
void sort_stably(Work& work, std::vector<Item>& items, Key key, bool reverse) {
  std::vector<std::pair<Value, Item>> keyed;
  for (Item& item : items) {
    Value of_item = key(item);
    keyed.emplace_back(std::move(of_item), std::move(item));
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    work.step();
    return reverse ? order(work, b.first, a.first) < 0 : order(work, a.first, b.first) < 0;
  });
  for (size_t i = 0; i < items.size(); ++i) items[i] = std::move(keyed[i].second);
}

}  // namespace tandem::jinja
