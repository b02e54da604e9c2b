"""Our logits for the oracles, through the small program dump_logits."""

import subprocess

import torch


def our_logits(program, model, tokens, isa="ref"):
    """-> [tokens, V] in fp32; `ref` is the scalar truth, without rounded activations."""
    command = [program, model, isa, *map(str, tokens)]
    raw = bytearray(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return torch.frombuffer(raw, dtype=torch.float32).reshape(len(tokens), -1)


def difference(ours, theirs):
    """The largest difference in standard deviations of the reference's logits."""
    return ((ours - theirs).abs().max() / theirs.std()).item()
