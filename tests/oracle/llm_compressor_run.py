"""Compresses a Hugging Face folder with llm-compressor, for comparison with `tandem compress`.

The calibration rows are token ids, a JSON list a line, the same file that tandem is given.

usage: llm_compressor_run.py METHOD FOLDER ROWS OUT [--group N] [--alpha X]
  METHOD  rtn, awq, gptq: 4 bits asymmetric in groups; smoothquant-dynamic, smoothquant-static: W8A8
Runs in an environment of its own: llmcompressor 0.14 with torch 2.14 and transformers 5.17.
"""

import argparse
import json
import pathlib
import time

import datasets
import torch
import transformers
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.pipelines.cache import IntermediatesCache

# Pinning memory wants a GPU's driver, and AWQ pins without asking for one.
if not torch.cuda.is_available():
    IntermediatesCache.pin_memory = lambda self, batch_index: None


def int4_scheme(group):
    weights = QuantizationArgs(num_bits=4, type="int", symmetric=False, strategy="group", group_size=group)
    return {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}


def w8a8_scheme(dynamic):
    weights = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    activations = QuantizationArgs(num_bits=8, type="int", symmetric=True, dynamic=dynamic,
                                   strategy="token" if dynamic else "tensor")
    return {"group_0": QuantizationScheme(targets=["Linear"], weights=weights,
                                          input_activations=activations)}


def recipe(method, group, alpha):
    if method.startswith("smoothquant"):
        scheme = w8a8_scheme(method.endswith("dynamic"))
        return [SmoothQuantModifier(smoothing_strength=alpha),
                QuantizationModifier(config_groups=scheme, ignore=["lm_head"])]
    if method == "gptq":
        return [GPTQModifier(config_groups=int4_scheme(group), ignore=["lm_head"])]
    steps = [AWQModifier(duo_scaling=True)] if method == "awq" else []
    return steps + [QuantizationModifier(config_groups=int4_scheme(group), ignore=["lm_head"])]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=["rtn", "awq", "gptq", "smoothquant-dynamic", "smoothquant-static"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("rows", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--alpha", type=float, default=0.5)
    args = parser.parse_args()

    rows = [json.loads(line) for line in args.rows.read_text().splitlines()]
    model = transformers.AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.bfloat16)
    data = datasets.Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]})
    start = time.monotonic()
    oneshot(model=model, dataset=data, recipe=recipe(args.method, args.group, args.alpha),
            num_calibration_samples=len(rows), max_seq_length=max(len(r) for r in rows),
            shuffle_calibration_samples=False)
    print(f"{args.method}: {time.monotonic() - start:.1f} s on {torch.get_num_threads()} threads")
    model.save_pretrained(args.out, save_compressed=True)
    transformers.AutoTokenizer.from_pretrained(args.folder).save_pretrained(args.out)


if __name__ == "__main__":
    main()
