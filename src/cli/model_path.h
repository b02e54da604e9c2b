// Where the default model lies when a user names none.
#pragma once

#include <filesystem>
#include <string>

namespace tandem {

inline constexpr const char* kDefaultModelName = "SmolLM2-135M-Instruct.Q4_1.gguf";

// $XDG_CACHE_HOME (absolute, else $HOME/.cache)/tandem/models/SmolLM2-135M-Instruct.Q4_1.gguf, whether it exists
// or not.
std::filesystem::path default_model_path();

// The folder above it: $XDG_CACHE_HOME/tandem, with texts, variants and devices beside the models.
std::filesystem::path cache_folder();

// The text in it that tools/setup.sh installs for recipes that measure inputs. Throws usage, saying how
// to get it, when it is not there.
std::filesystem::path default_calibration_text();

// `given`, or its snapshot in the Hugging Face cache when no file has that name and it is a hub id,
// or the default model when it is empty. Throws usage, saying how to get the model, when a hub id is
// not in the cache or the default is not there; any other path is not looked at.
std::filesystem::path resolve_model_path(const std::string& given);

}  // namespace tandem
