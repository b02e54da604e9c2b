#!/usr/bin/env python3
"""Compares tandem's SentencePiece tokenizers with the `sentencepiece` and `tokenizers` wheels.

Small models are trained from a seed: BPE and Unigram, with and without byte fallback, under several
normalizations and white-space rules. Each is read as tokenizer.model, as a tokenizer.json built with
`tokenizers`, and Unigram also as GGUF. With --folder, llama.cpp's models/, the vocabulary of Llama 2 as
a tokenizer.json with the steps of Llama, Mistral and Phi-3, special tokens and their flags included, and
that of XLM-R, rebuilt as a SentencePiece model.

    piece_oracle.py --program BUILD/tests/text/encode_lines [--folder FOLDER]
"""
import argparse
import itertools
import json
import pathlib
import random
import sys
import tempfile

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers)

from tokenizer_oracle import NUM_LINES, SEED, WORDS, compare, generate, hostile

MARK = "\u2581"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
CASES = ["", " ", "  ", "a", " a ", "a  b", MARK, MARK + "a" + MARK, "\u2581\u2581 x", "\n", "\t\n \u3000", "\0",
         "\ufb01\u2460\u212b e\u0301 \u1e9b\u0323", "\uff21\uff22\u30ab\u309b\uff76\uff9e", "<s> </s> <unk>", "<0x41>",
         "xyzzyxyzzy", "<sep>a<sep>", "\U0001F469\u200d\U0001F469\u200d\U0001F467", "\u0e33\u0e33 \uac01\u1100\u1161"]


def train(folder, name, texts, **options):
    """A model file trained on texts; the options are the trainer's."""
    options = {"vocab_size": 1500, "character_coverage": 0.98, "hard_vocab_limit": False,
               "num_threads": 1, "minloglevel": 2, **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=f"{folder}/{name}", **options)
    return pathlib.Path(folder, name + ".model")


def as_folder(path):
    """A folder that holds just this tokenizer.model; every text by itself, as the library takes it."""
    folder = path.with_suffix("")
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(path.read_bytes())
    return str(folder)


def json_folder(path, tokenizer):
    path.mkdir()
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text("{}")
    return str(path)


def unigram_json(proto):
    """What transformers makes of a Unigram model."""
    vocab = [(p.piece, p.score) for p in proto.pieces]
    tokenizer = Tokenizer(models.Unigram(vocab, proto.trainer_spec.unk_id,
                                         byte_fallback=proto.trainer_spec.byte_fallback))
    steps = [normalizers.Replace(Regex(" {2,}"), " ")]
    if proto.normalizer_spec.precompiled_charsmap:
        steps = [normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
                 normalizers.Strip(left=False, right=True)] + steps
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    return tokenizer


def bpe_merges(pieces):
    """The merges of a scored vocabulary, in the order of their results' scores, as transformers has it."""
    scores = {p: (s, i) for i, (p, s) in enumerate(pieces)}
    merges = []
    for piece, (score, _) in scores.items():
        local = [(piece[:i], piece[i:]) for i in range(1, len(piece))
                 if piece[:i] in scores and piece[i:] in scores]
        local.sort(key=lambda pair: (scores[pair[0]][1], scores[pair[1]][1]))
        merges += [(score, pair) for pair in local]
    merges.sort(key=lambda merge: merge[0], reverse=True)
    return [pair for _, pair in merges]


def bpe_json(tokens, merges, style, byte_fallback=True, unk="<unk>"):
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token=unk,
                                     fuse_unk=True, byte_fallback=byte_fallback))
    if style == "legacy":  # Llama 2, Mistral, Phi-3
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    else:
        scheme, split = style
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme=scheme, split=split)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    return tokenizer


