"""Holds `tandem compress` against the compressed-tensors library.

Rewrites the golden of round to nearest (the library's codes and scales for hand-made and drawn rows),
then compresses the default model with every recipe and checks that
  - our codes and scales are those of the library's own quantize for the same bf16 weights,
  - the library's decompression equals ours, bit for bit in bf16,
  - transformers loads the folders and its tokenizer gives our ids.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import compressed_tensors
import safetensors.torch
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams

import gguf_model

RECIPES = {"bf16": ["bf16"], "int8": ["int8"], "fp8": ["fp8"], "int4-g64": ["int4"],
           "int4-g32": ["int4", "--group", "32"]}
TEXTS = ["Hello, world!", "x = 3.14159  # pi\n\tif x > 3:\n", "1234567890 + 42 = ?",
         "na\u00efve \u00bd \u00b2 \u6a4b \u043c\u043e\u0441\u0442 \U0001f600", "  two  spaces\r\n\r\n"]


def scheme(bits, group, kind="int"):
    weights = {"num_bits": bits, "type": kind, "symmetric": True,
               "strategy": "group" if group else "channel", "group_size": group or None}
    return QuantizationScheme(targets=["Linear"], weights=weights)


def library_rtn(weight, args):
    """-> (codes [N, K], scales [N, groups]) of a bf16 matrix, as a min-max observer feeds them."""
    groups = weight.unflatten(-1, (-1, args.group_size or weight.shape[-1]))
    scale, zero = calculate_qparams(groups.amin(dim=-1), groups.amax(dim=-1), args)
    dtype = torch.float8_e4m3fn if args.type == "float" else torch.int8
    return quantize(weight, scale, zero, args, dtype=dtype), scale


def same(a, b):
    """Whether two tensors are equal; of E4M3, bit for bit."""
    if a.dtype == torch.float8_e4m3fn and b.dtype == a.dtype:
        return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
    return torch.equal(a, b)


# ---- the golden --------------------------------------------------------------------------------------


def golden_rows():
    """[N, 64] bf16: the awkward rows by hand, then rows drawn at many magnitudes."""
    ramp = torch.arange(64.0) - 31.5
    rows = [
        torch.zeros(64), torch.full((64,), 0.5), torch.full((64,), -3.0), ramp, -ramp,
        torch.cat([torch.zeros(63), torch.tensor([1.0])]),   # one positive outlier: clips
        torch.cat([torch.tensor([-1.0]), torch.zeros(63)]),  # one negative outlier: exact
        (torch.arange(64.0) - 32) / 4,                       # quotients half way between codes
        torch.full((64,), 1e-39), ramp * 1e-40,              # denormal in bf16
        ramp * 1e38 / 8, torch.arange(64.0) % 2 * 2 - 1,
    ]
    generator = torch.Generator().manual_seed(8)
    for i in range(20):
        rows.append(torch.randn(64, generator=generator) * 10.0 ** (i % 7 - 4))
    return torch.stack(rows).to(torch.bfloat16)


def bits_of(tensor):
    return (tensor.contiguous().view(torch.int16).to(torch.int32) & 0xFFFF).tolist()


def write_rtn_golden():
    weight = golden_rows()
    golden = {"rows": bits_of(weight)}
    for name, bits, group in (("int8", 8, 0), ("int4_g32", 4, 32), ("int4_g64", 4, 64)):
        args = scheme(bits, group).weights
        codes, scale = library_rtn(weight, args)
        golden[name + "_scales"] = bits_of(scale)
        if bits == 8:
            golden[name + "_codes"] = codes.tolist()
        else:
            packer = BaseCompressor.get_value_from_registry("pack-quantized")
            packed = packer.compress({"weight": weight, "weight_scale": scale}, scheme(bits, group))
            golden[name + "_packed"] = packed["weight_packed"].tolist()
    codes, scale = library_rtn(weight, scheme(8, 0, "float").weights)
    golden["fp8_scales"] = bits_of(scale)
    golden["fp8_codes"] = codes.view(torch.uint8).tolist()
    changed = gguf_model.write_golden("compress/rtn.json", golden)
    print(f"compressed: golden of {len(weight)} rows by compressed-tensors "
          f"{compressed_tensors.__version__}{', changed' if changed else ''}")


# ---- our folders -------------------------------------------------------------------------------------


def our_decodes(dump_tensor, folder, shapes):
    """Yields (name, our bf16 matrix) for each of {name: shape}; one program run for all."""
    with subprocess.Popen([dump_tensor, folder, *shapes], stdout=subprocess.PIPE) as program:
        for name, shape in shapes.items():
            raw = bytearray(program.stdout.read(4 * shape.numel()))
            assert len(raw) == 4 * shape.numel(), f"{folder}: {name}: dump_tensor ended early"
            yield name, torch.frombuffer(raw, dtype=torch.float32).reshape(shape).to(torch.bfloat16)
    assert program.returncode == 0


def check_quantized(folder, base, dump_tensor):
    """Number of the folder's matrices whose codes, scales or decode differ from the library's."""
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    parsed = QuantizationConfig.model_validate(config)
    group = parsed.config_groups["group_0"]
    compressor = BaseCompressor.get_value_from_registry(parsed.format)
    ours = safetensors.torch.load_file(folder / "model.safetensors")
    bad = 0
    matrices = {key: base[key].shape for key in base if key.endswith("_proj.weight")}
    for name, our_decode in our_decodes(dump_tensor, folder, matrices):
        module = name.removesuffix("weight")
        local = {key.removeprefix(module): value for key, value in ours.items()
                 if key.startswith(module)}
        codes, scale = library_rtn(base[name], group.weights)
        expected = compressor.compress({"weight": base[name], "weight_scale": scale}, group)
        same_files = (local.keys() == expected.keys() and
                      all(same(local[key], expected[key]) for key in local))
        same_decode = torch.equal(compressor.decompress(local, group)["weight"], our_decode)
        if not (same_files and same_decode):
            bad += 1
            print(f"compressed: {folder.name}: {name}: files {same_files}, decode {same_decode}")
    return bad + sum(not torch.equal(base[key], ours[key]) for key in base if key not in matrices)


def check_base(folder, model_path, dump_tensor):
    """Number of the bf16 folder's tensors that are not the source rounded to bf16."""
    source = gguf_model.load_model(model_path).state_dict()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    state = loaded.state_dict()
    bad = [name for name in state if not torch.equal(state[name], source[name].to(torch.bfloat16))]
    if loaded.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    for name, our_decode in our_decodes(dump_tensor, folder, shapes):
        if not torch.equal(state[name], our_decode):
            bad.append(name)
    if bad:
        print(f"compressed: {folder.name}: differ: {', '.join(bad[:5])}")
    return len(bad)


