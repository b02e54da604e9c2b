"""Logits of the default model by transformers in fp32, for four fixed rows of 48 tokens.

The golden keeps, for each position, the eight largest logits, 64 fixed columns of the vocabulary, the
mean and the standard deviation.
"""

import argparse
import pathlib
import sys

import torch

import gguf_model

NUM_TOKENS, NUM_TOP, NUM_COLUMNS = 48, 8, 64

TEXTS = [
    "A lighthouse keeper writes down the weather four times a day: the wind, the height of the waves, "
    "the clouds and how far he can see. In forty years he has missed only one entry, on the night when "
    "a whale came into the harbour and everyone went to look.",
    "def binary_search(values, wanted):\n    low, high = 0, len(values)\n    while low < high:\n"
    "        middle = (low + high) // 2\n        if values[middle] < wanted:\n"
    "            low = middle + 1\n        else:\n            high = middle\n    return low\n",
    "Die Br\u00fccke \u00fcber den Flu\u00df wurde 1873 gebaut, d\u00e9truite en 1944, y reconstruida en 1951. "
    "\u041c\u043e\u0441\u0442 \u0441\u0442\u043e\u0438\u0442 \u2014 \u6a4b\u306f\u307e\u3060\u3042\u308b. \u00bd + \u00b2 = ?",
]


def rows(tokenizer, vocab_size):
    """Prose, code, many scripts, and ids drawn from the whole vocabulary."""
    ids = [tokenizer.encode(text, add_special_tokens=False).ids[:NUM_TOKENS] for text in TEXTS]
    generator = torch.Generator().manual_seed(20)
    ids.append(torch.randint(vocab_size, (NUM_TOKENS,), generator=generator).tolist())
    assert all(len(row) == NUM_TOKENS for row in ids)
    return ids


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    args = parser.parse_args()
    model = gguf_model.load_model(args.model)
    vocab_size = model.config.vocab_size
    tokens = rows(gguf_model.load_tokenizer(args.model), vocab_size)
    columns = torch.arange(NUM_COLUMNS) * vocab_size // NUM_COLUMNS
    with torch.inference_mode():
        logits = model(torch.tensor(tokens)).logits.float()
    top = logits.topk(NUM_TOP, dim=-1)

    def rounded(tensor):
        return [[[round(x, 5) for x in position] for position in row] for row in tensor.tolist()]

    moments = torch.stack([logits.mean(dim=-1), logits.std(dim=-1, unbiased=False)], dim=-1)
    changed = gguf_model.write_golden("logits/smollm2.json", {
        "tokens": tokens,
        "columns": columns.tolist(),
        "top_ids": top.indices.tolist(),
        "top_logits": rounded(top.values),
        "column_logits": rounded(logits[:, :, columns]),
        "mean_std": rounded(moments),
    })
    print(f"logits: {len(tokens)} rows of {NUM_TOKENS}{', golden changed' if changed else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
