"""GGUF files that tandem writes, held against the gguf package, llama-quantize and llama.cpp.

Always writes the golden of blocks that the C++ tests read. With --build: the default model in every
type: tensors by the package's own quantizers (K-quants: no worse than llama-quantize's), metadata,
the text and the perplexity that llama.cpp and tandem make of the file. Then a random model of every
family from a folder: perplexity of folder and file by tandem, of the file by llama.cpp; and back
into a folder whose weights are the first's. Without llama.cpp's programs those parts are skipped.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file

import families_oracle
import gguf_model

BLOCKS = {"q4_0": Type.Q4_0, "q4_1": Type.Q4_1, "q5_0": Type.Q5_0, "q5_1": Type.Q5_1,
          "q8_0": Type.Q8_0, "f16": Type.F16, "bf16": Type.BF16}
METHODS = ["q8_0", "q4_0", "q4_1", "q4_k", "q6_k", "f16", "bf16"]
FALLBACK = {"q4_k": "q5_0", "q6_k": "q8_0"}
# Where weights are codes, the two programs round activations differently and near ties part ways.
SAME_TEXT = ["f16", "bf16"]
PROMPTS = ["The capital of France is", "Water boils at", "def add(a, b):\n"]
# How far the perplexities of the two programs may be apart. llama.cpp rounds the inputs of a linear to
# its weights' type, tandem does not (a cache in bf16 instead of f32 makes 0.0003 %): 0.02 % in f16 on the
# default model, up to 0.05 % on random ones. Where weights are codes each rounds the activations to int8
# in its own way, which random models do not forgive.
PPL_TOLERANCE = {"f16": 0.001, "bf16": 0.002}
PPL_TOLERANCE_CODES = 0.01
MSE_TOLERANCE = 1.03


# ---- the golden --------------------------------------------------------------------------------------


def golden_rows():
    """[N, 64] f32: the awkward blocks by hand, then rows drawn at many magnitudes."""
    ramp = np.arange(64.0) - 31.5
    half = (np.arange(64) - 32) / 8  # quotients half way between codes
    rows = [np.zeros(64), -np.zeros(64), np.full(64, 0.5), np.full(64, -3.0), ramp, -ramp, half,
            np.r_[np.zeros(63), 1.0], np.r_[-1.0, np.zeros(63)], np.r_[1.0, -1.0, np.zeros(62)],
            ramp * 2000, ramp * 1e-9, np.where(np.arange(64) % 2, 7.0, -7.0), np.abs(ramp),
            half * 127 / 4, np.r_[np.full(32, 65504.0), np.full(32, -65504.0)]]
    generator = np.random.default_rng(8)
    for i in range(24):
        rows.append(generator.standard_normal(64) * 10.0 ** (i % 8 - 5))
    return np.stack(rows).astype(np.float32)


def write_golden():
    rows = golden_rows()
    golden = {"rows": [row.tobytes().hex() for row in rows]}
    for name, kind in BLOCKS.items():
        data = gguf.quants.quantize(rows, kind)
        golden[name] = [row.tobytes().hex() for row in np.ascontiguousarray(data)]
    changed = gguf_model.write_golden("compress/gguf_blocks.json", golden)
    print(f"gguf: golden of {len(rows)} rows{', changed' if changed else ''}")


# ---- programs ----------------------------------------------------------------------------------------


def output_of(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, timeout=600)
    if done.returncode != 0:
        text = done.stderr.decode(errors="replace")
        sys.exit(f"gguf: {' '.join(map(str, command))}: exit {done.returncode}: {text[-2000:]}")
    return done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


class Programs:
    def __init__(self, build, llama_cpp):
        self.tandem = build / "tandem"
        self.dump_tensor = build / "tests/formats/dump_tensor"
        self.llama = llama_cpp if llama_cpp and (llama_cpp / "llama-perplexity").exists() else None

    def compress(self, source, method, out):
        return output_of(self.tandem, "compress", source, "--method", method, "-o", out,
                         "--threads", "2")[0]

    def our_text(self, path, prompt):
        return output_of(self.tandem, "run", path, "-p", prompt, "-n", "12", "--threads", "2")[0]

    def their_text(self, path, prompt):
        out, _ = output_of(self.llama / "llama-completion", "-m", path, "-p", prompt, "-n", "12",
                           "--temp", "0", "-no-cnv", "-t", "2", "--no-display-prompt", "-fa", "off")
        return out

    def our_ppl(self, path, text):
        out, _ = output_of(self.tandem, "eval", path, "--text", text, "--ppl", "B", "--json",
                           "--threads", "2")
        return json.loads(out)["texts"][0]["perplexity"]["value"]

    def saved_logits(self, path, text):
        """llama-perplexity's file: magic, three counts, tokens, then rows of 16-bit log-probabilities."""
        saved = path.with_suffix(".logits")
        output_of(self.llama / "llama-perplexity", "-m", path, "-f", text, "-c", "512", "-b", "512",
                  "-t", "2", "-fa", "off", "-ctk", "f32", "-ctv", "f32",
                  "--kl-divergence-base", saved)
        data = saved.read_bytes()
        saved.unlink()
        assert data[:8] == b"_logits_"
        return data

    def their_ppl(self, path, text):
        # Not from the log-probabilities it saves: their 16 bits make up to 0.4 % of a perplexity.
        for _ in range(20):  # what it prints can lose its last line
            printed = "".join(output_of(self.llama / "llama-perplexity", "-m", path, "-f", text,
                                        "-c", "512", "-b", "512", "-t", "2", "-fa", "off",
                                        "-ctk", "f32", "-ctv", "f32"))
            if found := re.search(r"Final estimate: PPL = ([0-9.]+)", printed):
                return float(found[1])
        sys.exit(f"llama-perplexity: no final estimate for {path}")


