"""Files that llama-quantize makes, every mix of types that is read, against llama.cpp and transformers.

A small random Llama whose widths 256 divides holds the types as named; its logits by our scalar kernels
are held against transformers' on the weights that the gguf package decodes. The default model's width is
576, so llama.cpp falls back to Q5_0, Q5_1, Q8_0 and IQ4_NL; its perplexity is held against llama.cpp's.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import gguf
import torch
import transformers

import families_oracle
import gguf_model
from our_logits import difference, our_logits

MIXES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M",
         "Q5_K_M", "Q6_K", "IQ4_NL"]
WIDE = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8,
        "num_key_value_heads": 4}
NUM_TOKENS, WINDOWS = 40, 2
# Both round the activations to 8 bits, in blocks of 32 here and of 32 or 256 there.
MAX_PERPLEXITY_DIFFERENCE = 0.01


def quantize(llama, source, mix, out):
    command = [llama / "llama-quantize", "--allow-requantize", source, out, mix, "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def write_wide(folder):
    config = transformers.LlamaConfig(**(families_oracle.SHAPE | WIDE))
    model = transformers.LlamaForCausalLM(config)
    families_oracle.draw(model, torch.Generator().manual_seed(30))
    model.to(torch.bfloat16).save_pretrained(folder)
    families_oracle.write_gguf(folder, "llama", config, folder / "wide.gguf")
    return folder / "wide.gguf"


def types_of(path):
    """"Q4_K x12, Q6_K x3": what the matrices of a file are."""
    counts = {}
    for tensor in gguf.GGUFReader(path).tensors:
        if len(tensor.shape) == 2:
            counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
    return ", ".join(f"{name} x{count}" for name, count in sorted(counts.items()))


def check_logits(path, dump_logits):
    tokens = torch.randint(families_oracle.PADDED, (NUM_TOKENS,),
                           generator=torch.Generator().manual_seed(31))
    with torch.inference_mode():
        theirs = gguf_model.load_model(path)(tokens[None]).logits[0]
    worst = difference(our_logits(dump_logits, path, tokens.tolist()), theirs)
    print(f"  wide {path.stem}: {types_of(path)}; logits differ by {worst:.1e} deviations")
    return worst < 1e-3


def check_perplexity(path, text, llama, tandem):
    theirs = subprocess.run(
        [llama / "llama-perplexity", "-m", path, "-f", text, "-c", "512", "--chunks", str(WINDOWS),
         "-t", str(os.cpu_count())], capture_output=True, text=True, check=True)
    expected = float(re.search(r"PPL = ([0-9.]+)", theirs.stdout + theirs.stderr).group(1))
    ours = subprocess.run([tandem, "eval", path, "--text", text, "--ppl", "B", "--windows",
                           str(WINDOWS), "--json"], capture_output=True, text=True, check=True)
    found = json.loads(ours.stdout)["texts"][0]["perplexity"]["value"]
    print(f"  {path.stem}: {types_of(path)}; {path.stat().st_size / 1e6:.0f} MB; perplexity "
          f"{found:.4f}, llama.cpp {expected:.4f}")
    return abs(found / expected - 1) < MAX_PERPLEXITY_DIFFERENCE


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--llama", type=pathlib.Path, required=True, help="llama.cpp's programs")
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    parser.add_argument("--text", type=pathlib.Path, default=gguf_model.GOLDEN.parents[1] / "docs/study.md")
    parser.add_argument("--mixes", nargs="+", default=MIXES)
    args = parser.parse_args()
    if not (args.llama / "llama-quantize").exists():
        print(f"skipped: no llama-quantize in {args.llama}; name the folder in LLAMA_CPP_BIN")
        return 77
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        wide, plain = write_wide(folder), folder / "plain.gguf"
        quantize(args.llama, args.model, "F16", plain)
        for mix in args.mixes:
            path = folder / f"{mix}.gguf"
            quantize(args.llama, wide, mix, path)
            bad += not check_logits(path, args.build / "tests/model/dump_logits")
            quantize(args.llama, plain, mix, path)
            bad += not check_perplexity(path, args.text, args.llama, args.build / "tandem")
            path.unlink()
    print(f"quantized files: {len(args.mixes)} mixes, {bad} comparisons failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
