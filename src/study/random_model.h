// A shape of data/models and an encoding -> a Checkpoint with random weights, where the device that
// runs it keeps them.
#pragma once

#include <filesystem>
#include <string>

#include "formats/checkpoint.h"
#include "kernels/device.h"

namespace tandem {

struct RandomWeights {
  std::string encoding;          // of the layers' matrices: a name that encoding_of knows
  std::string lm_head = "bf16";  // of the output matrix
};

// "int8" or "int4-g128+q8_0": the layers' encoding and, behind the plus, the output matrix's.
// Throws usage.
RandomWeights parse_random_weights(const std::string& name);

// With a device the matrices lie in its memory; it must outlive the checkpoint. Throws bad_file for
// the shape, usage for the encodings.
Checkpoint make_random_model(const std::filesystem::path& shape, const RandomWeights& weights,
                             Device* device, ThreadPool& pool);

}  // namespace tandem
