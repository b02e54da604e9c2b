"""Holds integers with zero points, in the layouts of compressed-tensors, GPTQ and AWQ, against their definitions.

Rewrites the golden of round to nearest (the compressed-tensors library's codes, scales and zero points for
rows of bf16 and f16), then compresses the default model in every layout and checks that
  - compressed-tensors: our tensors are those of the library's compress, bit for bit,
  - the library's decompression, or the layout's definition written down here in numpy, gives our decode,
  - our logits are those of the decoded weights run by transformers in fp32 (NMSE below 1e-3; 1e-2 where
    activations have 8 bits),
  - transformers loads the compressed-tensors folders itself, but for packed zero points, and gives these
    logits too,
  - llama.cpp's blocks made of AWQ and GPTQ folders hold their codes and scales.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import safetensors.torch
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams

import gguf_model
from our_logits import our_logits

PROMPT = "The tallest mountain in the world is Mount Everest, whose height is 8848 metres."
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
# name -> arguments of `tandem compress`
FOLDERS = {
    "int4 asymmetric": ["int4", "--asymmetric"],
    "int4 per channel": ["int4", "--per-channel"],
    "int3": ["int3"],
    "int3 asymmetric g32": ["int3", "--asymmetric", "--group", "32"],
    "int8 groups": ["int8", "--group", "64"],
    "int8 asymmetric": ["int8", "--asymmetric", "--per-channel"],
    "GPTQ v1": ["int4", "--format", "gptq"],
    "GPTQ v2 asymmetric": ["int4", "--format", "gptq_v2", "--asymmetric"],
    "GPTQ 8 bits": ["int8", "--format", "gptq", "--per-channel"],
    "GPTQ 3 bits": ["int3", "--format", "gptq"],
    "AWQ": ["int4", "--format", "awq", "--asymmetric"],
    "AWQ symmetric": ["int4", "--format", "awq", "--group", "32"],
}
GGUF = {"GPTQ v1": "q4_0", "AWQ": "q4_1", "AWQ symmetric": "q4_0", "GPTQ v2 asymmetric": "q4_1"}


def scheme(bits, group, symmetric):
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric,
               "strategy": "group" if group else "channel", "group_size": group or None}
    return QuantizationScheme(targets=["Linear"], weights=weights)


def library_rtn(weight, args):
    """-> (signed codes, scales, signed zeros), as a min-max observer feeds the library."""
    groups = weight.unflatten(-1, (-1, args.group_size or weight.shape[-1]))
    scale, zero = calculate_qparams(groups.amin(dim=-1), groups.amax(dim=-1), args)
    return quantize(weight, scale, zero, args, dtype=torch.int8), scale, zero


def bits_of(tensor):
    return (tensor.contiguous().view(torch.int16).to(torch.int32) & 0xFFFF).tolist()


def write_golden():
    ramp = torch.arange(64.0) - 31.5
    rows = [torch.zeros(64), torch.full((64,), 0.5), torch.full((64,), -3.0), ramp, -ramp, ramp + 40,
            torch.cat([torch.zeros(63), torch.tensor([1.0])]), (torch.arange(64.0) - 32) / 4]
    generator = torch.Generator().manual_seed(11)
    for i in range(14):
        rows.append(torch.randn(64, generator=generator) * 10.0 ** (i % 6 - 3) + (i % 3 - 1) * 0.4)
    golden = {}
    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        weight = torch.stack(rows).to(dtype)
        golden[name + "_rows"] = bits_of(weight)
        for bits, group, symmetric in ((4, 32, False), (4, 0, True), (3, 32, True), (8, 32, False), (8, 0, False)):
            codes, scale, zero = library_rtn(weight, scheme(bits, group, symmetric).weights)
            middle = 1 << (bits - 1)
            golden[f"{name}_{bits}_g{group}_{'sym' if symmetric else 'asym'}"] = {
                "type": name, "bits": bits, "group": group, "symmetric": symmetric,
                "codes": (codes.int() + middle).flatten().tolist(),
                "zeros": (zero.to(torch.int32) + middle).flatten().tolist(),
                "scales": [bits for row in bits_of(scale) for bits in row]}
    changed = gguf_model.write_golden("compress/rtn_grid.json", golden)
    print(f"integers: golden of {len(rows)} rows{', changed' if changed else ''}")


# ---- the layouts' definitions --------------------------------------------------------------------------


def fields(words, bits, axis):
    """Unsigned fields of a stream of words along `axis`, lowest bit first."""
    words = np.moveaxis(words, axis, -1)
    stream = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    values = stream.reshape(*words.shape[:-1], -1, bits) @ (1 << np.arange(bits))
    return np.moveaxis(values, -1, axis)


def gptq_weight(local, config):
    bits = config["bits"]
    codes = fields(local["qweight"].numpy(), bits, 0)  # [K, N]
    zeros = fields(local["qzeros"].numpy(), bits, 1)   # [G, N]
    if config["checkpoint_format"] == "gptq":
        zeros = (zeros + 1) % (1 << bits)
    group = local["g_idx"].numpy()
    scales = local["scales"].float().numpy()
    return torch.from_numpy(((codes - zeros[group]) * scales[group]).T.copy()).float()


def awq_weight(local, config):
    def columns(words):
        nibbles = fields(words.numpy(), 4, 1).reshape(words.shape[0], -1, 8)
        return nibbles[:, :, np.argsort(AWQ_ORDER)].reshape(words.shape[0], -1)

    codes, zeros = columns(local["qweight"]), columns(local["qzeros"])
    group = np.arange(codes.shape[0]) // config["group_size"]
    scales = local["scales"].float().numpy()
    return torch.from_numpy(((codes - zeros[group]) * scales[group]).T.copy()).float()


# ---- our folders ---------------------------------------------------------------------------------------


def our_decodes(dump_tensor, folder, shapes):
    """Yields (name, our f32 matrix) for each of {name: shape}; one program run for all."""
    with subprocess.Popen([dump_tensor, folder, *shapes], stdout=subprocess.PIPE) as program:
        for name, shape in shapes.items():
            raw = bytearray(program.stdout.read(4 * shape.numel()))
            assert len(raw) == 4 * shape.numel(), f"{folder}: {name}: dump_tensor ended early"
            yield name, torch.frombuffer(raw, dtype=torch.float32).reshape(shape)
    assert program.returncode == 0


def library_weight(name, base, local, config):
    """-> (the library's weight, the tensors it makes of the source); of GPTQ and AWQ no tensors."""
    if config["quant_method"] == "gptq":
        return gptq_weight(local, config), None
    if config["quant_method"] == "awq":
        return awq_weight(local, config), None
    parsed = QuantizationConfig.model_validate(config)
    group = parsed.config_groups["group_0"]
    compressor = BaseCompressor.get_value_from_registry(parsed.format)
    _, scale, zero = library_rtn(base[name], group.weights)
    state = {"weight": base[name], "weight_scale": scale}
    if not group.weights.symmetric:
        state["weight_zero_point"] = zero
    made = compressor.compress(state, group)
    wide = {key: value.float() if value.is_floating_point() else value for key, value in local.items()}
    return compressor.decompress(wide, group)["weight"].float(), made


def check_weights(folder, base, dump_tensor):
    """-> (number of matrices that differ, the decoded weights)."""
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    ours = safetensors.torch.load_file(folder / "model.safetensors")
    matrices = {key: base[key].shape for key in base if key.endswith("_proj.weight")}
    bad, decoded = 0, {}
    for name, decode in our_decodes(dump_tensor, folder, matrices):
        module = name.removesuffix("weight")
        local = {key.removeprefix(module): value for key, value in ours.items() if key.startswith(module)}
        weight, made = library_weight(name, base, local, config)
        same = torch.equal(weight, decode)
        if made is not None:
            same = same and made.keys() == local.keys() and all(torch.equal(made[key], local[key]) for key in made)
        bad += not same
        decoded[name] = weight
    return bad, decoded


def nmse(ours, theirs):
    return (((ours - theirs) ** 2).sum() / (theirs ** 2).sum()).item()


def check_logits(name, folder, model, decoded, tokens, args):
    """Number of ways to run the folder that give other logits than the decoded weights in fp32."""
    state = model.state_dict()
    with torch.no_grad():
        for key, value in decoded.items():
            state[key].copy_(value)
        theirs = model(torch.tensor([tokens])).logits[0]
    program = args.build / "tests/model/dump_logits"
    errors = {isa: nmse(our_logits(program, folder, tokens, isa), theirs) for isa in ("ref", args.isa)}
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    # compressed-tensors 0.20 lays an empty model's packed zero points out unpacked, so that transformers
    # refuses the shape of those that its own compress() writes.
    packed_zeros = config.get("format") == "pack-quantized" and "asymmetric" in name
    if config["quant_method"] == "compressed-tensors" and not packed_zeros:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            errors["transformers"] = nmse(loaded(torch.tensor([tokens])).logits[0], theirs)
    print(f"integers: {name}: " + ", ".join(f"{key} {value:.1e}" for key, value in errors.items()))
    # The fast sets round activations to 8 bits, which ref and transformers do not.
    return sum(not value < (1e-2 if key == args.isa else 1e-3) for key, value in errors.items())


def check_gguf(name, folder, recipe, decoded, args):
    """Number of matrices of the GGUF file whose values are not the folder's: scales f16, minimums rounded."""
    path = folder.parent / (name.replace(" ", "-") + ".gguf")
    subprocess.run([args.build / "tandem", "compress", folder, "--recipe", recipe, "-o", path], check=True,
                   stdout=subprocess.DEVNULL)
    heads = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj"}
    reader = gguf.GGUFReader(path)
    num_heads = {"attn_q": reader.fields["llama.attention.head_count"].contents(),
                 "attn_k": reader.fields["llama.attention.head_count_kv"].contents()}
    bad = 0
    for tensor in reader.tensors:
        parts = tensor.name.split(".")
        if len(parts) != 4 or parts[2] not in heads or tensor.tensor_type.name.lower() != recipe:
            continue
        values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        wanted = decoded[f"model.layers.{parts[1]}.{heads[parts[2]]}.weight"]
        if parts[2] in num_heads:
            shape = wanted.shape
            wanted = wanted.reshape(num_heads[parts[2]], 2, -1, shape[1]).transpose(1, 2).reshape(shape)
        same = torch.equal(values, wanted) if recipe == "q4_0" else torch.allclose(
            values, wanted, rtol=0, atol=wanted.abs().max().item() * 2 ** -10)
        bad += not same
    size = sum(tensor.tensor_type.name.lower() == recipe for tensor in reader.tensors)
    print(f"integers: {name} as {recipe}: {size} matrices, {'equal' if bad == 0 else f'{bad} differ'}")
    return bad + (size != len(decoded))


def check_folders(args):
    tokens = gguf_model.load_tokenizer(args.model).encode(PROMPT).ids
    dump_tensor = args.build / "tests/formats/dump_tensor"
    bad = 0
    with tempfile.TemporaryDirectory() as parent:
        parent = pathlib.Path(parent)

        def compress(name, recipe):
            folder = parent / name.replace(" ", "-")
            subprocess.run([args.build / "tandem", "compress", args.model, "--recipe", *recipe, "-o", folder],
                           check=True, stdout=subprocess.DEVNULL)
            return folder

        plain = compress("bf16", ["bf16"])
        base = safetensors.torch.load_file(plain / "model.safetensors")
        model = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
        for name, recipe in FOLDERS.items():
            if args.only and args.only not in name:
                continue
            folder = compress(name, recipe)
            found, decoded = check_weights(folder, base, dump_tensor)
            print(f"integers: {name}: weights {'equal' if found == 0 else f'{found} differ'}")
            found += check_logits(name, folder, model, decoded, tokens, args)
            if name in GGUF:
                found += check_gguf(name, folder, GGUF[name], decoded, args)
            bad += found
            (folder / "model.safetensors").unlink()
    return bad


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    parser.add_argument("--build", type=pathlib.Path, help="where tandem was built; none: golden only")
    parser.add_argument("--isa", default="avx2", help="the instruction set to run besides ref")
    parser.add_argument("--only", help="folders whose name holds this")
    args = parser.parse_args()
    write_golden()
    return 0 if args.build is None or check_folders(args) == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
