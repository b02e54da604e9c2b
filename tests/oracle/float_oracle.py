"""Holds the float formats that are not in compressed_oracle.py and bitsandbytes_oracle.py against the libraries.

Rewrites the golden of double quantization, then compresses the default model and checks that
  - nf4-dq, fp4 and fp4-dq have the bytes of bitsandbytes' quantize_4bit for the same bf16 weights, and
    its dequantize_4bit gives our decode in f32,
  - fp8-tensor and fp8-block have the codes and scales of compressed-tensors' quantize, and
    fp8-deepseek those of transformers' Fp8Quantize, on blocks that are not cut off,
  - torch with the libraries' values gives our logits (normalized squared error < 1e-3): of FP8, where neither
    rounds activations. Where both do, ours are no further from torch's in f32 than 4 times what torch's in f64
    are: such a rounding falls the other way on the last bit of a sum,
  - 2:4 with a mask decodes to the two largest magnitudes of four,
  - SmoothQuant and FP8 by steps with scales of the activations from calibration load in transformers with
    compressed-tensors and give our logits, dequantized (< 1e-3) and as they stand (< 3e-2),
  - folders with fixed activation scales, made here in the dialects of vLLM and compressed-tensors, give the logits
    of a model in torch that rounds its activations so (normalized squared error < 3e-2).
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
import transformers

import gguf_model
import our_logits
from bitsandbytes_oracle import bits_of, functional, our_decodes

MAX_ERROR = 1e-3
# With activations of 8 bits: a rounding that falls the other way changes an element by up to 6 %, and with it
# those of all later layers. Codes, scales and decode are held to the bit.
MAX_ERROR_OF_BYTES = 3e-2
MAX_TIMES_TORCH = 4
PROMPT = "The capital of France is Paris. The capital of Italy is"


def write_golden():
    generator = torch.Generator().manual_seed(12)
    cases = []
    for count in (1, 16, 63, 300, 1728, 5184):
        absmax = (torch.rand(count, generator=generator) * 0.2 + 0.01) ** 2
        offset = absmax.mean()
        codes, state = functional.quantize_blockwise(absmax - offset, blocksize=256)
        cases.append({"absmax": bits_of(absmax, torch.int32, 0xFFFFFFFF),
                      "offset": bits_of(offset.reshape(1), torch.int32, 0xFFFFFFFF)[0],
                      "codes": codes.tolist(),
                      "nested_absmax": bits_of(state.absmax, torch.int32, 0xFFFFFFFF)})
    golden = {"map": bits_of(functional.create_dynamic_map(), torch.int32, 0xFFFFFFFF), "cases": cases}
    changed = gguf_model.write_golden("compress/double_quantization.json", golden)
    print(f"float: golden of {len(cases)} cases of double quantization{', changed' if changed else ''}")


def check_tables(ours, base, matrices, kind, nested, decodes):
    """Number of matrices whose bytes or decode differ from the library's."""
    bad = 0
    for name, decode in decodes:
        packed, state = functional.quantize_4bit(base[name].contiguous(), blocksize=64, quant_type=kind,
                                                 compress_statistics=nested)
        expected = {name: packed, **{f"{name}.{key}": value
                                     for key, value in state.as_dict(packed=True).items()}}
        found = {key: value for key, value in ours.items() if key.startswith(name)}
        differ = [key for key in expected if key not in found or not torch.equal(expected[key], found[key])]
        state.dtype = torch.float32
        same_decode = torch.equal(functional.dequantize_4bit(packed, state), decode)
        if differ or expected.keys() != found.keys() or not same_decode:
            bad += 1
            print(f"float: {kind} nested {nested}: {name}: {differ}, decode {same_decode}")
    return bad


def blocks_of(weight, size):
    """[row blocks, column blocks] of magnitudes; the last ones may be cut off."""
    rows, columns = (n if size == 0 else size for n in weight.shape)
    return torch.stack([torch.stack([block.abs().amax() for block in strip.split(columns, 1)])
                        for strip in weight.split(rows, 0)])


def spread(scales, shape, size):
    """The scale of each element."""
    rows, columns = (n if size == 0 else size for n in shape)
    return scales.repeat_interleave(rows, 0)[:shape[0]].repeat_interleave(columns, 1)[:, :shape[1]]


def check_fp8(ours, base, recipe, decodes):
    """As check_tables, by the libraries' own arithmetic in torch."""
    bad = 0
    size = 0 if recipe == "fp8-tensor" else 128
    for name, decode in decodes:
        weight = base[name]
        if recipe == "fp8-deepseek":
            magnitude = blocks_of(weight.float(), size)
            factor = torch.where(magnitude > 0, 448.0 / magnitude, torch.ones_like(magnitude))
            scale = 1.0 / factor
            codes = (weight.float() * spread(factor, weight.shape, size)).clamp(-448, 448)
            found = ours[name + "_scale_inv"]
        else:
            scale = blocks_of(weight, size) / 448
            codes = (weight / spread(scale, weight.shape, size) + 0).clamp(-448, 448)
            found = ours[name + "_scale"].reshape(scale.shape)
        codes = codes.to(torch.float8_e4m3fn)
        value = codes.float() * spread(scale.float(), weight.shape, size)
        same = [torch.equal(scale, found), torch.equal(codes.view(torch.uint8), ours[name].view(torch.uint8)),
                torch.equal(value, decode)]
        if not all(same):
            bad += 1
            print(f"float: {recipe}: {name}: scales, codes, decode {same}")
    return bad


