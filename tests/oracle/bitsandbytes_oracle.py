"""Holds nf4 and fp4 against the bitsandbytes library.

Rewrites the golden of hand-made and drawn rows (codes and absmax of the library), then compresses the
default model to nf4 and checks that
  - our codes and absmax are those of the library's quantize_4bit for the same bf16 weights,
  - the library's dequantize_4bit equals our decode in f32, of our folder and of one whose absmax the
    library has quantized in turn (double quantization), in nf4 and in fp4.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import safetensors.torch
import torch

import gguf_model

try:
    import bitsandbytes
    from bitsandbytes import functional
except ImportError:
    print("bitsandbytes: the package is absent")
    sys.exit(77)

BLOCK = 64


def golden_rows():
    """[N, 64] bf16: awkward rows by hand, then rows drawn at many magnitudes."""
    ramp = torch.arange(64.0) - 31.5
    middles = [(a + b) / 2 for kind in ("nf4", "fp4")
               for a, b in zip(*[iter(sorted(functional.get_4bit_type(kind, "cpu").tolist()))] * 2)]
    rows = [torch.zeros(64), torch.full((64,), 0.5), torch.full((64,), -3.0), ramp, -ramp, ramp * 1e-40,
            torch.full((64,), 1e-39), ramp * 1e37, torch.tensor((middles * 4)[:63] + [1.0])]
    generator = torch.Generator().manual_seed(9)
    for i in range(11):
        rows.append(torch.randn(64, generator=generator) * 10.0 ** (i % 7 - 4))
    return torch.stack(rows).to(torch.bfloat16)


def quantized(weight, kind, nested=False):
    """-> (packed codes, the library's state)."""
    return functional.quantize_4bit(weight.contiguous(), blocksize=BLOCK, quant_type=kind,
                                    compress_statistics=nested)


def bits_of(tensor, integer, mask):
    return (tensor.contiguous().view(integer).to(torch.int64) & mask).flatten().tolist()


def write_golden():
    weight = golden_rows()
    golden = {"rows": [bits_of(row, torch.int16, 0xFFFF) for row in weight]}
    for kind in ("nf4", "fp4"):
        packed, state = quantized(weight, kind)
        golden[kind + "_codes"] = packed.reshape(len(weight), 32).tolist()
        golden[kind + "_absmax"] = bits_of(state.absmax, torch.int32, 0xFFFFFFFF)
    changed = gguf_model.write_golden("compress/nf4.json", golden)
    print(f"bitsandbytes: golden of {len(weight)} rows by bitsandbytes {bitsandbytes.__version__}"
          f"{', changed' if changed else ''}")


def our_decodes(dump_tensor, folder, shapes):
    """Yields (name, our f32 matrix) for each of {name: shape}; one program run for all."""
    with subprocess.Popen([dump_tensor, folder, *shapes], stdout=subprocess.PIPE) as program:
        for name, shape in shapes.items():
            raw = bytearray(program.stdout.read(4 * shape.numel()))
            assert len(raw) == 4 * shape.numel(), f"{folder}: {name}: dump_tensor ended early"
            yield name, torch.frombuffer(raw, dtype=torch.float32).reshape(shape)
    assert program.returncode == 0


def check_decodes(dump_tensor, folder, base, states):
    """Number of matrices that we decode otherwise than the library."""
    shapes = {name: base[name].shape for name in states}
    bad = 0
    for name, ours in our_decodes(dump_tensor, folder, shapes):
        packed, state = states[name]
        state.dtype = torch.float32
        bad += not torch.equal(functional.dequantize_4bit(packed, state), ours)
    return bad


def check_ours(folder, base, matrices, dump_tensor):
    """Number of the matrices of our folder whose files or decode differ from the library's."""
    ours = safetensors.torch.load_file(folder / "model.safetensors")
    bad, states = 0, {}
    for name in matrices:
        packed, state = quantized(base[name], "nf4")
        states[name] = packed, state
        expected = {name: packed, **{f"{name}.{key}": value
                                     for key, value in state.as_dict(packed=True).items()}}
        found = {key: value for key, value in ours.items() if key.startswith(name)}
        same = expected.keys() == found.keys() and all(
            torch.equal(expected[key], found[key]) for key in expected)
        if not same:
            bad += 1
            differ = [key for key in expected if key not in found or
                      not torch.equal(expected[key], found[key])]
            print(f"bitsandbytes: {name}: {differ}")
    return bad + check_decodes(dump_tensor, folder, base, states)


def check_nested(folder, base, matrices, dump_tensor, kind, parent):
    """The same of a folder that the library itself has quantized, absmax included."""
    other = pathlib.Path(parent) / (kind + "-nested")
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text())
    plain = [key.removesuffix(".weight") for key in base
             if key.endswith("_proj.weight") and key not in matrices]
    config["quantization_config"].update(bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=True,
                                         llm_int8_skip_modules=["lm_head", *plain])
    (other / "config.json").write_text(json.dumps(config))
    tensors = {key: value for key, value in base.items() if key not in matrices}
    states = {}
    for name in matrices:
        packed, state = quantized(base[name], kind, nested=True)
        states[name] = packed, state
        tensors[name] = packed
        tensors.update({f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()})
    safetensors.torch.save_file(tensors, other / "model.safetensors", {"format": "pt"})
    return check_decodes(dump_tensor, other, base, states)


def check_folders(args):
    tandem, dump_tensor = args.build / "tandem", args.build / "tests/formats/dump_tensor"
    bad = 0
    with tempfile.TemporaryDirectory() as parent:
        folders = {}
        for recipe in ("bf16", "nf4"):
            folders[recipe] = pathlib.Path(parent) / recipe
            subprocess.run([tandem, "compress", args.model, "--recipe", recipe, "-o", folders[recipe]],
                           check=True, stdout=subprocess.DEVNULL)
        base = safetensors.torch.load_file(folders["bf16"] / "model.safetensors")
        matrices = [key for key in base if key.endswith("_proj.weight")]
        checks = {"nf4": check_ours(folders["nf4"], base, matrices, dump_tensor)}
        for kind in ("nf4", "fp4"):
            checks[kind + ", double quantization"] = check_nested(
                folders["nf4"], base, matrices[:20], dump_tensor, kind, parent)
        for name, found in checks.items():
            print(f"bitsandbytes: {name}: {'equal' if found == 0 else f'{found} differences'}")
            bad += found
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    parser.add_argument("--build", type=pathlib.Path, help="where tandem was built; none: golden only")
    args = parser.parse_args()
    write_golden()
    return 0 if args.build is None or check_folders(args) == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
