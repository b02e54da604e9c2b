"""What every oracle needs: the default model in fp32 and a tokenizer built from the file's own tables.

transformers' conversion of a GGUF tokenizer drops the Digits step of the `smollm` pre-tokenizer, so
token ids come from `tokenizers` and only the network comes from transformers.
"""

import json
import os
import pathlib

import gguf
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers

MODEL_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared"


def default_model():
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not cache.startswith("/"):  # the XDG standard ignores relative paths
        cache = os.path.expanduser("~/.cache")
    return pathlib.Path(cache) / "tandem" / "models" / MODEL_NAME


def load_tokenizer(path):
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def load_model(path):
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def write_golden(relative, value):
    """Writes tests/golden/`relative`, one line for each key; returns whether the content changed."""
    path = GOLDEN / relative
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
    text = "{" + lines + "}\n"
    changed = not path.exists() or path.read_text() != text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return changed


def read_golden(relative):
    return json.loads((GOLDEN / relative).read_text())