def check_tokenizer(folder, model_path):
    """Number of texts whose ids by the folder's tokenizer are not those of the file's own tables."""
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = gguf_model.load_tokenizer(model_path)
    bad = 0
    for text in TEXTS:
        a = theirs.encode(text, add_special_tokens=False)
        b = ours.encode(text, add_special_tokens=False).ids
        bad += a != b or theirs.decode(a) != text
        if a != b:
            print(f"compressed: {folder.name}: tokenizer: {text!r}: {a} instead of {b}")
    chat = theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False,
                                      add_generation_prompt=True)
    return bad + (not chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"))


def check_runs(folder):
    """1 when transformers, decompressing the folder itself, does not continue a plain fact."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The capital of France is", return_tensors="pt", add_special_tokens=False)
    answer = tokenizer.decode(model(**ids).logits[0, -1].argmax())
    if answer != " Paris":
        print(f"compressed: {folder.name}: transformers continues with {answer!r}")
    return int(answer != " Paris")


def check_folders(args):
    tandem, dump_tensor = args.build / "tandem", args.build / "tests/formats/dump_tensor"
    bad = 0
    with tempfile.TemporaryDirectory() as parent:
        for name, recipe in RECIPES.items():
            folder = pathlib.Path(parent) / name
            subprocess.run([tandem, "compress", args.model, "--recipe", *recipe, "-o", folder],
                           check=True, stdout=subprocess.DEVNULL)
            if name == "bf16":
                base = safetensors.torch.load_file(folder / "model.safetensors")
                found = check_base(folder, args.model, dump_tensor)
            else:
                found = check_quantized(folder, base, dump_tensor)
            found += check_tokenizer(folder, args.model) + check_runs(folder)
            print(f"compressed: {name}: {'equal' if found == 0 else f'{found} differences'}")
            bad += found
    return bad


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    parser.add_argument("--build", type=pathlib.Path, help="where tandem was built; none: golden only")
    args = parser.parse_args()
    write_rtn_golden()
    return 0 if args.build is None or check_folders(args) == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
