#!/usr/bin/python3
"""Writes a GGUF of a real model's shape with random weights: for speed and memory, not for text.

usage: make_random_gguf.py SHAPE TYPE OUT.gguf [--layers N] [--seed N]
  SHAPE  a name in data/models (Llama-3.2-1B) or the path of such a JSON file
  TYPE   F32 | F16 | BF16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | IQ4_NL | Q2_K to Q6_K, for every matrix;
         norms are F32 ones. Q2_K to Q6_K want widths that 256 divides

A block of about a megabyte of random weights is repeated, so a file is written at the speed of the
disk. Weights are uniform within +-1/sqrt(K): activations stay finite through any number of layers.
The vocabulary is the 256 bytes, a few merges and control tokens, filled up with unused tokens.
"""
import argparse
import array
import json
import math
import os
import pathlib
import random
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
ALIGNMENT = 32
TYPES = {  # name -> (GGUF tensor type, GGUF file type, elements a block, bytes a block)
    "F32": (0, 0, 1, 4),
    "F16": (1, 1, 1, 2),
    "Q4_0": (2, 2, 32, 18),
    "Q4_1": (3, 3, 32, 20),
    "Q5_0": (6, 8, 32, 22),
    "Q5_1": (7, 9, 32, 24),
    "Q8_0": (8, 7, 32, 34),
    "Q2_K": (10, 10, 256, 84),
    "Q3_K": (11, 12, 256, 110),
    "Q4_K": (12, 15, 256, 144),
    "Q5_K": (13, 17, 256, 176),
    "Q6_K": (14, 18, 256, 210),
    "IQ4_NL": (20, 25, 32, 18),
    "BF16": (30, 32, 1, 2),
}
# Blocks of random bits around f16 numbers: (offset of the scale, of the minimum), the scale that spans +-1, and
# the minimum in units of that scale. A K-quant's small integers are random too, so its reach is an average.
BLOCKS = {
    "Q4_0": ((0, None), 1 / 8, 0), "Q4_1": ((0, 2), 1 / 7.5, -7.5), "Q5_0": ((0, None), 1 / 16, 0),
    "Q5_1": ((0, 2), 1 / 15.5, -15.5), "Q8_0": ((0, None), 1 / 128, 0), "IQ4_NL": ((0, None), 1 / 127, 0),
    "Q2_K": ((80, 82), 1 / 22, 1.5), "Q3_K": ((108, None), 1 / 128, 0), "Q4_K": ((0, 2), 1 / 472, 7.5),
    "Q5_K": ((0, 2), 1 / 976, 15.5), "Q6_K": ((208, None), 1 / 4096, 0),
}
U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
NORMAL, CONTROL, UNUSED = 1, 3, 5


def random_blocks(kind, bound, rng):
    """About a megabyte of blocks of `kind` whose elements are uniform within +-bound."""
    # A prime count of blocks or elements: repetitions do not line up with the rows of a matrix.
    if kind in BLOCKS:
        (scale_at, min_at), unit, minimum = BLOCKS[kind]
        blocks = []
        for _ in range(30839 if TYPES[kind][2] == 32 else 7919):
            block = bytearray(rng.randbytes(TYPES[kind][3]))
            scale = bound * unit * rng.uniform(0.5, 1.0)
            block[scale_at:scale_at + 2] = struct.pack("<e", scale)
            if min_at is not None:
                block[min_at:min_at + 2] = struct.pack("<e", minimum * scale)
            blocks.append(block)
        return b"".join(blocks)
    count = 262147 if kind == "F32" else 524309
    values = array.array("f", (rng.uniform(-bound, bound) for _ in range(count)))
    if kind == "F16":
        return struct.pack(f"<{count}e", *values)
    if sys.byteorder == "big":
        values.byteswap()
    raw = values.tobytes()
    if kind == "F32":
        return raw
    upper = bytearray(2 * count)  # BF16 is the upper half of F32
    upper[0::2], upper[1::2] = raw[2::4], raw[3::4]
    return bytes(upper)


