#!/usr/bin/python3
"""Copies a GGUF model with a last norm so large, though finite, that its logits are NaN.

usage: make_nan_gguf.py MODEL.gguf OUT.gguf      a model whose first tensor is token_embd.weight
"""
import pathlib
import struct
import sys

FIRST, NORM = b"token_embd.weight", b"output_norm.weight"


def tensor_entries(data):
    """Name -> (elements, type, offset) of each tensor, and where the table ends."""
    count, = struct.unpack_from("<Q", data, 8)
    at = data.index(struct.pack("<Q", len(FIRST)) + FIRST)
    entries = {}
    for _ in range(count):
        length, = struct.unpack_from("<Q", data, at)
        name = bytes(data[at + 8:at + 8 + length])
        at += 8 + length
        rank, = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from(f"<{rank}Q", data, at + 4)
        at += 4 + 8 * rank
        kind, offset = struct.unpack_from("<IQ", data, at)
        at += 12
        elements = 1
        for size in shape:
            elements *= size
        entries[name] = (elements, kind, offset)
    return entries, at


def main():
    data = bytearray(pathlib.Path(sys.argv[1]).read_bytes())
    entries, end = tensor_entries(data)
    elements, kind, offset = entries[NORM]
    if kind != 0:
        sys.exit(f"{sys.argv[1]}: {NORM.decode()} has type {kind}, expected 0 (f32)")
    base = (end + 31) // 32 * 32
    struct.pack_into(f"<{elements}f", data, base + offset, *[3e38] * elements)
    pathlib.Path(sys.argv[2]).write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main()
