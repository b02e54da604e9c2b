"""GGUF files that tandem writes of models with SentencePiece tokenizers, held against the references.

SentencePiece models are trained from a seed and put into folders as Llama 2, TinyLlama, Mistral and Phi-3
have them (tokenizer.model, tokenizer.json or both; Prepend or Metaspace; added tokens; padded embeddings),
and as Unigram, each with a small random model. The folder is compressed to GGUF; then token ids of the same
texts by the wheels from the folder, by tandem from folder and file, by llama.cpp from the file; the keys of
the file; perplexities of folder and file by tandem and of the file by llama.cpp. Tokenizers that are missing
or do not fit must be refused in one line. Without llama.cpp's programs its part is skipped.

    gguf_pieces_oracle.py --build BUILD [--llama-cpp FOLDER]
"""

import argparse
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile

import gguf
import sentencepiece
import torch
import transformers
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Tokenizer, processors

import families_oracle
from gguf_write_oracle import Programs, close_ppl, ids_of_saved, output_of
from piece_oracle import MARK, as_folder, bpe_json, bpe_merges, train, unigram_json
from tokenizer_oracle import SEED, WORDS, generate, ours

CHAT = "{% for m in messages %}<s>[INST] {{ m.content }} [/INST]{% endfor %}"
NUM_LINES = 2000
SHAPE = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
         "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
SHORT = ["a", "Hello world", "it's x1y2", "a  b", "tab\there", "line\nbreak", "the\n\n the",
         "\u6771\u4eac \U0001f642", "caf\u00e9 Z\u00fcrich", MARK + "x", "x" + MARK + MARK + "y", "1,000,000"]
LEADING = [" a", "  a", " "]
PHI3 = [AddedToken(t, special=True, normalized=False) for t in ("<|user|>", "<|end|>", "<|assistant|>")]


class Case:
    """A tokenizer in a folder, and the reference for ids without BOS."""

    def __init__(self, name, kind="bpe", files=("model", "json"), style="legacy", added=(), padding=0, leading=True):
        self.name, self.kind, self.files, self.style = name, kind, files, style
        self.added, self.padding = list(added), padding
        self.leading = leading  # ids of texts that begin with a space are the same as well


CASES = [
    Case("Llama 2"),
    Case("TinyLlama, tokenizer.json", files=("json",)),
    Case("Llama 1, tokenizer.model", files=("model",)),
    Case("Mistral, Metaspace", files=("json",), style=("first", False), leading=False),
    Case("no space in front", files=("json",), style=("never", False)),
    Case("Phi-3", added=PHI3, padding=53),
    Case("Unigram, tokenizer.model", kind="unigram", files=("model",), padding=2),
    Case("Unigram, tokenizer.json", kind="unigram", files=("json",)),
    Case("Unigram, both", kind="unigram"),
]


def make_folder(case, folder, model_path):
    """The case's files; returns two functions from texts to ids without BOS, of the folder and of the file.

    Unigram is the library's own in GGUF; `tokenizers` maps characters by grapheme and strips U+0085.
    """
    proto = pb.ModelProto.FromString(model_path.read_bytes())
    pieces = [(p.piece, p.score) for p in proto.pieces]
    folder.mkdir()
    if "model" in case.files:
        (folder / "tokenizer.model").write_bytes(model_path.read_bytes())
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": CHAT, "legacy": True}
    size = len(pieces)
    if "json" in case.files:
        if case.kind == "bpe":
            tokenizer = bpe_json([p for p, _ in pieces], bpe_merges(pieces), case.style)
        else:
            tokenizer = unigram_json(proto)
        tokenizer.add_special_tokens(case.added)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
        tokenizer.save(str(folder / "tokenizer.json"))
        size = tokenizer.get_vocab_size()
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        reference = lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
    library = lambda texts: [processor.encode(t) for t in texts]
    if "json" not in case.files:
        reference = library
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    shape = transformers.LlamaConfig(**(SHAPE | {"vocab_size": size + case.padding}))
    model = transformers.LlamaForCausalLM(shape)
    families_oracle.draw(model, torch.Generator().manual_seed(size))
    model.to(torch.bfloat16).save_pretrained(folder)
    return proto, (reference, library if case.kind == "unigram" else reference)


