"""Writes tests/golden/marlin24/two.safetensors with compressed-tensors 0.13, the last that has marlin-24.

usage: marlin24_golden.py FILE

Two matrices whose numbers tests/formats/marlin24_test.cpp makes by the same rules: "groups" [64, 384],
a scale for each 128 weights of a row, and "rows" [128, 64], one a row.
"""

import sys

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file

PATTERNS = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def codes(rows, width):
    out = torch.zeros(rows, width)
    for n in range(rows):
        for k in range(width):
            if k % 4 in PATTERNS[(7 * n + 5 * (k // 4) + n * (k // 4)) % 6]:
                # 0 is left out: the library takes a code of 0 for a weight that is gone
                out[n, k] = (31 * n + 17 * k + n * k) % 15 - 7 or 7
    return out


def compressed(name, rows, width, group):
    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    args = QuantizationArgs(num_bits=4, symmetric=True, **strategy)
    groups = width // group if group else 1
    scale = torch.tensor([[(1 + n % 8 + 8 * g) / 256 for g in range(groups)] for n in range(rows)])
    weight = codes(rows, width) * scale.repeat_interleave(width // groups, dim=1)
    state = {f"{name}.weight": weight.half(), f"{name}.weight_scale": scale.half(),
             f"{name}.weight_zero_point": torch.zeros(rows, groups, dtype=torch.int8)}
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    compressor = BaseCompressor.load_from_registry("marlin-24")
    return compressor.compress(state, names_to_scheme={name: scheme})


def main():
    tensors = compressed("groups", 64, 384, 128) | compressed("rows", 128, 64, 0)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, sys.argv[1])


if __name__ == "__main__":
    main()
