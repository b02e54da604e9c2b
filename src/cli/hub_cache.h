// Models that Hugging Face's own tools have put into the local cache, by their id. Nothing is fetched.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace tandem {

// "org/name" in letters, digits and "._-".
bool is_hub_id(std::string_view text);

// $HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub.
std::filesystem::path hub_cache_path();

// cache/models--ORG--NAME/snapshots/REVISION: the one that refs/main names, else the only one.
// Throws usage with the command that fetches the model when there is none.
std::filesystem::path find_in_hub_cache(const std::filesystem::path& cache, const std::string& id);

}  // namespace tandem