def check_masked(ours, base, decodes):
    bad = 0
    for name, decode in decodes:
        four = base[name].float().unflatten(-1, (-1, 4))
        kept = decode.unflatten(-1, (-1, 4))
        is_kept = kept != 0
        largest = four.abs().sort(dim=-1).values[..., 2:].sum(-1)
        same = torch.equal(kept[is_kept], four[is_kept]) and torch.equal(kept.abs().sum(-1), largest)
        module = name.removesuffix(".weight")
        same = same and ours[module + ".compressed"].shape[1] * 2 == base[name].shape[1]
        bad += not same
    return bad


def rounded_rows(value, group):
    """E4M3 with a scale for each `group` channels of a token; 0: for all of them."""
    pieces = value.split(group or value.shape[-1], -1)
    scales = [piece.abs().amax(-1, keepdim=True) / 448 for piece in pieces]
    return torch.cat([rounded(piece, scale, True) for piece, scale in zip(pieces, scales)], -1)


def normalized_error(ours, theirs):
    return ((ours - theirs).square().mean() / theirs.square().mean()).item()


def torch_logits(base, values, ids, group=None, dtype=torch.float32):
    """With these values for the matrices; group: activations rounded as rounded_rows does, None: not."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    model.load_state_dict(values, strict=False)
    if group is not None:
        for module in layer_linears(model).values():
            module.register_forward_pre_hook(lambda _, inputs: (rounded_rows(inputs[0], group),))
    with torch.no_grad():
        return model(ids).logits[0].double()


def check_logits(folder, program, base, values, recipe):
    """Number of ways in which our logits (ref) are not torch's with the library's values."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    ids = tokenizer(PROMPT, return_tensors="pt", add_special_tokens=False).input_ids
    tokens = ids[0].tolist()
    ours, theirs = our_logits.our_logits(program, folder, tokens), torch_logits(base, values, ids)
    if not recipe.startswith("fp8"):
        error = normalized_error(ours, theirs)
        print(f"float: {recipe}: logits {error:.1e}", flush=True)
        return not error < MAX_ERROR
    group = 0 if recipe == "fp8-tensor" else 128
    rounding, exact = (torch_logits(base, values, ids, group, dtype) for dtype in (torch.float32, torch.float64))
    error, own = normalized_error(ours, rounding), normalized_error(rounding, exact)
    plain = (plain_logits(folder, program, tokens) if recipe == "fp8-tensor"
             else logits_of_values(folder, program, base, values, tokens))
    unrounded = normalized_error(plain, theirs)
    print(f"float: {recipe}: logits {error:.1e} (torch in f32 and f64 {own:.1e}), without rounded activations "
          f"{unrounded:.1e}", flush=True)
    return (not error < MAX_TIMES_TORCH * own) + (not unrounded < MAX_ERROR)


def plain_logits(folder, program, tokens):
    """Ours with activations as they are: the same codes and a config without input_activations."""
    plain = folder.with_name(folder.name + "-plain")
    shutil.copytree(folder, plain)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_0"]["input_activations"] = None
    (plain / "config.json").write_text(json.dumps(config))
    return our_logits.our_logits(program, plain, tokens)


def logits_of_values(folder, program, base, values, tokens):
    """The same for blocks, which always meet rounded activations: of the f32 numbers that they stand for."""
    plain = folder.with_name(folder.name + "-values")
    shutil.copytree(base, plain)
    tensors = safetensors.torch.load_file(base / "model.safetensors")
    safetensors.torch.save_file({**tensors, **values}, plain / "model.safetensors", {"format": "pt"})
    return our_logits.our_logits(program, plain, tokens)


def layer_linears(model):
    return {name: module for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and name != "lm_head"}


def rounded(value, scale, is_float):
    if is_float:
        return (value / scale).clamp(-448, 448).to(torch.float8_e4m3fn).to(value.dtype) * scale
    return (value / scale).round().clamp(-127, 127) * scale