def write_gguf(path, proto):
    writer = gguf.GGUFWriter(str(path), "t5")
    writer.add_tokenizer_model("t5")
    writer.add_token_list([p.piece for p in proto.pieces])
    writer.add_token_scores([p.score for p in proto.pieces])
    writer.add_token_types([p.type for p in proto.pieces])
    writer.add_add_space_prefix(proto.normalizer_spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(proto.normalizer_spec.remove_extra_whitespaces)
    if proto.normalizer_spec.precompiled_charsmap:
        writer.add_precompiled_charsmap(proto.normalizer_spec.precompiled_charsmap)
    writer.add_unk_token_id(proto.trainer_spec.unk_id)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return str(path)


def library(path):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return lambda texts: [processor.encode(t) for t in texts]


def trained(folder, texts, program):
    rng = random.Random(SEED)
    corpus = [" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(3000)] + texts[:200]
    corpus = [line.replace("\0", "").replace("\n", " ")[:400] for line in corpus]
    kinds = list(itertools.product(("bpe", "unigram"), (True, False), ("nmt_nfkc", "identity", "nfkc_cf")))
    options = [(f"{t} {'bytes' if b else 'unk'} {n}",
                {"model_type": t, "byte_fallback": b, "normalization_rule_name": n}) for t, b, n in kinds]
    for kind in ("bpe", "unigram"):
        options += [(f"{kind} as it lies", {"model_type": kind, "remove_extra_whitespaces": False,
                                            "normalization_rule_name": "identity", "byte_fallback": True}),
                    (f"{kind} no prefix", {"model_type": kind, "add_dummy_prefix": False}),
                    (f"{kind} suffix", {"model_type": kind, "treat_whitespace_as_suffix": True}),
                    (f"{kind} symbols", {"model_type": kind, "byte_fallback": True,
                                         "user_defined_symbols": ["<sep>", "xyzzy", "<s", "the"]})]
    same = True
    for number, (name, option) in enumerate(options):
        model = train(folder, f"m{number}", corpus, **option)
        same = compare(f"{name} tokenizer.model", texts, library(model), program, as_folder(model)) and same
        proto = pb.ModelProto.FromString(model.read_bytes())
        plain = "prefix" not in name and "suffix" not in name and "symbols" not in name
        if option["model_type"] == "unigram" and "suffix" not in name:
            path = write_gguf(pathlib.Path(folder, f"m{number}.gguf"), proto)
            same = compare(f"{name} GGUF", texts, library(model), program, path) and same
        if option["model_type"] == "unigram" and plain:
            tokenizer = unigram_json(proto)
        elif plain and option.get("normalization_rule_name") == "identity":
            pieces = [(p.piece, p.score) for p in proto.pieces]
            tokenizer = bpe_json([p for p, _ in pieces], bpe_merges(pieces), "legacy",
                                 option["byte_fallback"])
        else:
            continue
        path = json_folder(pathlib.Path(folder, f"j{number}"), tokenizer)
        same = compare(f"{name} tokenizer.json", texts, tokenizer, program, path, True) and same
    return same


FLAGS = [AddedToken("<s>", special=True, normalized=False), AddedToken("</s>", special=True, normalized=False),
         AddedToken("<|user|>", special=True, normalized=False, rstrip=True),
         AddedToken("<|end|>", special=True, normalized=False, lstrip=True, rstrip=True),
         AddedToken("<word>", special=False, normalized=False, single_word=True),
         AddedToken("<left>", special=False, normalized=False, lstrip=True),
         AddedToken("plain", special=False, normalized=True), AddedToken("new line\n", special=False, normalized=True),
         AddedToken("  ", special=False, normalized=False)]


def with_tokens(seed, count, tokens):
    """Texts in which the tokens stand among words and white space."""
    rng = random.Random(seed)
    parts = tokens * 3 + [" ", "  ", "\n", "\t ", "\u00a0", "_", "\u00e9", "\u24b6", "\u200d", "\u0301", "1", "\u00bd", ".", "plainly"] + WORDS[:30]
    return ["".join(rng.choice(parts) for _ in range(rng.randrange(1, 16))) for _ in range(count)]


def llama(path, texts, program, folder):
    """Llama 2's vocabulary in the styles that its descendants' tokenizer.json has."""
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = bpe_merges(list(zip(tokens, fields["tokenizer.ggml.scores"].contents())))
    marked = with_tokens(SEED, NUM_LINES, [t.content for t in FLAGS])
    same = True
    for style in ("legacy", ("first", False), ("always", False), ("always", True), ("never", True)):
        tokenizer = bpe_json(tokens, merges, style)
        place = json_folder(pathlib.Path(folder, "llama " + "-".join(map(str, style))), tokenizer)
        same = compare(f"Llama 2 {style}", texts, tokenizer, program, place, True) and same
        tokenizer.add_tokens(FLAGS)
        place = json_folder(pathlib.Path(folder, "marked " + "-".join(map(str, style))), tokenizer)
        same = compare(f"Llama 2 {style} with special tokens", marked, tokenizer, program, place, True) and same
    return same


def xlm_r(path, texts, program, folder):
    """A vocabulary of 250,000 pieces, from GGUF, against a SentencePiece model of the same tables."""
    fields = gguf.GGUFReader(path).fields
    proto = pb.ModelProto()
    proto.trainer_spec.model_type = 1
    proto.trainer_spec.unk_id = fields["tokenizer.ggml.unknown_token_id"].contents()
    proto.normalizer_spec.precompiled_charsmap = bytes(
        b & 255 for b in fields["tokenizer.ggml.precompiled_charsmap"].contents())
    for text, score, kind in zip(*(fields["tokenizer.ggml." + k].contents()
                                   for k in ("tokens", "scores", "token_type"))):
        proto.pieces.add(piece=text, score=score, type=kind)
    proto.normalizer_spec.add_dummy_prefix = True
    model = pathlib.Path(folder, "xlm-r.model")
    model.write_bytes(proto.SerializeToString())
    return compare("XLM-R GGUF", texts, library(model), program, str(path))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", required=True, help="encode_lines")
    parser.add_argument("--folder", type=pathlib.Path, help="llama.cpp's models/")
    parser.add_argument("--lines", type=int, default=NUM_LINES)
    args = parser.parse_args()
    # Of longer runs of one character the library sums scores in another order (as many tokens, elsewhere).
    texts = generate(SEED, args.lines) + CASES + [t for t in hostile() if len(t) <= 50_000]
    with tempfile.TemporaryDirectory() as folder:
        same = trained(folder, texts, args.program)
        for name, check in (("llama-spm", llama), ("nomic-bert-moe", xlm_r)):
            path = args.folder / f"ggml-vocab-{name}.gguf" if args.folder else None
            if path is None or not path.exists():
                print(f"{path or name} is absent")
                continue
            same = check(path, texts, args.program, folder) and same
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
