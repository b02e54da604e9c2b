"""Prunes a Hugging Face folder to 2:4 with llm-compressor, for comparison with `tandem compress`.

The calibration rows are token ids, a JSON list a line, the same file that tandem is given; the output is dense,
with zeros.

usage: llm_compressor_prune.py sparsegpt|wanda FOLDER ROWS OUT
Runs in an environment of its own: llmcompressor 0.14 with torch 2.14 and transformers 5.17.
"""

import argparse
import json
import pathlib
import time

import datasets
import torch
import transformers
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from llmcompressor.pipelines.cache import IntermediatesCache

# Pinning memory wants a GPU's driver.
if not torch.cuda.is_available():
    IntermediatesCache.pin_memory = lambda self, batch_index: None

MODIFIERS = {"sparsegpt": SparseGPTModifier, "wanda": WandaPruningModifier}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=MODIFIERS)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("rows", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()

    rows = [json.loads(line) for line in args.rows.read_text().splitlines()]
    model = transformers.AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.bfloat16)
    data = datasets.Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]})
    start = time.monotonic()
    modifier = MODIFIERS[args.method](sparsity=0.5, mask_structure="2:4", targets=["Linear"], ignore=["re:.*lm_head"])
    oneshot(model=model, dataset=data, recipe=[modifier], num_calibration_samples=len(rows),
            max_seq_length=max(len(r) for r in rows), shuffle_calibration_samples=False)
    print(f"{args.method}: {time.monotonic() - start:.1f} s on {torch.get_num_threads()} threads")
    model.save_pretrained(args.out, save_compressed=False)
    transformers.AutoTokenizer.from_pretrained(args.folder).save_pretrained(args.out)


if __name__ == "__main__":
    main()