def differing(name, what, texts, expected, found):
    wrong = [i for i in range(len(texts)) if expected[i] != found[i]]
    print(f"pieces: {name}: {what}: {len(texts)} texts, {len(wrong)} differ", flush=True)
    for i in wrong[:3]:
        at = next((k for k, (a, b) in enumerate(zip(expected[i], found[i])) if a != b), -1)
        print(f"  {texts[i][:60]!r}: from id {at}: expected {expected[i][at:][:8]}, found {found[i][at:][:8]}")
    return len(wrong)


def llama_ids(programs, path, text):
    """llama-completion's ids of a prompt, BOS included.

    What it logs can lose its last lines: tokens that follow keep those of the prompt, and it is asked again.
    """
    for _ in range(20):
        _, log = output_of(programs.llama / "llama-completion", "-m", path, "-p", text, "-n", "16", "-no-cnv",
                           "--no-escape", "--verbose-prompt", "-t", "2", "-fa", "off", "--temp", "0")
        ids = [int(i) for i in re.findall(r" I +(\d+) -> '", log)]
        if f"number of tokens in prompt = {len(ids)}\n" in log:
            return ids
    sys.exit(f"pieces: llama-completion does not tell the tokens of {text!r}")


def check_ids(case, programs, folder, path, references, texts, long_text):
    by_folder, reference = references
    encoder = str(programs.dump_tensor.parent.parent / "text/encode_lines")
    short = SHORT[::3] + (LEADING[:2] if case.leading and case.kind == "bpe" else [])
    if not case.leading:  # llama.cpp puts its space in front of these, too; compress says so
        texts, short = ([t for t in some if not t.startswith((" ", MARK))] for some in (texts, short))
    texts = texts + [long_text]
    expected = reference(texts)
    bad = differing(case.name, "folder by tandem", texts, by_folder(texts), ours(encoder, str(folder), texts))
    bad += differing(case.name, "file by tandem", texts, expected, ours(encoder, str(path), texts))
    if programs.llama is None:
        return bad
    found = [llama_ids(programs, path, t) for t in short]
    bad += differing(case.name, "file by llama-completion", short, [[1] + ids for ids in reference(short)], found)
    text = path.with_suffix(".txt")
    text.write_text(long_text, newline="")
    ids = ids_of_saved(programs.saved_logits(path, text))
    return bad + differing(case.name, "file by llama-perplexity", [long_text],
                           [([1] + reference([long_text])[0])[:len(ids)]], [ids])


def check_keys(case, path, proto, folder):
    fields = gguf.GGUFReader(path).fields
    value = lambda key: fields["tokenizer." + key].contents()
    tokens, types, scores = (value("ggml." + k) for k in ("tokens", "token_type", "scores"))
    size = len(proto.pieces)
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    wrong = [what for what, same in {
        "model": value("ggml.model") == ("llama" if case.kind == "bpe" else "t5"),
        "tokens": len(tokens) == vocab and tokens[:size] == [p.piece for p in proto.pieces],
        "types": all(a == b.type or (b.type == 2 and a == 3) for a, b in zip(types, proto.pieces)) and
                 types[size:] == [3] * len(case.added) + [5] * case.padding,
        "scores": "model" not in case.files or scores[:size] == [p.score for p in proto.pieces],
        "ids": [value(f"ggml.{t}_token_id") for t in ("unknown", "bos", "eos")] == [0, 1, 2],
        "flags": (value("ggml.add_bos_token"), value("ggml.add_eos_token")) == (True, False),
        "template": value("chat_template") == CHAT,
        "prefix": value("ggml.add_space_prefix") == (case.style[0] != "never"),
        "charsmap": case.kind == "bpe" or bytes(value("ggml.precompiled_charsmap")) ==
                    proto.normalizer_spec.precompiled_charsmap,
    }.items() if not same]
    if wrong:
        print(f"pieces: {case.name}: keys that are wrong: {', '.join(wrong)}")
    return len(wrong)


