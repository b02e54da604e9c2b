"""Writes a tiny llama GGUF that holds random blocks of every type, for gguf_decode.py.

usage: gguf_types.py OUT.gguf
Every bit of the blocks is random but the f16 scales, which are finite. Needs the gguf and numpy packages.
"""

import sys

import gguf
import numpy as np

TYPES = {  # type -> offsets of its f16 numbers within a block
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
WIDTH, FFN, HEADS, KV_HEADS, VOCABULARY = 256, 512, 4, 2, 6


def random_rows(kind, rows, width, rng):
    qtype = gguf.GGMLQuantizationType[kind]
    elements, size = gguf.GGML_QUANT_SIZES[qtype]
    blocks = rng.integers(0, 256, (rows * width // elements, size), dtype=np.uint8)
    for offset in TYPES[kind]:
        scales = (rng.standard_normal(len(blocks)) / 64).astype(np.float16)
        blocks[:, offset:offset + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1), qtype


def main():
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(sys.argv[1], "llama")
    writer.add_block_count(len(TYPES))
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|end|>", "a", "b", "c", "ab", "abc"])
    writer.add_token_types([3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b", "ab c"])
    writer.add_eos_token_id(0)

    def matrix(name, rows, width, kind):
        data, qtype = random_rows(kind, rows, width, rng)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=qtype)

    def norm(name):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))

    matrix("token_embd", VOCABULARY, WIDTH, "Q6_K")
    norm("output_norm")
    for layer, kind in enumerate(TYPES):
        prefix = f"blk.{layer}."
        norm(prefix + "attn_norm")
        norm(prefix + "ffn_norm")
        for name, rows, width in (("attn_q", WIDTH, WIDTH), ("attn_k", WIDTH // 2, WIDTH),
                                  ("attn_v", WIDTH // 2, WIDTH), ("attn_output", WIDTH, WIDTH),
                                  ("ffn_gate", FFN, WIDTH), ("ffn_up", FFN, WIDTH), ("ffn_down", WIDTH, FFN)):
            matrix(prefix + name, rows, width, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
