"""Holds calibrated compression against llm-compressor: the same rows of token ids for both, and the same judge.

For each calibration seed: rows of 512 tokens of WikiText-2's validation text, the library's folder
(llm_compressor_run.py, in an environment of its own) and ours, and the perplexity of both by
`tandem eval` over the first windows of the test text. Ours may be worse by 1 % in the median of the seeds.

usage: calibrated_oracle.py --model GGUF --build FOLDER --library PYTHON --wikitext FOLDER
         [--method awq] [--group 64] [--seeds 1,2,3] [--rows 16] [--windows 40] [--twin]
  --library  the Python of an environment with llmcompressor 0.14
  --twin     judge on the off-grid twin of the model, whose weights lie on no 4-bit grid
"""

import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

import tokenizers

SKIPPED = 77
METHODS = {
    "awq": "[[step]]\nmethod = \"awq\"\ngroup = {group}\n",
    "rtn": "[[step]]\nmethod = \"rtn\"\ngroup = {group}\nsymmetric = false\n",
    "gptq": "[[step]]\nmethod = \"gptq\"\ngroup = {group}\nsymmetric = false\n",
    "smoothquant-dynamic": "activations = \"dynamic\"\n[[step]]\nmethod = \"smoothquant\"\nalpha = 0.5\n"
                           "[[step]]\nmethod = \"rtn\"\nbits = 8\ngroup = 0\n",
}


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def draw_rows(folder, text, seed, count, out):
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text.read_text(newline="")).ids
    starts = random.Random(seed).sample(range(len(ids) // 512), count)
    out.write_text("".join(json.dumps(ids[s * 512:s * 512 + 512]) + "\n" for s in starts))


def perplexity(tandem, folder, text, windows):
    report = json.loads(run(tandem, "eval", folder, "--text", text, "--windows", windows, "--json"))
    return find_number(report, "perplexity")


def find_number(node, key):
    """The first number under `key`, wherever in the document it stands."""
    if isinstance(node, dict):
        if isinstance(node.get(key), (int, float)):
            return node[key]
        node = list(node.values())
    for child in node if isinstance(node, list) else []:
        found = find_number(child, key)
        if found is not None:
            return found
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--library", type=pathlib.Path, required=True)
    parser.add_argument("--wikitext", type=pathlib.Path, required=True)
    parser.add_argument("--method", choices=METHODS, default="awq")
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--twin", action="store_true")
    args = parser.parse_args()
    for needed in (args.library, args.wikitext / "valid.tokens", args.wikitext / "test.raw"):
        if not needed.exists():
            print(f"{needed} is absent: not compared")
            sys.exit(SKIPPED)
    tandem, text = args.build / "tandem", args.wikitext / "test.raw"
    script = pathlib.Path(__file__).with_name("llm_compressor_run.py")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        source = scratch / "source"
        run(tandem, "compress", args.model, "--recipe", "off-grid" if args.twin else "bf16", "-o", source)
        print(f"source  {perplexity(tandem, source, text, args.windows):.4f}")
        (scratch / "recipe.toml").write_text(METHODS[args.method].format(group=args.group))
        ratios = []
        for seed in args.seeds.split(","):
            rows, theirs, ours = (scratch / f"{name}-{seed}" for name in ("rows", "theirs", "ours"))
            rows = rows.with_suffix(".jsonl")
            draw_rows(source, args.wikitext / "valid.tokens", int(seed), args.rows, rows)
            run(args.library, script, args.method, source, rows, theirs, "--group", args.group)
            run(tandem, "compress", source, "--recipe", scratch / "recipe.toml", "--calibration", rows,
                "--samples", args.rows, "-o", ours)
            a, b = (perplexity(tandem, f, text, args.windows) for f in (theirs, ours))
            ratios.append(b / a)
            print(f"seed {seed}  {args.method}  llm-compressor {a:.4f}  tandem {b:.4f}  ratio {b / a:.4f}", flush=True)
    median = statistics.median(ratios)
    print(f"{args.method} g{args.group}: median ratio {median:.4f}, at most 1.01")
    sys.exit(median > 1.01)


if __name__ == "__main__":
    main()