def ids_of_saved(data):
    """The token ids of all whole windows."""
    n_ctx, _, n_chunk = np.frombuffer(data, np.int32, 3, 8)
    return np.frombuffer(data, np.int32, n_ctx * n_chunk, 20).tolist()


def close_ppl(name, method, ppls):
    low, high = min(ppls.values()), max(ppls.values())
    same = high <= low * (1 + PPL_TOLERANCE.get(method, PPL_TOLERANCE_CODES))
    print(f"gguf: {name} {method}: perplexity " + ", ".join(f"{k} {v:.4f}" for k, v in ppls.items()) +
          ("" if same else "  DIFFER"))
    return int(not same)


# ---- the default model in every type -----------------------------------------------------------------


def decoded(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def expected_type(method, tensor):
    if len(tensor.shape) == 1:
        return Type.F32
    if method == "q4_k" and tensor.name == "token_embd.weight":  # gives the logits too
        method = "q6_k"
    if method in FALLBACK and tensor.shape[0] % 256 != 0:
        method = FALLBACK[method]
    return Type[method.upper()]


def check_tensors(method, source, ours, pure):
    """Number of tensors that are not what the package, or llama-quantize in `pure`, makes of the source."""
    bad = 0
    ratios = []
    for before, after in zip(source.tensors, ours.tensors, strict=True):
        same = (before.name == after.name and list(before.shape) == list(after.shape) and
                after.tensor_type == expected_type(method, before))
        weights = decoded(before)
        if after.tensor_type == before.tensor_type:
            same = same and np.array_equal(before.data, after.data)
        elif after.tensor_type in (Type.Q4_K, Type.Q6_K):
            if pure is None:
                continue
            theirs = next(t for t in pure.tensors if t.name == after.name)
            if theirs.tensor_type != after.tensor_type:
                continue
            ratios.append(np.mean((decoded(after) - weights) ** 2) /
                          np.mean((decoded(theirs) - weights) ** 2))
            same = same and ratios[-1] < MSE_TOLERANCE
        else:
            made = gguf.quants.quantize(weights, after.tensor_type)
            same = same and np.array_equal(np.ascontiguousarray(made).view(np.uint8).reshape(-1),
                                           np.ascontiguousarray(after.data).view(np.uint8).reshape(-1))
        if not same:
            bad += 1
            print(f"gguf: {method}: {after.name}: {after.tensor_type.name}: differs")
    if ratios:
        print(f"gguf: {method}: {len(ratios)} tensors, squared error over llama-quantize's "
              f"{min(ratios):.4f} to {max(ratios):.4f}")
    return bad


def check_metadata(method, source, ours):
    """Every key of the source is there with its value, but for those that name the type."""
    skip = {"general.file_type", "GGUF.kv_count", "GGUF.tensor_count", "general.languages",
            "tokenizer.ggml.add_space_prefix"}
    bad = 0
    for key, field in source.fields.items():
        if key in skip:
            continue
        found = ours.fields.get(key)
        if found is None or found.contents() != field.contents() or found.types != field.types:
            bad += 1
            print(f"gguf: {method}: key {key} is {found and str(found.contents())[:60]}")
    return bad


def check_default_model(programs, model, folder, text):
    source = gguf.GGUFReader(model)
    f32 = folder / "source.f32.gguf"
    if programs.llama:
        output_of(programs.llama / "llama-quantize", "--allow-requantize", "--pure", model, f32, "F32")
    bad = 0
    for method in METHODS:
        path = folder / f"{method}.gguf"
        programs.compress(model, method, path)
        pure = None
        if programs.llama and method in FALLBACK:
            name = {"q4_k": "Q4_K_S", "q6_k": "Q6_K"}[method]
            output_of(programs.llama / "llama-quantize", "--pure", f32, folder / "pure.gguf", name, "2")
            pure = gguf.GGUFReader(folder / "pure.gguf")
        ours = gguf.GGUFReader(path)
        bad += check_metadata(method, source, ours) + check_tensors(method, source, ours, pure)
        if programs.llama:
            for prompt in PROMPTS if method in SAME_TEXT else []:
                a, b = programs.our_text(path, prompt), programs.their_text(path, prompt)
                if a.strip() != b.strip():
                    print(f"gguf: {method}: {prompt!r}: {a!r} by tandem, {b!r} by llama.cpp")
                    bad += 1
            bad += close_ppl("default model", method, {"tandem": programs.our_ppl(path, text),
                                      "llama.cpp": programs.their_ppl(path, text)})
        path.unlink()
    return bad


# ---- a random model of every family ------------------------------------------------------------------


WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 2048}
LLAMA3 = families_oracle.LLAMA3 | {"original_max_position_embeddings": 64}
FAMILIES = {
    "llama": ("Llama", {}), "llama_tied": ("Llama", {"tie_word_embeddings": True, "head_dim": 32}),
    "llama_llama3": ("Llama", {"rope_parameters": LLAMA3}),
    "llama_linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0,
                                                   "factor": 2.5}}),
    # llama.cpp ignores windows: these are longer than what is scored.
    "mistral": ("Mistral", {"sliding_window": 1024}),
    "qwen2": ("Qwen2", {}), "qwen3": ("Qwen3", {"head_dim": 128}),
    # Not "phi3": of a general.name with that, llama.cpp wants the real Phi-3's special tokens.
    "phi": ("Phi3", {"sliding_window": 1024, "original_max_position_embeddings": 2048}),
}


