// Items, slices and attributes of values, with what Jinja's immutable sandbox keeps from templates
// left out.
#pragma once

#include <string>

#include "text/jinja/value.h"

namespace tandem::jinja {

// object.name: an attribute or method, else an item of that name; undefined when there is neither,
// for what starts with two underscores and for methods that change their object.
Value attribute_of(Work& work, const Value& object, const std::string& name);
// object[key]: an item, else, when the key is a string, an attribute; undefined when there is
// neither.
Value item_of(Work& work, const Value& object, const Value& key);
// object[begin:end:step] of a string, list or tuple; absent bounds are none.
Value slice_of(Work& work, const Value& object, const Value& begin, const Value& end,
               const Value& step);

}  // namespace tandem::jinja
