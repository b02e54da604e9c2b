"""The tiny models of families_oracle.py on the ways that lead out of tandem and in again.

- `tandem compress --recipe bf16` of every folder and GGUF file: transformers loads the result in the
  newer and in the older spelling of config.json, and both give the golden's logits.
- llama.cpp runs the same weights from GGUF files of F32, and its logits are ours. Mistral's and Phi-3's
  are compared inside the window, which llama.cpp leaves out; dynamic RoPE and windows of some layers are
  nothing that a GGUF file can say. Parts made by its llama-gguf-split are the whole file.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import load_file

import families_oracle
from our_logits import difference, our_logits

TOLERANCE = 1e-3  # standard deviations of the logits; llama.cpp's file of them rounds to 1e-4
CONTEXT, CHUNKS = 32, 4
LLAMA_CPP = {"llama": "llama", "llama_tied": "llama", "llama_llama3": "llama", "llama_linear": "llama",
             "llama_bias": "llama", "llama_old": "llama", "mistral": "llama", "qwen15": "qwen2",
             "qwen2": "qwen2", "qwen2_sharded": "qwen2", "qwen3": "qwen3", "phi3": "phi3"}


def theirs(folder, tokens):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        return model(tokens[None]).logits[0]


def check_compressed(source, golden, args, folder):
    """Number of comparisons that failed for the bf16 folder made of `source`."""
    out = folder / "bf16"
    command = [args.build / "tandem", "compress", source, "--recipe", "bf16", "-o", out]
    done = subprocess.run(command, capture_output=True, text=True)
    name = source.relative_to(families_oracle.OUT)
    if done.returncode != 0:
        print(f"  {name}: {done.stderr.strip()}")
        return 1
    worst = []
    for spelling in (lambda folder: None, families_oracle.old_spelling):
        spelling(out)
        reference = theirs(out, golden["tokens"])
        ours = our_logits(args.build / "tests/model/dump_logits", out, golden["tokens"].tolist())
        worst += [difference(reference[:, ::families_oracle.STRIDE], golden["logits"]),
                  difference(ours, reference)]
    shutil.rmtree(out)
    print(f"  {name}: written as bf16, in both spellings, transformers and we differ by "
          f"{max(worst):.1e} deviations")
    return sum(w >= TOLERANCE for w in worst)


def read_base_file(path):
    """-> tokens [chunks, n_ctx], log-probabilities [chunks, n_ctx - 1 - n_ctx / 2, V] of llama.cpp's
    --kl-divergence-base file: the scored positions begin at n_ctx / 2."""
    raw = path.read_bytes()
    assert raw[:8] == b"_logits_"
    n_ctx, vocab, chunks = np.frombuffer(raw, np.int32, 3, 8)
    tokens = np.frombuffer(raw, np.int32, chunks * n_ctx, 20).reshape(chunks, n_ctx)
    num_rows, width = chunks * (n_ctx - 1 - n_ctx // 2), 2 * ((vocab + 1) // 2) + 4
    rows = np.frombuffer(raw, np.uint16, num_rows * width, 20 + tokens.nbytes).reshape(num_rows, width)
    scale, low = np.ascontiguousarray(rows[:, :4]).view(np.float32).T
    log_p = rows[:, 4 : 4 + vocab] * scale[:, None] + low[:, None]
    return torch.tensor(tokens), torch.tensor(log_p).reshape(chunks, -1, vocab)


def check_llama(name, arch, args, folder):
    config = transformers.AutoConfig.from_pretrained(families_oracle.OUT / name)
    if name in ("mistral", "phi3"):
        config.sliding_window = CONTEXT
    path, text, base = folder / f"{name}.gguf", folder / "text", folder / "base"
    families_oracle.write_gguf(families_oracle.OUT / name, arch, config, path,
                               gguf.GGMLQuantizationType.F32)
    generator = torch.Generator().manual_seed(40)
    letters = torch.randint(97, 123, (CHUNKS * CONTEXT + 50,), generator=generator)
    text.write_bytes(bytes(letters.tolist()))
    subprocess.run([args.llama / "llama-perplexity", "-m", path, "-f", text, "-c", str(CONTEXT),
                    "--chunks", str(CHUNKS), "-t", "1", "-ctk", "f32", "-ctv", "f32", "-fa", "off",
                    "--kl-divergence-base", base], capture_output=True, check=True)
    worst = 0
    for tokens, log_p in zip(*read_base_file(base)):
        ours = our_logits(args.build / "tests/model/dump_logits", path, tokens.tolist())
        ours = torch.log_softmax(ours, dim=-1)[CONTEXT // 2 : CONTEXT - 1]
        worst = max(worst, difference(ours, log_p))
    print(f"  {name} as GGUF: llama.cpp and we differ by {worst:.1e} deviations")
    return worst >= TOLERANCE


def check_split(args, folder):
    """llama-gguf-split's parts give the whole file's logits, with and without tensors in the first."""
    whole, program = families_oracle.OUT / "qwen3/model.gguf", args.build / "tests/model/dump_logits"
    expected = our_logits(program, whole, range(20))
    bad = 0
    for option in ("--split", "--no-tensor-first-split"):
        subprocess.run([args.llama / "llama-gguf-split", "--split-max-tensors", "10", option, whole,
                        folder / option], capture_output=True, check=True)
        (first,) = folder.glob(f"{option}-00001-of-*.gguf")
        bad += not torch.equal(our_logits(program, first, range(20)), expected)
    print(f"  llama-gguf-split: {bad} of 2 models in parts differ from the whole")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--llama", type=pathlib.Path, help="llama.cpp's programs")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in families_oracle.MODELS:
            golden = load_file(families_oracle.OUT / name / "logits.safetensors")
            bad += check_compressed(families_oracle.OUT / name, golden, args, folder)
            if name in families_oracle.GGUF:
                bad += check_compressed(families_oracle.OUT / name / "model.gguf", golden, args, folder)
        if args.llama is None or not (args.llama / "llama-perplexity").exists():
            print("llama.cpp: skipped; name the folder of its programs in LLAMA_CPP_BIN")
        else:
            for name, arch in LLAMA_CPP.items():
                bad += check_llama(name, arch, args, folder)
            bad += check_split(args, folder)
    print(f"families: {bad} comparisons failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
