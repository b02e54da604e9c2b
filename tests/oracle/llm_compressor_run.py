"""Compresses Hugging Face folders with llm-compressor, for comparison with `tandem compress`.

Jobs are read from standard input, a JSON object a line; each is answered by a line, in order:
  {"method": NAME, "folder": SOURCE, "rows": FILE, "out": FOLDER, "group": N}
  {"seconds": S} (compression alone, without loading and saving) or {"error": TEXT}
Rows are token ids, a JSON list a line, the same file that tandem is given. 2:4 methods write dense
folders with zeros. Runs on the GPU where torch finds one, else on the CPU.

usage: llm_compressor_run.py [--threads N] <JOBS
Wants llmcompressor 0.14 with torch 2.10 to 2.14 and transformers 5.15 to 5.17.
"""

import argparse
import gc
import json
import os
import pathlib
import sys
import time
import traceback

# The library logs to standard output, on import too; the answers alone are for it.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torch
import transformers
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.pipelines.cache import IntermediatesCache

# Pinning memory wants a GPU's driver, and AWQ pins without asking for one.
if not torch.cuda.is_available():
    IntermediatesCache.pin_memory = lambda self, batch_index: None

# A row a batch, the library's default: its static scales depend on it. AWQ's search does not, and is quicker so.
ROWS_A_BATCH = {"awq": 8}


def int4(group, symmetric):
    weights = QuantizationArgs(num_bits=4, type="int", symmetric=symmetric, strategy="group", group_size=group)
    return {"config_groups": {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)},
            "ignore": ["lm_head"]}


def w8a8(dynamic):
    weights = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    activations = QuantizationArgs(num_bits=8, type="int", symmetric=True, dynamic=dynamic,
                                   strategy="token" if dynamic else "tensor")
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=activations)
    return {"config_groups": {"group_0": scheme}, "ignore": ["lm_head"]}


SPARSE = {"sparsity": 0.5, "mask_structure": "2:4", "targets": ["Linear"], "ignore": ["re:.*lm_head"]}
# Whatever is not named has the library's default: GPTQ's order is "static", damping 0.01.
METHODS = {
    "rtn": lambda group: [QuantizationModifier(**int4(group, False))],
    "rtn-symmetric": lambda group: [QuantizationModifier(**int4(group, True))],
    "gptq": lambda group: [GPTQModifier(**int4(group, False))],
    "gptq-symmetric": lambda group: [GPTQModifier(**int4(group, True))],
    "awq": lambda group: [AWQModifier(), QuantizationModifier(**int4(group, False))],
    "smoothquant-dynamic": lambda group: [SmoothQuantModifier(), QuantizationModifier(**w8a8(True))],
    "smoothquant-static": lambda group: [SmoothQuantModifier(), QuantizationModifier(**w8a8(False))],
    "sparsegpt": lambda group: [SparseGPTModifier(**SPARSE)],
    "wanda": lambda group: [WandaPruningModifier(**SPARSE)],
}
DENSE = {"sparsegpt", "wanda"}
DATA_FREE = {"rtn", "rtn-symmetric"}


def batches(path, size):
    rows = [{"input_ids": torch.tensor(json.loads(line))} for line in path.read_text().splitlines()]
    return torch.utils.data.DataLoader(rows, batch_size=size)


def compress(method, folder, rows, out, group):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    data = None if method in DATA_FREE else batches(pathlib.Path(rows), ROWS_A_BATCH.get(method, 1))
    start = time.monotonic()
    oneshot(model=model, dataset=data, recipe=METHODS[method](group))
    seconds = time.monotonic() - start
    model.save_pretrained(out, save_compressed=method not in DENSE)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    return seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for line in sys.stdin:
        try:
            answer = {"seconds": round(compress(**json.loads(line)), 2)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(answer), file=ANSWERS, flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
