// What tokenizer.json says around its BPE (normalizer, pre_tokenizer, post_processor, decoder) ->
// the names that TokenizerSpec has for it.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "formats/tokenizer_spec.h"

namespace tandem {

// Sets the kind, the pre-tokenizer and the normalizer. Returns the spelling of the token that the
// post-processor puts in front of a text; empty: none. Throws bad_file printing a step that is not
// known.
std::string read_tokenizer_pipeline(const SortedJson& json, TokenizerSpec* spec,
                                    const std::string& where);

// The pattern of the Split step that a pre-tokenizer of this name has; nullptr: none has one.
const char* split_pattern(std::string_view name);

}  // namespace tandem
