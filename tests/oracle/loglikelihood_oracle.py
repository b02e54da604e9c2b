"""Log-likelihoods of continuations under the default model by transformers in fp32, split as lm-eval does.

The golden holds, for each context and each of its continuations, the number of scored tokens, the sum of
their log-probabilities, and whether a greedy decode would have written them.
"""

import argparse
import pathlib
import sys

import torch

import gguf_model

QUESTIONS = [
    ("Question: Which gas do plants take in to make sugar?\nAnswer:", ["carbon dioxide", "oxygen", "helium", "neon"]),
    ("Question: What do bees make?\nAnswer:", ["honey", "wool", "steel", "paper money"]),
    ("Question: Which of these is a metal?\nAnswer:", ["copper", "granite", "cotton", "amber"]),
    ("Question: How do I keep bread from going stale?\n\nAnswer:",
     ["Keep it in a closed box.", "Leave it in the rain overnight."]),
    ("Washing a dog: A woman fills a tub with warm water. she",
     ["lifts the dog into the tub and lathers it.", "paints the fence with the tub.",
      "throws the violin at the moon.", "pours the tub over a laptop, twice."]),
    ("The lighthouse keeper climbed the stairs, lit the lamp and looked out over the dark", ["sea", "ocean", "spoon"]),
    ("\"Where is Tom?\" asked Mary. \"I have not seen Tom since noon.\" Nobody had seen", ["Tom", "Mary", "noon"]),
    ("def add(a, b):\n    return", ["a + b", "a - b", "None", "b"]),
    ("Trailing spaces belong to the continuation.  ", ["They do.", "No\u00f1o \u00bd \u6a4b."]),
    ("2 + 2 =", ["4", "5", "22", "four"]),
    ("La capitale de la France est", ["Paris", "Rome", "la tour Eiffel", "un fromage"]),
    ("Water boils at 100 degrees", ["Celsius", "Fahrenheit", "Kelvin", "of separation"]),
    ("", ["Once upon a time", "The the the", "\u00e9"]),
    ("The opposite of hot is", ["cold", "warm", "seven", "cold and the opposite of up is down"]),
]


def split(tokenizer, context, continuation):
    """lm-eval's pair: trailing spaces of the context move over, and the two are encoded as one text."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    whole = tokenizer.encode(context + continuation, add_special_tokens=False).ids
    return whole, len(tokenizer.encode(context, add_special_tokens=False).ids)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    args = parser.parse_args()
    model = gguf_model.load_model(args.model)
    tokenizer = gguf_model.load_tokenizer(args.model)
    bos = model.config.bos_token_id
    items = []
    for context, choices in QUESTIONS:
        scores = []
        for choice in choices:
            tokens, num_context = split(tokenizer, context, " " + choice if context else choice)
            if num_context == 0:
                tokens, num_context = [bos, *tokens], 1
            with torch.inference_mode():
                log_p = model(torch.tensor([tokens[:-1]])).logits[0, num_context - 1:].float().log_softmax(-1)
            wanted = torch.tensor(tokens[num_context:])
            picked = log_p.gather(1, wanted[:, None])[:, 0].double()
            scores.append([len(wanted), round(picked.sum().item(), 5), bool((log_p.argmax(-1) == wanted).all())])
        items.append({"context": context, "choices": choices, "scores": scores})
    changed = gguf_model.write_golden("loglikelihood/smollm2.json", {"items": items})
    print(f"log-likelihoods: {sum(len(i['choices']) for i in items)} pairs{', golden changed' if changed else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
