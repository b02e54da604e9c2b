// XXH3-128 of bytes and files, as 32 hex digits: names a model, a text or a record, not a secret.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace tandem {

std::string hash_hex(std::span<const std::byte> bytes);
std::string hash_hex(std::string_view text);

}  // namespace tandem
