"""2:4 folders that tandem writes against compressed-tensors 0.13, the last version that has the format.

usage: sparse_oracle.py DUMP_TENSOR FOLDER...

Needs a Python with compressed-tensors 0.13 (later versions dropped sparse-24-bitmask). Every matrix of
bf16, int8 and E4M3 values must decompress to the numbers that dump_tensor gives, bit for bit in
bf16's and the scales' own precision. Nibbles, which the library has no form for, are unpacked by its
pack-quantized code first.
"""

import json
import pathlib
import subprocess
import sys

import compressed_tensors
import torch
from compressed_tensors.compressors.sparse_compressors.sparse_24_bitmask import Sparse24BitMaskTensor
from compressed_tensors.compressors.quantized_compressors.pack_quantized import unpack_from_int32
from safetensors import safe_open


def theirs(tensors, module):
    values, mask = tensors[f"{module}.compressed"], tensors[f"{module}.bitmask"]
    rows, width = tensors[f"{module}.shape"].flatten().tolist()
    if values.dtype == torch.int32:
        values = unpack_from_int32(values, 4, torch.Size([rows, width // 2]))
    dense = Sparse24BitMaskTensor.from_compressed_data([rows, width], values, mask).decompress().float()
    scales = tensors.get(f"{module}.weight_scale")
    if scales is None:
        return dense
    return dense * scales.float().repeat_interleave(width // scales.shape[1], dim=1)


def check(dump_tensor, folder):
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert config["sparsity_config"]["format"] == "sparse-24-bitmask", folder
    tensors = {}
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name in file.keys():
            if name.rsplit(".", 1)[-1] in ("compressed", "bitmask", "shape", "weight_scale"):
                tensors[name] = file.get_tensor(name)
    modules = sorted(name.removesuffix(".compressed") for name in tensors if name.endswith(".compressed"))
    assert modules, f"{folder}: no matrix is 2:4"
    with subprocess.Popen([dump_tensor, folder, *(f"{m}.weight" for m in modules)],
                          stdout=subprocess.PIPE) as program:
        for module in modules:
            dense = theirs(tensors, module)
            raw = program.stdout.read(4 * dense.numel())
            assert len(raw) == 4 * dense.numel(), f"{folder}: {module}: dump_tensor ended early"
            ours = torch.frombuffer(bytearray(raw), dtype=torch.float32).reshape(dense.shape)
            if not torch.equal(ours, dense):
                print(f"{folder}: {module}: {(ours != dense).sum()} of {dense.numel()} numbers differ")
                return False
    print(f"{folder}: {len(modules)} matrices equal, compressed-tensors {compressed_tensors.__version__}")
    return True


def main():
    dump_tensor, *folders = sys.argv[1:]
    return 0 if all([check(dump_tensor, pathlib.Path(folder)) for folder in folders]) else 1


if __name__ == "__main__":
    sys.exit(main())
