#!/usr/bin/env python3
"""Compares tandem's tokenizer with the `tokenizers` wheel, and writes the committed golden.

The reference is a byte-level BPE built from the vocabulary and the merges of a GGUF file with
Sequence[Digits(individual_digits), ByteLevel(add_prefix_space=False)]. Texts: a seeded generator that
covers every Unicode category, hostile texts, and any files named.

    tokenizer_oracle.py --model FILE.gguf --program BUILD/tests/text/encode_lines [--text FILE]...
    tokenizer_oracle.py --model FILE.gguf --write-golden tests/golden/text/smollm2_ids.jsonl
"""
import argparse
import array
import collections
import json
import random
import struct
import subprocess
import sys
import time
import unicodedata

import gguf
from tokenizers import Tokenizer, models, pre_tokenizers

SEED = 20240711
NUM_LINES = 10_000
WORDS = ("the of and to in a is that for it as was with be by on not he I this are or his from at "
         "which but have an had they you were their one all we can her has there been if more when "
         "will would who so no quantization bandwidth tokens can't we'll I'm you've they're she'd "
         "it's 'S 'LL ''s na\u00efve caf\u00e9 Z\u00fcrich \u041c\u043e\u0441\u043a\u0432\u0430 \u6771\u4eac \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0e44\u0e17\u0e22 \u0939\u093f\u0928\u094d\u0926\u0940 \U0001f642 \U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 e=mc\u00b2 \u00bd x1y2 3.14 "
         "1,000,000 if(x<3){return;} --flag <|im_end|> <|endoftext|> </s> {{ 7*7 }} ${TMPDIR:-x}").split()
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "\u2028",
          "\u200b", "\u0085", "\u000b", "\u001c", ""]


def load_reference(path):
    """The wheel's BPE from the tables in the file."""
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def code_points_by_category():
    """All code points but surrogates; categories by this Python, unassigned ones included."""
    categories = collections.defaultdict(list)
    for c in range(0x110000):
        if not 0xD800 <= c < 0xE000:
            categories[unicodedata.category(chr(c))].append(c)
    return categories


def generate(seed, count):
    """Lines of words, spaces and characters of every category, alone, in runs and mixed."""
    rng = random.Random(seed)
    categories = code_points_by_category()
    names = sorted(categories)

    def characters(length):
        name = rng.choice(names)
        run = [chr(rng.choice(categories[name])) for _ in range(length)]
        return "".join(run) if rng.random() < 0.7 else run[0] * length

    lines = []
    for i in range(count):
        parts = [chr(rng.choice(categories[names[i % len(names)]]))]  # each category in turn
        for _ in range(rng.randrange(1, 14)):
            kind = rng.random()
            if kind < 0.45:
                parts.append(rng.choice(WORDS))
            elif kind < 0.55:
                parts.append(str(rng.randrange(10 ** rng.randrange(1, 9))))
            else:
                parts.append(characters(rng.randrange(1, 6)))
            parts.append(rng.choice(SPACES) if rng.random() < 0.8 else " ")
        rng.random() < 0.3 and rng.shuffle(parts)
        lines.append("".join(parts))
    return lines


def every_code_point():
    """Each assigned or unassigned code point between letters, digits and spaces, 64 to a text."""
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts = []
    for begin in range(0, len(points), 64):
        texts.append("".join(f"a{chr(c)}a {chr(c)}!{chr(c)}1{chr(c)} {chr(c)}{chr(c)}"
                             for c in points[begin:begin + 64]))
    return texts


def hostile():
    return ["", " ", "\n", "a" * 100_000, "a" * 1_000_000, " " * 1_000_000, "\n" * 100_000, "ab" * 100_000,
            "e" + "\u0301" * 100_000, "\u202e" * 1000, "\U0001F469\u200d" * 20_000, "\0" * 1000,
            "\uffff\ufffe\ufeff", "0" * 100_000, "\u00bd\u00b2" * 1000, "'" * 10_000, "'s" * 10_000,
            " 's 't 're 've 'm 'll 'd 'S 'RE", "\u00a0 \u00a0a", " \u3000\u3000 b", "\r\n\r\n x"]


def chosen(lines):
    """About 600 short texts for the golden: the generator's and the hand-made ones."""
    hand = [t for t in hostile() if len(t) < 100] + WORDS + [w + s + "x" for w in ("a", "1", "!", "'ll") for s in SPACES]
    return hand + [line for line in lines if len(line) <= 70][:600 - len(hand)]


def ours(program, model, texts, markup=False):
    texts = [t if isinstance(t, bytes) else t.encode() for t in texts]
    stdin = b"".join(struct.pack("<I", len(t)) + t for t in texts)
    command = [program] + ["--markup"] * markup + [model]
    result = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, check=True)
    values = array.array("i", result.stdout)
    ids, at = [], 0
    for _ in texts:
        ids.append(values[at + 1:at + 1 + values[at]].tolist())
        at += 1 + values[at]
    return ids


def compare(name, texts, reference, program, model, markup=False):
    """reference: a Tokenizer of the wheel, or a function from texts to lists of ids."""
    start = time.perf_counter()
    if callable(reference):
        expected = reference(texts)
    else:
        expected = [e.ids for e in reference.encode_batch(texts, add_special_tokens=False)]
    seconds = time.perf_counter() - start
    found = ours(program, model, texts, markup)
    wrong = [i for i in range(len(texts)) if expected[i] != found[i]]
    size = sum(len(t.encode()) for t in texts)
    print(f"{name}: {len(texts)} texts, {size} bytes, {sum(map(len, expected))} tokens, "
          f"{len(wrong)} differ (reference: {size / seconds / 1e6:.1f} MB/s)", flush=True)
    for i in wrong[:5]:
        at = next((j for j, (a, b) in enumerate(zip(expected[i], found[i])) if a != b), -1)
        print(f"  {ascii(texts[i][:120])}: token {at}: expected {expected[i][at:at + 8]}, "
              f"found {found[i][at:at + 8]}")
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--program", help="encode_lines")
    parser.add_argument("--text", action="append", default=[], help="a file to encode as it lies")
    parser.add_argument("--write-golden", metavar="FILE")
    args = parser.parse_args()
    reference = load_reference(args.model)
    lines = generate(SEED, NUM_LINES)
    if args.write_golden:
        texts = chosen(lines)
        with open(args.write_golden, "w", encoding="ascii") as file:
            for text in texts:
                ids = reference.encode(text).ids
                file.write(json.dumps({"text": text, "ids": ids}, separators=(",", ":")) + "\n")
        print(f"{args.write_golden}: {len(texts)} texts")
    if args.program:
        sets = [("generated", lines), ("hostile", hostile()), ("every code point", every_code_point())]
        for path in args.text:
            text = open(path, encoding="utf-8", newline="").read()
            sets += [(path, [text])]
            if text.endswith("\n"):
                sets += [(path + " without its final newline", [text[:-1]])]
        same = [compare(name, texts, reference, args.program, args.model) for name, texts in sets]
        return 0 if all(same) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