def check_case(case, programs, folder, models, texts, long_text):
    place = folder / re.sub(r"\W+", "_", case.name)
    proto, references = make_folder(case, place, models[case.kind])
    bad = 0
    ppl_text = folder / "ppl.txt"
    ppl_text.write_text(long_text[:6000], newline="")
    for method in ("f16", "q8_0"):
        path = place.with_suffix(f".{method}.gguf")
        programs.compress(place, method, path)
        ppls = {"file": programs.our_ppl(path, ppl_text)}
        if method == "f16":
            bad += check_ids(case, programs, place, path, references, texts, long_text)
            bad += check_keys(case, path, proto, place)
            ppls["folder"] = programs.our_ppl(place, ppl_text)
        if programs.llama:
            ppls["llama.cpp"] = programs.their_ppl(path, ppl_text)
        bad += close_ppl(case.name, method, ppls)
    return bad


# ---- what must be refused ----------------------------------------------------------------------------


def refused(programs, folder, name, spoil, expected):
    """Compressing the spoiled copy ends with one line and no file."""
    place = folder / re.sub(r"\W+", "_", name)
    subprocess.run(["cp", "-r", folder / "Llama_2", place], check=True)
    spoil(place)
    out = place.with_suffix(".gguf")
    done = subprocess.run([programs.tandem, "compress", place, "--method", "f16", "-o", out], capture_output=True,
                          text=True)
    lines = done.stderr.strip().splitlines()
    same = done.returncode in (2, 3) and len(lines) == 1 and expected in lines[0] and not out.exists()
    print(f"pieces: {name}: exit {done.returncode}: {done.stderr.strip()[:200]}{'' if same else '  WRONG'}")
    return int(not same)


def edit_json(path, change):
    json_text = json.loads(path.read_text())
    change(json_text)
    path.write_text(json.dumps(json_text))


def check_refusals(programs, folder):
    def remove(*names):
        return lambda place: [(place / n).unlink() for n in names]

    def more_tokens(place):
        edit_json(place / "tokenizer.json", lambda t: t["added_tokens"].append(
            t["added_tokens"][0] | {"id": len(t["model"]["vocab"]), "content": "<more>"}))

    def more_rows(place):
        edit_json(place / "config.json", lambda c: c.update(vocab_size=c["vocab_size"] + 5))

    def turn_merges(place):
        edit_json(place / "tokenizer.json", lambda t: t["model"]["merges"].reverse())

    def drop_merge(place):
        (place / "tokenizer.model").unlink()
        edit_json(place / "tokenizer.json", lambda t: t["model"]["merges"].pop())

    cases = [("no tokenizer", remove("tokenizer.json", "tokenizer.model"), "tokenizer.json"),
             ("more tokens than rows", more_tokens, "(the rows of the embedding)"),
             ("fewer rows than said", more_rows, "embed_tokens"),
             ("merges in another order", turn_merges, "but tokenizer.json merges to"),
             ("a merge that is missing", drop_merge, "llama.cpp cannot merge as this tokenizer.json")]
    return sum(refused(programs, folder, *case) for case in cases)


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--llama-cpp", type=pathlib.Path, help="folder of llama.cpp's programs")
    parser.add_argument("--only", help="the cases whose name has this")
    args = parser.parse_args()
    programs = Programs(args.build, args.llama_cpp)
    if programs.llama is None:
        print("pieces: llama.cpp's programs are absent: its part is skipped")
    rng = random.Random(SEED)
    corpus = [" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(3000)]
    # Control tokens are tokens to the wheels and text to the others, as in all text but templates.
    lines = [re.sub("\0|</?s>|<unk>", "", t) for t in generate(SEED, NUM_LINES)]
    texts = SHORT + LEADING + [t for t in lines if t]
    long_text = "x " + "\n".join(lines[:400])
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        models = {"bpe": train(folder, "bpe", corpus, model_type="bpe", byte_fallback=True,
                               remove_extra_whitespaces=False, normalization_rule_name="identity",
                               allow_whitespace_only_pieces=True),
                  "unigram": train(folder, "unigram", corpus, model_type="unigram")}
        for case in CASES:
            if not args.only or args.only in case.name:
                bad += check_case(case, programs, folder, models, texts, long_text)
        if not args.only or args.only in CASES[0].name:
            bad += check_refusals(programs, folder)
    return int(bad != 0)


if __name__ == "__main__":
    sys.exit(main())