def static_config(dialect):
    if dialect == "vllm":
        return {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
    kind = "int" if dialect == "int8" else "float"
    numbers = {"num_bits": 8, "type": kind, "strategy": "tensor", "symmetric": True, "dynamic": False}
    return {"quant_method": "compressed-tensors", "format": f"{kind}-quantized", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": numbers, "input_activations": numbers}}}


def check_static(args, base_folder, parent):
    """Number of dialects whose fixed activation scales give other logits than torch."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base_folder)
    ids = tokenizer(PROMPT, return_tensors="pt", add_special_tokens=False).input_ids
    bad = 0
    for dialect in ("vllm", "fp8", "int8"):
        is_float = dialect != "int8"
        largest = 448.0 if is_float else 127.0
        model = transformers.AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
        linears, magnitude = layer_linears(model), {}

        def observe(name):
            return lambda module, inputs: magnitude.__setitem__(name, inputs[0].abs().amax())

        hooks = [module.register_forward_pre_hook(observe(name)) for name, module in linears.items()]
        with torch.no_grad():
            model(ids)
            for hook in hooks:
                hook.remove()
            tensors = safetensors.torch.load_file(base_folder / "model.safetensors")
            for name, module in linears.items():
                scale, input_scale = module.weight.abs().amax() / largest, magnitude[name] / largest
                codes = module.weight / scale
                codes = codes.clamp(-448, 448).to(torch.float8_e4m3fn) if is_float else codes.round().to(torch.int8)
                tensors.update({f"{name}.weight": codes, f"{name}.weight_scale": scale.reshape(1),
                                f"{name}.input_scale": input_scale.reshape(1)})
                module.weight.copy_(codes.float() * scale)
                module.register_forward_pre_hook(
                    lambda module, inputs, scale=input_scale: (rounded(inputs[0], scale, is_float),))
            theirs = model(ids).logits[0]
        folder = pathlib.Path(parent) / f"static-{dialect}"
        shutil.copytree(base_folder, folder)
        safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = static_config(dialect)
        (folder / "config.json").write_text(json.dumps(config))
        for isa in args.isas.split(","):
            ours = our_logits.our_logits(args.build / "tests/model/dump_logits", folder, ids[0].tolist(), isa)
            error = normalized_error(ours, theirs)
            bad += not error < MAX_ERROR_OF_BYTES
            print(f"float: static {dialect} on {isa}: logits {error:.1e}", flush=True)
    return bad


def check_steps(args, parent):
    """SmoothQuant and FP8 with scales of the activations from calibration, as the library loads and runs it:
    number of its two forms, dequantized and as it stands, in which its logits are others than ours."""
    recipe, text, folder = (pathlib.Path(parent) / name for name in ("steps.toml", "text.txt", "steps"))
    recipe.write_text('activations = "static"\n\n[[step]]\nmethod = "smoothquant"\n\n[[step]]\nmethod = "fp8"\n')
    text.write_text((PROMPT + ". The river ran past the mill and on to the sea. ") * 40)
    subprocess.run([args.build / "tandem", "compress", args.model, "--recipe", recipe, "--calibration", text,
                    "--samples", "4", "--length", "64", "--no-gate", "-o", folder],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ids = transformers.AutoTokenizer.from_pretrained(folder)(
        PROMPT, return_tensors="pt", add_special_tokens=False).input_ids
    program, tokens = args.build / "tests/model/dump_logits", ids[0].tolist()
    bad = 0
    for is_compressed, ours, most in ((True, our_logits.our_logits(program, folder, tokens), MAX_ERROR_OF_BYTES),
                                      (False, plain_logits(folder, program, tokens), MAX_ERROR)):
        config = transformers.CompressedTensorsConfig(run_compressed=is_compressed)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                                  quantization_config=config)
        with torch.no_grad():
            error = normalized_error(ours, model(ids).logits[0])
        bad += not error < most
        print(f"float: steps, {'as it stands' if is_compressed else 'dequantized'}: logits {error:.1e}", flush=True)
    return bad


def check_folders(args):
    tandem, dump_tensor = args.build / "tandem", args.build / "tests/formats/dump_tensor"
    bad = 0
    with tempfile.TemporaryDirectory() as parent:
        base_folder = pathlib.Path(parent) / "bf16"
        recipes = args.recipes.split(",")
        for recipe in ["bf16", *recipes]:
            folder = pathlib.Path(parent) / recipe
            subprocess.run([tandem, "compress", args.model, "--recipe", recipe, "-o", folder],
                           check=True, stdout=subprocess.DEVNULL)
            ours = safetensors.torch.load_file(folder / "model.safetensors")
            if recipe == "bf16":
                base = ours
                matrices = [key for key in base if key.endswith("_proj.weight")]
                continue
            values = dict(our_decodes(dump_tensor, folder, {name: base[name].shape for name in matrices}))
            if recipe.startswith("fp8"):
                found = check_fp8(ours, base, recipe, values.items())
            elif recipe == "sparse-24":
                found = check_masked(ours, base, values.items())
            else:
                found = check_tables(ours, base, matrices, recipe[:3], recipe.endswith("-dq"), values.items())
            print(f"float: {recipe}: {'equal' if found == 0 else f'{found} differences'}", flush=True)
            bad += found + check_logits(folder, args.build / "tests/model/dump_logits", base_folder, values, recipe)
        bad += check_static(args, base_folder, parent)
        bad += check_steps(args, parent)
    return bad


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    parser.add_argument("--build", type=pathlib.Path, help="where tandem was built; none: golden only")
    parser.add_argument("--recipes", default="nf4-dq,fp4,fp4-dq,fp8-tensor,fp8-block,fp8-deepseek,sparse-24")
    parser.add_argument("--isas", default="ref,avx2")
    args = parser.parse_args()
    write_golden()
    return 0 if args.build is None or check_folders(args) == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
