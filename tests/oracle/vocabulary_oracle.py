#!/usr/bin/env python3
"""Compares tandem's tokenizers with the wheels and with llama.cpp's vectors, on llama.cpp's vocabularies.

FOLDER holds ggml-vocab-NAME.gguf with .inp and .out (llama.cpp's models/): all of them whose tokenizer is
known are held against the vectors. Four byte-level BPEs are rebuilt with `tokenizers` as the models' own
tokenizer.json has them, and Qwen3.5's pattern runs by PCRE2 on the characters that its Unicode has.

    vocabulary_oracle.py --folder FOLDER --program BUILD/tests/text/encode_lines
"""
import argparse
import pathlib
import sys
import tempfile
import unicodedata

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tokenizer_oracle import NUM_LINES, SEED, compare, every_code_point, generate, hostile, ours

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
UNKNOWN = ("bert-bge", "gemma-4", "deepseek-llm")
CASES = ["x'Sx'LLx'rEx'Vex'\u017fx'\u212a", "\u0344\u0958\ufb1d \u1e9b\u0323", "e" + "\u0301\u0323" * 50_000,
         " \r\n \n\t x", "12345678 1234 12\u00bd3", "!\r\n\n x", "\u00a0\n\u3000\u3000y"]


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def reference(path):
    fields = gguf.GGUFReader(path).fields
    pre = fields["tokenizer.ggml.pre"].contents()
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges,
                                     ignore_merges=pre == "llama-bpe"))
    if pre == "gpt-2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif pre == "starcoder":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                           pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif pre == "qwen35":
        tokenizer.pre_tokenizer = split(QWEN35)
    else:
        tokenizer.pre_tokenizer = split(LLAMA3 if pre == "llama-bpe" else LLAMA3.replace("{1,3}", ""))
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t, k in zip(tokens, types) if k == 4])
    return tokenizer


def vectors(path, program):
    """llama.cpp's own texts and ids."""
    texts = path.with_suffix(".gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = path.with_suffix(".gguf.out").read_text().splitlines()
    expected = [[int(word) for word in line.split()] for line in lines[:len(texts)]]
    found = ours(program, str(path), texts)
    wrong = [i for i in range(len(expected)) if expected[i] != found[i]]
    print(f"{path.name} vectors: {len(expected)} texts, {len(wrong)} differ", flush=True)
    for i in wrong[:3]:
        print(f"  {ascii(texts[i][:100])}: expected {expected[i][:12]}, found {found[i][:12]}")
    return not wrong


def from_json(name, tokenizer, texts, program):
    """The same tokenizer read from the tokenizer.json that the wheel writes for it."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.save(folder + "/tokenizer.json")
        pathlib.Path(folder, "tokenizer_config.json").write_text("{}")
        return compare(f"{name} tokenizer.json", texts, tokenizer, program, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--program", required=True, help="encode_lines")
    args = parser.parse_args()
    sets = [("generated", generate(SEED, NUM_LINES)), ("hostile", hostile() + CASES),
            ("every code point", every_code_point())]
    same, found = True, 0
    for path in sorted(args.folder.glob("ggml-vocab-*.gguf.inp")):
        path = path.with_suffix("")
        name = path.stem.removeprefix("ggml-vocab-")
        if name in UNKNOWN:
            print(f"{path.name}: a tokenizer that is not known")
            continue
        found += 1
        same = vectors(path, args.program) and same
        if name not in ("gpt-2", "llama-bpe", "qwen2", "starcoder", "qwen35"):
            continue
        tokenizer = reference(path)
        if name == "qwen35":
            texts = ["".join(c for c in t if unicodedata.category(c) != "Cn") for t in sets[0][1] + CASES]
            same = from_json(name, tokenizer, texts, args.program) and same
            same = compare(f"{name} generated", texts, tokenizer, args.program, str(path)) and same
            continue
        same = from_json(name, tokenizer, sets[0][1] + CASES, args.program) and same
        for what, texts in sets:
            same = compare(f"{name} {what}", texts, tokenizer, args.program, str(path)) and same
    if not found:
        return 77
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