def byte_spellings():
    """GPT-2's printable stand-ins of the 256 bytes, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(rest)) for b in range(256)]


def vocabulary(size):
    """(tokens, types, merges) of exactly `size` tokens."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + byte_spellings()
    merges = ["\u0120 t", "h e", "\u0120t he", "i n", "e r"]
    tokens += [merge.replace(" ", "") for merge in merges]
    if size < len(tokens):
        sys.exit(f"make_random_gguf: vocabulary of {size}, expected at least {len(tokens)}")
    types = [CONTROL] * 3 + [NORMAL] * (len(tokens) - 3) + [UNUSED] * (size - len(tokens))
    tokens += [f"[unused{i}]" for i in range(size - len(tokens))]
    return tokens, types, merges


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def metadata(shape, layers, file_type):
    """The key-value section as (count, bytes)."""
    tokens, types, merges = vocabulary(shape["vocab_size"])
    entries = []

    def add(key, kind, raw):
        entries.append(string(key) + struct.pack("<I", kind) + raw)

    def add_array(key, kind, items):
        add(key, ARRAY, struct.pack("<IQ", kind, len(items)) + b"".join(items))

    add("general.architecture", STRING, string("llama"))
    add("general.name", STRING, string(shape["name"] + " shape, random weights"))
    for key, value in (("general.file_type", file_type), ("general.quantization_version", 2),
                       ("llama.block_count", layers), ("llama.context_length", shape["max_context"]),
                       ("llama.embedding_length", shape["width"]),
                       ("llama.feed_forward_length", shape["ffn_width"]),
                       ("llama.attention.head_count", shape["num_heads"]),
                       ("llama.attention.head_count_kv", shape["num_kv_heads"]),
                       ("llama.attention.key_length", shape["head_dim"]),
                       ("llama.attention.value_length", shape["head_dim"]),
                       ("llama.rope.dimension_count", shape["head_dim"]),
                       ("llama.vocab_size", shape["vocab_size"]),
                       ("tokenizer.ggml.bos_token_id", 0), ("tokenizer.ggml.eos_token_id", 2)):
        add(key, U32, struct.pack("<I", value))
    add("llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", shape["rms_eps"]))
    add("llama.rope.freq_base", F32, struct.pack("<f", shape["rope_theta"]))
    add("tokenizer.ggml.model", STRING, string("gpt2"))
    add("tokenizer.ggml.pre", STRING, string("smollm"))
    add_array("tokenizer.ggml.tokens", STRING, [string(token) for token in tokens])
    add_array("tokenizer.ggml.token_type", I32, [struct.pack("<i", kind) for kind in types])
    add_array("tokenizer.ggml.merges", STRING, [string(merge) for merge in merges])
    add("tokenizer.ggml.add_bos_token", BOOL, b"\0")
    return len(entries), b"".join(entries)


def tensor_list(shape, layers):
    """(name, dims with the contiguous one first); a single dim is a norm."""
    width, ffn = shape["width"], shape["ffn_width"]
    q = shape["num_heads"] * shape["head_dim"]
    kv = shape["num_kv_heads"] * shape["head_dim"]
    yield "token_embd.weight", (width, shape["vocab_size"])
    for layer in range(layers):
        prefix = f"blk.{layer}."
        yield prefix + "attn_norm.weight", (width,)
        yield prefix + "attn_q.weight", (width, q)
        yield prefix + "attn_k.weight", (width, kv)
        yield prefix + "attn_v.weight", (width, kv)
        yield prefix + "attn_output.weight", (q, width)
        yield prefix + "ffn_norm.weight", (width,)
        yield prefix + "ffn_gate.weight", (width, ffn)
        yield prefix + "ffn_up.weight", (width, ffn)
        yield prefix + "ffn_down.weight", (ffn, width)
    yield "output_norm.weight", (width,)
    if not shape["tied_embedding"]:
        yield "output.weight", (width, shape["vocab_size"])


def matrix_bytes(kind, dims):
    _, _, block, block_bytes = TYPES[kind]
    if dims[0] % block:
        sys.exit(f"make_random_gguf: rows of {dims[0]} elements, {kind} needs a multiple of {block}")
    return dims[0] // block * block_bytes * dims[1]


def padding(size):
    return b"\0" * (-size % ALIGNMENT)


def write_repeated(out, pool, start, size):
    """`size` bytes of the endless repetition of `pool`, from byte `start` of it."""
    view = memoryview(pool)
    while size > 0:
        piece = view[start:start + size]
        out.write(piece)
        size -= len(piece)
        start = 0


def write_gguf(out, shape, kind, layers, seed):
    tensor_type, file_type, _, block_bytes = TYPES[kind]
    num_keys, keys = metadata(shape, layers, file_type)
    entries, offset, plan = [], 0, []
    for name, dims in tensor_list(shape, layers):
        is_norm = len(dims) == 1
        size = 4 * dims[0] if is_norm else matrix_bytes(kind, dims)
        entries.append(string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims,
                                                  0 if is_norm else tensor_type, offset))
        plan.append((dims, size))
        offset += size + len(padding(size))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(entries), num_keys) + keys + b"".join(entries)
    out.write(head + padding(len(head)))

    rng = random.Random(seed)
    pools = {}  # K -> block of weights
    for dims, size in plan:
        if len(dims) == 1:
            out.write(struct.pack("<f", 1.0) * dims[0])
        else:
            if dims[0] not in pools:
                pools[dims[0]] = random_blocks(kind, 1 / math.sqrt(dims[0]), rng)
            pool = pools[dims[0]]
            start = rng.randrange(len(pool) // block_bytes) * block_bytes
            write_repeated(out, pool, start, size)
        out.write(padding(size))


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1])
    parser.add_argument("shape")
    parser.add_argument("type", choices=sorted(TYPES))
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    named = ROOT / "data" / "models" / f"{options.shape}.json"
    path = named if named.exists() else pathlib.Path(options.shape)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in named.parent.glob("*.json")))
        sys.exit(f"make_random_gguf: no shape '{options.shape}': expected one of {known}, or a JSON file")
    shape = json.loads(path.read_text(encoding="utf-8"))
    if "note" in shape:
        print(f"{shape['name']}: {shape['note']}", file=sys.stderr)
    partial = options.out.with_name(options.out.name + f".{os.getpid()}")
    try:
        with open(partial, "wb", buffering=1 << 20) as out:
            write_gguf(out, shape, options.type, options.layers or shape["num_layers"], options.seed)
        partial.rename(options.out)
    finally:
        partial.unlink(missing_ok=True)
    print(f"wrote {options.out}: {options.out.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
