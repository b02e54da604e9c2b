// --device of every verb that runs a model.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "kernels/device.h"

namespace tandem {

// Adds --device to a verb; a GPU's name takes the place of an instruction set's in `isa`.
inline void add_device_option(CLI::App* verb, std::string& isa) {
  verb->add_option("--device", isa, "cuda, or cuda:N of several; without it the CPU runs the model")
      ->type_name("NAME")
      ->excludes("--isa")
      ->check(CLI::Validator(
          [](const std::string& name) {
            return names_device(name) ? std::string()
                                      : "found '" + name + "', expected cuda or cuda:N";
          },
          ""));
}

}  // namespace tandem