def make_family(name, folder, seed):
    prefix, changes = FAMILIES[name]
    config = getattr(transformers, prefix + "Config")(**(families_oracle.SHAPE | WIDE | changes))
    model = getattr(transformers, prefix + "ForCausalLM")(config)
    families_oracle.draw(model, torch.Generator().manual_seed(seed))
    model.to(torch.bfloat16).save_pretrained(folder)
    families_oracle.write_tokenizer(folder)


def split_phi3(weights):
    out = {}
    for name, weight in weights.items():
        if name.endswith("qkv_proj.weight"):
            rows = [256, 128, 128]
            names = ["q_proj", "k_proj", "v_proj"]
        elif name.endswith("gate_up_proj.weight"):
            rows, names = [512, 512], ["gate_proj", "up_proj"]
        else:
            out[name] = weight
            continue
        stem = name.rsplit(".", 2)[0]
        out |= {f"{stem}.{n}.weight": w for n, w in zip(names, weight.split(rows))}
    return out


def check_back(programs, name, folder, path, out):
    """The folder made of the file: the first folder's weights and transformers' own logits of it."""
    programs.compress(path, "bf16", out)
    first, back = split_phi3(load_file(folder / "model.safetensors")), load_file(out / "model.safetensors")
    bad = int(first.keys() != back.keys()) or sum(not torch.equal(first[k], back[k]) for k in first)
    ids = torch.arange(3, 90)[None]
    with torch.inference_mode():
        a, b = (transformers.AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32)(ids).logits
                for f in (folder, out))
    worst = ((a - b).abs().max() / a.std()).item()
    print(f"gguf: {name}: folder, file, folder: {bad} tensors differ, logits by transformers "
          f"{worst:.1e} apart")
    return bad + int(worst > 1e-3)


def check_families(programs, folder):
    text = folder / "random.txt"
    generator = np.random.default_rng(3)
    text.write_text("".join(chr(c) for c in generator.integers(32, 127, 1600)))
    bad = 0
    for seed, name in enumerate(FAMILIES):
        source = folder / name
        make_family(name, source, seed)
        for method in ("bf16", "q8_0", "q4_k"):
            path = folder / f"{name}.{method}.gguf"
            programs.compress(source, method, path)
            ppls = {"file": programs.our_ppl(path, text)}
            if method == "bf16":
                ppls["folder"] = programs.our_ppl(source, text)
            if programs.llama:
                ppls["llama.cpp"] = programs.their_ppl(path, text)
            bad += close_ppl(name, method, ppls)
        bad += check_back(programs, name, source, folder / f"{name}.bf16.gguf", folder / f"{name}.back")
    return bad


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, default=gguf_model.default_model())
    parser.add_argument("--build", type=pathlib.Path, help="where tandem was built; none: golden only")
    parser.add_argument("--llama-cpp", type=pathlib.Path, help="folder of llama.cpp's programs")
    parser.add_argument("--text", type=pathlib.Path, help="for perplexities of the default model")
    args = parser.parse_args()
    write_golden()
    if args.build is None:
        return 0
    programs = Programs(args.build, args.llama_cpp)
    if programs.llama is None:
        print("gguf: llama.cpp's programs are absent: its part is skipped")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        bad = check_families(programs, folder)
        text = folder / "text.txt"
        if args.text:
            text.write_text(args.text.read_text()[:8000])
        else:
            text.write_text(pathlib.Path(__file__).read_text())
        bad += check_default_model(programs, args.model, folder, text)
    return int(bad != 0)


if __name__ == "__main__":
    sys.exit(main())
