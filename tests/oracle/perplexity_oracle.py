"""Perplexity of the default model by transformers in fp32, as llama.cpp cuts its windows.

Windows of 512 tokens without overlap, no BOS; positions 256..510 of each predict 257..511. The text
itself stays outside the repository: the golden holds the ids of the first two windows only.
"""

import argparse
import math
import pathlib
import sys

import torch

import gguf_model

WINDOW, FIRST, NUM_WINDOWS, NUM_STORED = 512, 256, 40, 2
EXPECTED_PERPLEXITY = 22.500


def score(model, window):
    """-> (mean negative log-likelihood, argmax at each scored position)"""
    logits = model(torch.tensor([window])).logits[0, FIRST : WINDOW - 1]
    targets = torch.tensor(window[FIRST + 1 :])
    log_p = torch.log_softmax(logits.float(), dim=-1)
    nll = -log_p[torch.arange(len(targets)), targets].double().mean().item()
    return nll, logits.argmax(dim=-1).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    parser.add_argument("--text", type=pathlib.Path,
                        default=gguf_model.SHARED / "data/wikitext-2/test.raw")
    args = parser.parse_args()
    if not args.text.exists():
        print(f"perplexity: skipped, {args.text} is absent")
        return 77

    # llama.cpp drops the last line end of a text; no other byte is touched.
    text = args.text.read_bytes().decode("utf-8").removesuffix("\n")
    ids = gguf_model.load_tokenizer(args.model).encode(text, add_special_tokens=False).ids
    windows = [ids[i * WINDOW : (i + 1) * WINDOW] for i in range(NUM_WINDOWS)]
    model = gguf_model.load_model(args.model)
    nll, argmax = [], []
    with torch.inference_mode():
        for window in windows:
            mean, best = score(model, window)
            nll.append(mean)
            argmax.append(best)
    perplexity = math.exp(sum(nll) / len(nll))
    changed = gguf_model.write_golden("perplexity/smollm2_wikitext2.json", {
        "num_tokens": len(ids),
        "window": WINDOW,
        "first": FIRST,
        "tokens": windows[:NUM_STORED],
        "argmax": argmax[:NUM_STORED],
        "nll": [round(x, 6) for x in nll],
        "perplexity": round(perplexity, 4),
    })
    print(f"perplexity: {len(ids)} tokens, {NUM_WINDOWS} windows {perplexity:.4f}, "
          f"first two {math.exp(sum(nll[:2]) / 2):.4f}{', golden changed' if changed else ''}")
    return 0 if abs(perplexity - EXPECTED_PERPLEXITY) < 0.0015 else 1


if __name__ == "__main__":
    sys.exit(main())
