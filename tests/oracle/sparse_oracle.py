"""2:4 folders that tandem writes against compressed-tensors 0.13, the last version that has the format.

usage: sparse_oracle.py --model MODEL --build BUILD

Prunes MODEL by magnitude and writes it in bf16, INT8, FP8 and INT4. Every matrix must decompress to
the numbers that dump_tensor gives. Nibbles, which the library has no 2:4 form for, are unpacked by
its pack-quantized code first.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import compressed_tensors
import torch
from compressed_tensors.compressors.quantized_compressors.pack_quantized import unpack_from_int32
from compressed_tensors.compressors.sparse_compressors.sparse_24_bitmask import Sparse24BitMaskTensor
from safetensors import safe_open

RECIPES = {
    "bf16": "",
    "int8": '[[step]]\nmethod = "rtn"\nbits = 8\ngroup = 0\n',
    "fp8": '[[step]]\nmethod = "fp8"\n',
    "int4": '[[step]]\nmethod = "rtn"\nbits = 4\ngroup = 64\n',
}
SUFFIXES = ("compressed", "bitmask", "shape", "weight_scale")


def write(tandem, model, kind, folder):
    activations = "dynamic" if kind in ("int8", "fp8") else "none"
    recipe = folder / f"{kind}.toml"
    recipe.write_text(f'format = "sparse-24-bitmask"\nactivations = "{activations}"\n'
                      '[[step]]\nmethod = "magnitude-24"\n' + RECIPES[kind])
    out = folder / kind
    subprocess.run([tandem, "compress", model, "--recipe", recipe, "--no-gate", "-o", out],
                   check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return out


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
    with safe_open(folder / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name.endswith(SUFFIXES)}
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
                print(f"{folder.name}: {module}: {(ours != dense).sum()} of {dense.numel()} numbers differ")
                return False
    print(f"{folder.name}: {len(modules)} matrices equal, compressed-tensors {compressed_tensors.__version__}")
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    args = parser.parse_args()
    equal = True
    with tempfile.TemporaryDirectory() as temporary:
        for kind in RECIPES:
            folder = write(args.build / "tandem", args.model, kind, pathlib.Path(temporary))
            equal &= check(args.build / "tests/formats/dump_tensor", folder)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
