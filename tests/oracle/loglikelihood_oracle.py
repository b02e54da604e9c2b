"""Log-likelihoods under the default model in fp32, by lm-eval itself.

The golden holds, for each context and each of its continuations, the number of scored tokens, the sum of
their log-probabilities, and whether a greedy decode would have written them; and for pages of wikitext what
lm-eval makes of them: the text it reads, words, bytes and the sum over rolling windows.
"""

import argparse
import pathlib
import sys

import transformers
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import weighted_perplexity
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.wikitext import preprocess_wikitext as wikitext

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


# In wikitext's spelling, with what its detokenizer knows: two pages, a deeper heading, every rule.
PAGES = """
 = The Harbour = 

 The harbour ( first built in 1 @,@ 204 ; see [ note 1 ] ) is 2 @.@ 5 km from the town 's old gate . The sailors ' 
 inn , a " low @-@ roofed house " , is { still } open : ask for ' the captain ' ! At 20 \u00b0 it closes ? N men know .

 = = Trade = = 

 Wool , salt and tin . They were sold at fairs ; the fairs are gone .
 = = = Tolls = = = 
 None .
 = The Lamp = 

 A lamp ( \u00e9clairage ) burned all night .\u3000It was lit at dusk and put out at dawn by the keeper 's daughter , who
 walked up one hundred and twelve steps , twice a day , and never counted them .
"""
PAIR_TOKENS, PAGE_TOKENS = 64, 32  # the windows: longer than every pair, shorter than a page


def split_pages(text):
    """The pages as the data set of lm-eval's task `wikitext` cuts them out of wiki.test.raw."""
    pages, lines = [], []
    for line in text.split("\n"):
        joined = line.replace("= = =", "===").replace("= =", "==").strip()
        if joined.startswith("= ") and joined.endswith(" ="):
            pages.append("\n".join(lines))
            lines = []
        lines.append(line)
    pages.append("\n".join(lines))
    return [page for page in pages if page.strip()]


def lm_eval_model(model, path, max_length):
    tokenizer = gguf_model.load_tokenizer(path)
    ids = {name: getattr(model.config, name + "_id") for name in ("bos_token", "eos_token")}
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{name: tokenizer.id_to_token(id) for name, id in ids.items()})
    return HFLM(pretrained=model, tokenizer=fast, batch_size=1, max_length=max_length, device="cpu")


def score_pairs(lm):
    items = []
    for context, choices in QUESTIONS:
        requests = [(context, " " + choice if context else choice) for choice in choices]
        instances = [Instance("loglikelihood", {}, request, i) for i, request in enumerate(requests)]
        scores = []
        for request, (total, greedy) in zip(requests, lm.loglikelihood(instances, disable_tqdm=True)):
            count = len(lm._encode_pair(*request)[1]) if context else len(lm.tok_encode(request[1]))
            scores.append([count, round(total, 5), bool(greedy)])
        items.append({"context": context, "choices": choices, "scores": scores})
    return items


def score_pages(lm):
    documents = []
    for page in split_pages(PAGES):
        text = wikitext.wikitext_detokenizer({"page": page})
        total, = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (text,), 0)], disable_tqdm=True)
        counts = wikitext.process_results({"page": page}, (total,))
        documents.append({"page": page, "text": text, "words": counts["word_perplexity"][1],
                          "bytes": counts["byte_perplexity"][1], "loglikelihood": round(total, 4)})
    values = [(document["loglikelihood"], document["words"]) for document in documents]
    return {"file": PAGES, "max_length": PAGE_TOKENS, "documents": documents,
            "word_perplexity": round(weighted_perplexity(values), 4)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    args = parser.parse_args()
    model = gguf_model.load_model(args.model)
    items = score_pairs(lm_eval_model(model, args.model, PAIR_TOKENS))
    pages = score_pages(lm_eval_model(model, args.model, PAGE_TOKENS))
    changed = gguf_model.write_golden("loglikelihood/smollm2.json", {"items": items, "pages": pages})
    print(f"log-likelihoods: {sum(len(i['choices']) for i in items)} pairs{', golden changed' if changed else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
