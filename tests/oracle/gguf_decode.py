"""Compares our decode of a GGUF file with the gguf wheel, bit for bit, for every tensor.

usage: gguf_decode.py DUMP_TENSOR MODEL.gguf
DUMP_TENSOR is the program built from dump_tensor.cpp. Needs the gguf and numpy packages.
"""

import re
import subprocess
import sys

import gguf
import numpy as np

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
MODEL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def our_name(name):
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if match:
        return f"model.layers.{match[1]}.{LAYER[match[2]]}.weight"
    return f"{MODEL[name.removesuffix('.weight')]}.weight"


def heads_of(reader, name):
    """Heads whose rows the converter interleaved; 0 for the other tensors."""
    keys = {".attn_q.": "llama.attention.head_count", ".attn_k.": "llama.attention.head_count_kv"}
    for part, key in keys.items():
        if part in name:
            return int(reader.fields[key].contents())
    return 0


def expected(reader, tensor):
    values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    heads = heads_of(reader, tensor.name)
    if heads:
        rows, width = values.shape
        values = values.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2)
    return np.ascontiguousarray(values).reshape(-1)


def main():
    program, model = sys.argv[1:]
    reader = gguf.GGUFReader(model)
    elements, wrong = 0, []
    for tensor in reader.tensors:
        name = our_name(tensor.name)
        dump = subprocess.run([program, model, name], check=True, stdout=subprocess.PIPE).stdout
        ours = np.frombuffer(dump, dtype="<u4")
        theirs = expected(reader, tensor).view(np.uint32)
        elements += theirs.size
        if ours.size != theirs.size or not np.array_equal(ours, theirs):
            wrong.append(f"{tensor.name} ({tensor.tensor_type.name})")
    print(f"gguf {model}: {len(reader.tensors)} tensors, {elements} elements, {len(wrong)} differ")
    for name in wrong:
        print(f"  differs: {name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
