"""tokenizer.json files that tandem writes, loaded by transformers: ids of the same texts by both.

FOLDER holds llama.cpp's ggml-vocab-NAME.gguf; the default model's tokenizer is checked as well. Texts
that name a special token are left out: transformers reads the token, tandem plain text.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import transformers

import gguf_model
from tokenizer_oracle import SEED, generate, hostile, ours
from vocabulary_oracle import CASES

NUM_LINES = 3000


def check(path, writer, encoder):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([writer, path, folder], capture_output=True, text=True)
        if done.returncode != 0:
            print(f"tokenizer: {path.name}: {done.stderr.strip()}")
            return 1
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
    special = [t for t in theirs.all_special_tokens + list(theirs.added_tokens_encoder) if t]
    texts = [t for t in generate(SEED, NUM_LINES) + hostile() + CASES
             if t and not any(s in t for s in special)]
    bad = 0
    for text, expected in zip(texts, ours(str(encoder), str(path), texts), strict=True):
        found = theirs.encode(text, add_special_tokens=False)
        if found != expected:
            bad += 1
            if bad <= 3:
                print(f"  {text[:60]!r}: {found[:12]} by transformers, {expected[:12]} by tandem")
    fields = gguf_model.gguf.GGUFReader(path).fields
    bos = fields.get("tokenizer.ggml.add_bos_token")
    model = fields["tokenizer.ggml.model"].contents()
    pre = fields["tokenizer.ggml.pre"].contents() if "tokenizer.ggml.pre" in fields else ""
    wants_bos = bos.contents() if bos else model == "llama" or pre == "llama-bpe"
    ids = theirs.encode("Hello world")
    front = [theirs.bos_token_id] if wants_bos else []
    same_bos = ids == front + theirs.encode("Hello world", add_special_tokens=False)
    same_text = theirs.decode(ids, skip_special_tokens=True) == "Hello world"
    print(f"tokenizer: {path.name}: {len(texts)} texts, {bad} differ; BOS "
          f"{'right' if same_bos else 'WRONG'}, text {'back' if same_text else 'WRONG'}")
    return bad + (not same_bos) + (not same_text)


def main():
    transformers.logging.set_verbosity_error()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    args = parser.parse_args()
    paths = [args.model]
    for name in ("gpt-2", "llama-bpe", "qwen2", "llama-spm", "phi-3"):
        path = args.folder / f"ggml-vocab-{name}.gguf"
        if path.exists():
            paths.append(path)
        else:
            print(f"tokenizer: {path} is absent")
    bad = [check(p, args.build / "tests/formats/write_tokenizer", args.build / "tests/text/encode_lines")
           for p in paths]
    return int(any(bad))


if __name__ == "__main__":
    sys.exit(main())
