"""Tiny random models of every family with their logits by transformers in fp32.

Each folder of tests/golden/families is a complete checkpoint and logits.safetensors: the ids of one
sequence and every fourth column of its logits. Weights are drawn once from a fixed seed, norms and
biases too; sequences reach beyond the window and the original context. The GGUF files hold the same
weights under llama.cpp's names, so the logits of the folder are theirs as well.
"""

import argparse
import json
import pathlib
import shutil
import sys

import gguf
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel

import gguf_model

OUT = gguf_model.GOLDEN / "families"
VOCAB, PADDED, STRIDE = 258, 259, 4
SHAPE = {"vocab_size": PADDED, "hidden_size": 30, "intermediate_size": 44, "num_hidden_layers": 2,
         "num_attention_heads": 3, "num_key_value_heads": 1, "max_position_embeddings": 64,
         "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "bos_token_id": 256,
         "eos_token_id": 256, "pad_token_id": None, "initializer_range": 0.2}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}

# name: (class prefix, config, tokens, written another way)
MODELS = {
    "llama": ("Llama", {}, 40, None),
    "llama_tied": ("Llama", {"tie_word_embeddings": True, "num_attention_heads": 6,
                             "num_key_value_heads": 2, "head_dim": 6}, 40, None),
    "llama_llama3": ("Llama", {"rope_parameters": LLAMA3}, 40, None),
    "llama_linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0,
                                                   "factor": 2.5}}, 40, "old spelling"),
    "llama_dynamic": ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0,
                                                    "factor": 3.0}}, 150, None),
    "mistral": ("Mistral", {"sliding_window": 7, "head_dim": 14}, 40, None),
    "qwen2": ("Qwen2", {}, 40, None),
    "qwen2_sharded": ("Qwen2", {"tie_word_embeddings": True}, 40, "shards"),
    "qwen3": ("Qwen3", {"head_dim": 14}, 40, None),
    "phi3": ("Phi3", {"sliding_window": 9, "original_max_position_embeddings": 64}, 40, None),
    "llama_bias": ("Llama", {"attention_bias": True, "mlp_bias": True}, 40, None),
    "llama_old": ("Llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}, 40, "old file"),
    "qwen15": ("Qwen2", {"num_key_value_heads": 3}, 40, None),
    "qwen2_window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 7,
                               "max_window_layers": 1}, 40, "old spelling"),
    "qwen3_window": ("Qwen3", {"attention_bias": True, "use_sliding_window": True,
                               "sliding_window": 7,
                               "layer_types": ["sliding_attention", "full_attention"]}, 40, None),
}
GGUF = {"llama_llama3": "llama", "llama_linear": "llama", "llama_bias": "llama", "qwen2": "qwen2",
        "qwen3": "qwen3", "phi3": "phi3"}


def alphabet():
    """The 256 stand-ins of byte-level BPE in the order of their bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in printable]
    stand_in = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(other)}
    assert set(stand_in.values()) == set(ByteLevel.alphabet())
    return [stand_in[b] for b in range(256)]


def write_tokenizer(folder):
    end = {"id": 256, "content": "<|end|>", "single_word": False, "lstrip": False,
           "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end],
                 "normalizer": None,
                 "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                     {"type": "Digits", "individual_digits": True}, byte_level]},
                 "post_processor": None, "decoder": byte_level,
                 "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(alphabet())} | {"ab": 257},
                           "merges": [["a", "b"]]}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|end|>",
         "eos_token": "<|end|>"}))


def draw(model, generator):
    """Every parameter anew: matrices that keep their input's size, norms about 1, biases about 0."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 2:
                p.copy_(noise * 1.5 / p.shape[1] ** 0.5)
            else:
                p.copy_(noise * 0.3 + ("norm" in name))


def old_spelling(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = {"type": kind, **rope} if kind != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    types = config.get("layer_types", [])
    if types == sorted(types):  # full layers first: max_window_layers says it
        config.pop("layer_types", None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def old_file(folder):
    """With what files of old hold twice: RoPE's frequencies, and the embedding as lm_head."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    for layer in range(SHAPE["num_hidden_layers"]):
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(5)
    save_file(tensors, path, metadata={"format": "pt"})


def load_weights(folder):
    """All tensors of a folder that its model needs."""
    tensors = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors |= load_file(path)
    copies = [name for name in tensors if name.endswith("inv_freq")]
    if json.loads((folder / "config.json").read_text())["tie_word_embeddings"]:
        copies.append("lm_head.weight")
    return {name: tensor for name, tensor in tensors.items() if name not in copies}


def write_gguf(folder, arch, config, path, matrix_type=gguf.GGMLQuantizationType.BF16):
    """As llama.cpp's converter names and orders things. The weights are bf16 in either type."""
    writer = gguf.GGUFWriter(path, arch)
    H, G = config.num_attention_heads, config.num_key_value_heads
    D = getattr(config, "head_dim", None) or config.hidden_size // H
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(H)
    writer.add_head_count_kv(G)
    writer.add_key_length(D)
    writer.add_value_length(D)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if arch == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
        writer.add_sliding_window(config.sliding_window)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(alphabet() + ["<|end|>", "ab"] + [f"[PAD{i}]" for i in range(VOCAB, PADDED)])
    writer.add_token_types([1] * 256 + [3, 1] + [5] * (PADDED - VOCAB))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256)
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_float32("llama.rope.scale_linear", config.rope_parameters["factor"])
    if config.rope_parameters["rope_type"] == "llama3":
        inv_freq, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        plain = 1 / config.rope_parameters["rope_theta"] ** (torch.arange(0, D, 2).float() / D)
        writer.add_tensor("rope_freqs.weight", (plain / inv_freq).numpy())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config.num_hidden_layers)
    for name, tensor in load_weights(folder).items():
        tensor = tensor.float()
        heads = H if "q_proj" in name else G
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):  # weights and biases
            tensor = tensor.reshape(heads, 2, D // 2, -1).swapaxes(1, 2).reshape(tensor.shape)
        to = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if tensor.dim() == 2:
            data = gguf.quants.quantize(tensor.numpy(), matrix_type)
            writer.add_tensor(to, data, raw_dtype=matrix_type)
        else:
            writer.add_tensor(to, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    out = parser.parse_args().out
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for seed, (name, (prefix, changes, num_tokens, form)) in enumerate(MODELS.items()):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        generator = torch.Generator().manual_seed(seed)
        config = getattr(transformers, prefix + "Config")(**(SHAPE | changes))
        model = getattr(transformers, prefix + "ForCausalLM")(config)
        draw(model, generator)
        size = "40KB" if form == "shards" else "1GB"
        model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=size)
        (folder / "generation_config.json").unlink(missing_ok=True)
        if form in ("old spelling", "old file"):
            old_spelling(folder)
        if form == "old file":
            old_file(folder)
        write_tokenizer(folder)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager").eval()
        tokens = torch.randint(PADDED, (num_tokens,), generator=generator)
        with torch.inference_mode():
            logits = model(tokens[None]).logits[0]
        save_file({"tokens": tokens, "logits": logits[:, ::STRIDE].contiguous()},
                  folder / "logits.safetensors")
        if name in GGUF:
            write_gguf(folder, GGUF[name], config, folder / "model.gguf")
        print(f"{name}: {num_tokens} tokens, standard deviation {logits.std():.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
