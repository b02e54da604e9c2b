"""Holds GPTQ and AWQ folders against the gptqmodel library, with a Python that has it.

Compresses the default model in each layout and checks, for the matrices of its first layer, that
  - the library's modules decode our tensors to our numbers,
  - we decode what the library packs (random codes and zero points, GPTQ with act-order) to its numbers,
and that transformers, which runs these folders through the library, gives our logits (NMSE below 1e-3).
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import types

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # or every module is compiled anew

import safetensors.torch
import torch

try:
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm, pack_awq
    from gptqmodel.utils import model as library
except ImportError:
    print("gptqmodel: the package is absent")
    sys.exit(77)

import transformers

from our_logits import our_logits

FOLDERS = {
    "GPTQ v1": ["int4", "--format", "gptq"],
    "GPTQ v1 asymmetric": ["int4", "--format", "gptq", "--asymmetric"],
    "GPTQ v2 asymmetric": ["int4", "--format", "gptq_v2", "--asymmetric"],
    "GPTQ v2 3 bits": ["int3", "--format", "gptq_v2", "--asymmetric", "--group", "32"],
    "GPTQ v1 8 bits": ["int8", "--format", "gptq"],
    "AWQ": ["int4", "--format", "awq", "--asymmetric"],
}
TOKENS = [504, 21, 38, 99, 1234, 77, 4051, 12, 9000, 345, 28, 11]


def our_decodes(dump_tensor, folder, shapes):
    """Yields (name, our f32 matrix) for each of {name: shape}; one program run for all."""
    with subprocess.Popen([dump_tensor, folder, *shapes], stdout=subprocess.PIPE) as program:
        for name, (rows, columns) in shapes.items():
            raw = bytearray(program.stdout.read(4 * rows * columns))
            assert len(raw) == 4 * rows * columns, f"{folder}: {name}: dump_tensor ended early"
            yield name, torch.frombuffer(raw, dtype=torch.float32).reshape(rows, columns)
    assert program.returncode == 0


def gptq_module(config, K, N):
    return TorchLinear(bits=config["bits"], group_size=config["group_size"], sym=config["sym"],
                       desc_act=config["desc_act"], in_features=K, out_features=N, register_buffers=True)


def library_weight(local, config):
    """[N, K] as the library decodes a module's tensors."""
    if config["quant_method"] == "awq":
        return dequantize_gemm(local["qweight"], local["qzeros"], local["scales"].float(), 4,
                               config["group_size"]).float().T
    K, N = len(local["g_idx"]), local["qweight"].shape[1]
    module = gptq_module(config, K, N)
    for key, value in local.items():
        module.register_buffer(key, value.clone())
    if config["checkpoint_format"] == "gptq":
        library.convert_gptq_v1_to_v2_format_module(module, config["bits"], torch.int32)
    module.dequant_dtype = torch.int16
    module.scales = module.scales.float()
    module.post_init()
    return module.dequantize_weight().float().T


def library_tensors(config, N, K, generator):
    """A module of random integers as the library packs it."""
    bits, group = config["bits"], config["group_size"]
    codes = torch.randint(0, 1 << bits, (N, K), generator=generator)
    low = 1 if config.get("checkpoint_format") == "gptq" else 0
    zeros = torch.randint(low, 1 << bits, (N, K // group), generator=generator)
    if config.get("sym"):
        zeros.fill_(1 << (bits - 1))
    scales = (torch.rand(N, K // group, generator=generator) * 0.01 + 0.005).half().float()
    if config["quant_method"] == "awq":
        qweight, qzeros = pack_awq(codes.T.contiguous().int(), zeros.T.contiguous().int(), 4)
        return {"qweight": qweight, "qzeros": qzeros, "scales": scales.T.contiguous().half()}
    g_idx = (torch.arange(K) // group)[torch.randperm(K, generator=generator)].int()
    linear = torch.nn.Linear(K, N, bias=False)
    linear.weight.data = (codes - zeros[:, g_idx.long()]) * scales[:, g_idx.long()]
    module = gptq_module(config, K, N)
    module.pack_original(linear, scales, zeros.float(), g_idx)
    if config["checkpoint_format"] == "gptq":
        library.convert_gptq_v2_to_v1_format_module(
            module, types.SimpleNamespace(bits=config["bits"], pack_dtype=torch.int32))
    return {key: getattr(module, key).contiguous() for key in ("qweight", "qzeros", "scales", "g_idx")}


def check_first_layer(folder, dump_tensor):
    """Number of the first layer's matrices that we and the library decode to other numbers."""
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    names = [key.removesuffix("qweight") for key in tensors
             if key.startswith("model.layers.0.") and key.endswith("qweight")]
    locals_ = {name: {key.removeprefix(name): tensors[key] for key in tensors if key.startswith(name)} for name in names}
    theirs = {name + "weight": library_weight(local, config) for name, local in locals_.items()}
    shapes = {name: tuple(weight.shape) for name, weight in theirs.items()}
    return sum(not torch.allclose(ours, theirs[name], rtol=1e-6, atol=0)
               for name, ours in our_decodes(dump_tensor, folder, shapes))


def pack_first_layer(folder):
    """Replaces the first layer's modules by others that the library packs."""
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    json_path = folder / "config.json"
    config = json.loads(json_path.read_text())
    quantization = config["quantization_config"]
    if quantization["quant_method"] == "gptq":
        quantization["desc_act"] = True
    json_path.write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(5)
    for key in [key for key in tensors if key.startswith("model.layers.0.") and key.endswith(".scales")]:
        groups, N = tensors[key].shape
        K = groups * quantization["group_size"]
        module = key.removesuffix("scales")
        for suffix, value in library_tensors(quantization, N, K, generator).items():
            tensors[module + suffix] = value
    safetensors.torch.save_file(tensors, path, {"format": "pt"})


def check_logits(folder, program):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu")
    with torch.no_grad():
        theirs = model(torch.tensor([TOKENS])).logits[0].float()
    ours = our_logits(program, folder, TOKENS, "ref")
    return (((ours - theirs) ** 2).sum() / (theirs ** 2).sum()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--logits", action="store_true", help="run the models too: minutes")
    args = parser.parse_args()
    dump_tensor = args.build / "tests/formats/dump_tensor"
    bad = 0
    with tempfile.TemporaryDirectory() as parent:
        for name, recipe in FOLDERS.items():
            folder = pathlib.Path(parent) / name.replace(" ", "-")
            subprocess.run([args.build / "tandem", "compress", args.model, "--recipe", *recipe, "-o", folder],
                           check=True, stdout=subprocess.DEVNULL)
            found = check_first_layer(folder, dump_tensor)
            if args.logits and ("8" not in name and "3" not in name):
                error = check_logits(folder, args.build / "tests/model/dump_logits")
                found += not error < 1e-3
                print(f"gptqmodel: {name}: logits {error:.1e}")
            pack_first_layer(folder)
            packed = check_first_layer(folder, dump_tensor)
            print(f"gptqmodel: {name}: ours {'equal' if found == 0 else f'{found} differ'}, "
                  f"the library's {'equal' if packed == 0 else f'{packed} differ'}")
            bad += found + packed
    return int(bad != 0)


if __name__ == "__main__":
    sys.exit(main())
