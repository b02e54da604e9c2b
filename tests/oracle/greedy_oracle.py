"""Greedy answers of the default model by transformers in fp32: 20 prompts, 64 new tokens each.

`margin` is the smallest lead of the chosen token over the second in each answer. Two programs in fp32
differ by about 1e-4 in a logit, so an answer with a smaller lead would be a coin toss: its prompt is
refused here, with room to spare, and has to be replaced.
"""

import argparse
import pathlib
import sys

import torch

import gguf_model

NUM_NEW = 64
MIN_MARGIN = 2e-3

CHAT = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n")
PLAIN_PROMPTS = [
    "The capital of France is",
    "Once upon a time",
    "Water boils at",
    "The three primary colours are",
    "def fibonacci(n):\n",
    "In 1969,",
    "My grandmother's recipe for bread starts with",
    "The main difference between a virus and a bacterium is",
    "1, 2, 4, 8, 16,",
    "Dear Sir or Madam,",
    "SELECT name FROM",
    "The train left the station at 7:45 and",
    "Photosynthesis is the process by which",
    "\u00bfD\u00f3nde est\u00e1 la biblioteca?",
]
CHAT_PROMPTS = [
    "What is gravity?",
    "Write a haiku about the sea.",
    "Name three mammals.",
    "How do I make tea?",
    "What is 12 times 12?",
    "Explain recursion to a child.",
]


def greedy(model, prompt):
    """-> (ids, smallest lead)"""
    ids, lead = [], float("inf")
    step, cache = torch.tensor([prompt]), None
    for _ in range(NUM_NEW):
        out = model(step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        best = out.logits[0, -1].topk(2)
        lead = min(lead, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
        step = torch.tensor([ids[-1:]])
    return ids, lead


def encode_chat(tokenizer, message):
    """Ids of the conversation, with the two control tokens where the template put them."""
    control = {"<|im_start|>": tokenizer.token_to_id("<|im_start|>"),
               "<|im_end|>": tokenizer.token_to_id("<|im_end|>")}
    ids = []
    for piece in CHAT.format(message).replace("<|im_", "\0<|im_").replace("|>", "|>\0").split("\0"):
        if piece in control:
            ids.append(control[piece])
        elif piece:
            ids += tokenizer.encode(piece, add_special_tokens=False).ids
    return ids


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    args = parser.parse_args()
    tokenizer = gguf_model.load_tokenizer(args.model)
    model = gguf_model.load_model(args.model)
    prompts = [tokenizer.encode(p, add_special_tokens=False).ids for p in PLAIN_PROMPTS]
    prompts += [encode_chat(tokenizer, message) for message in CHAT_PROMPTS]
    with torch.inference_mode():
        answers = [greedy(model, prompt) for prompt in prompts]
    too_close = 0
    for prompt, (ids, margin) in zip(prompts, answers):
        if margin < MIN_MARGIN:
            too_close += 1
            print(f"greedy: lead {margin:.1e} is a coin toss: {tokenizer.decode(prompt)!r}")
    changed = gguf_model.write_golden("greedy/smollm2.json", {
        "prompts": prompts,
        "answers": [ids for ids, _ in answers],
        "margins": [round(margin, 5) for _, margin in answers],
        "texts": [tokenizer.decode(ids, skip_special_tokens=False) for ids, _ in answers],
    })
    print(f"greedy: {len(prompts)} answers of {NUM_NEW}, smallest lead "
          f"{min(margin for _, margin in answers):.4f}{', golden changed' if changed else ''}")
    return 1 if too_close else 0


if __name__ == "__main__":
    sys.exit(main())
