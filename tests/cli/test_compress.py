"""What compress keeps and what it refuses: the gate, the manifest, verify, and bad input.

Runs the binary named by the environment variable TANDEM_BIN; tests that need the default model or
text skip when they have not been fetched.
"""

import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess

import pytest

BIN = os.environ.get("TANDEM_BIN", "")
XDG_CACHE = os.environ.get("XDG_CACHE_HOME", "")
CACHE = pathlib.Path(XDG_CACHE) if XDG_CACHE.startswith("/") else pathlib.Path.home() / ".cache"
MODEL = CACHE / "tandem" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = CACHE / "tandem" / "texts" / "developers-reference.txt"

pytestmark = pytest.mark.skipif(
    not BIN or not MODEL.exists() or not TEXT.exists(),
    reason=f"TANDEM_BIN is not set, or there is no {MODEL} or {TEXT}")


def tandem(*args, **options):
    options = {"timeout": 300, "capture_output": True, "text": True, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run([BIN, *map(str, args)], **options)


def compress(out, *args, recipe="int4", model=MODEL, **options):
    return tandem("compress", model, "--recipe", recipe, "-o", out, *args, **options)


def assert_error(result, code, *parts):
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith("tandem: error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An int8 folder and a Q8_0 file of the default model, each judged on one window."""
    folder = tmp_path_factory.mktemp("made")
    results = {}
    for recipe, name in (("int8", "folder"), ("q8_0", "out.gguf")):
        results[name] = compress(folder / name, "--gate-windows", 1, recipe=recipe)
        assert results[name].returncode == 0, results[name].stderr
    return folder, results


# The gate

@pytest.mark.parametrize("name", ["folder", "out.gguf"])
def test_the_gate_is_printed_and_kept(made, name):
    folder, results = made
    printed = results[name].stdout
    assert "gate   1 windows of 512 tokens of developers-reference.txt, 255 scored" in printed
    assert "nats a token, top-1" in printed and "perplexity" in printed
    assert "errors of" in printed and printed.count("_proj.weight") + printed.count("embed_tokens") >= 5
    manifest = json.loads(tandem("inspect", folder / name, "--json").stdout)["manifest"]
    gate = manifest["gate"]
    assert gate["scored_tokens"] == 255 and gate["text"] == str(TEXT)
    assert 0 < gate["kl_divergence"]["value"] < 0.1 and gate["top1_agreement"]["value"] > 0.85
    assert 0 < gate["kl_divergence"]["stderr"]
    assert len(manifest["matrices"]) == 211
    assert all(0 <= matrix["error"] < 0.05 for matrix in manifest["matrices"])
    shown = tandem("inspect", folder / name).stdout
    assert "compressed  recipe" in shown and "gate KL" in shown and "error 0." in shown
    assert shown.count(" " * 200) == 0, "the room kept in the file is not shown"


def test_a_result_above_the_bound_is_not_kept(tmp_path):
    for name, recipe in (("out", "int4"), ("out.gguf", "q4_0")):
        result = compress(tmp_path / name, "--gate-windows", 1, "--max-kld", 0.0001, recipe=recipe)
        assert_error(result, 6, "gate: KL divergence is 0.", "--max-kld allows 0.0001; nothing was kept")
        assert list(tmp_path.iterdir()) == []
    result = compress(tmp_path / "out", "--gate-windows", 1, "--max-kld", 10)
    assert result.returncode == 0, result.stderr


def test_tasks_are_compared_in_pairs(tmp_path):
    items = [{"context": f"{n} plus {n} is", "choices": [str(2 * n), str(2 * n + 7)], "gold": 0} for n in range(40)]
    task = tmp_path / "sums.jsonl"
    task.write_text("".join(json.dumps(item) + "\n" for item in items))
    out = tmp_path / "out"
    args = ["--gate-windows", 1, "--tasks", f"sums={task}"]
    assert_error(compress(out, *args, "--max-task-drop", 0.1), 6, "gate: sums drops by", "points of 40 items",
                 "--max-task-drop allows 0.1; nothing was kept")
    assert not out.exists()
    result = compress(out, *args, "--max-task-drop", 100)
    assert result.returncode == 0, result.stderr
    (kept,) = json.loads((out / "tandem_manifest.json").read_text())["gate"]["tasks"]
    assert kept["name"] == "sums" and kept["items"] == 40 and kept["drop"] < kept["upper_95"] <= 1
    assert kept["drop"] == pytest.approx(kept["source"] - kept["result"])


def test_a_gate_without_text_says_so(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "none")}
    result = compress(tmp_path / "out", recipe="bf16", env=environment)
    assert result.returncode == 0
    assert "are not measured" in result.stderr and "--gate-text FILE" in result.stderr
    assert result.stderr.count("\n") == 1
    gate = json.loads((tmp_path / "out" / "tandem_manifest.json").read_text())["gate"]
    assert "no such text" in gate["not_measured"]
    assert_error(compress(tmp_path / "bound", "--max-kld", 1, env=environment), 2, "--max-kld", "no such text")
    quiet = compress(tmp_path / "quiet", "--no-gate", recipe="bf16", env=environment)
    assert quiet.returncode == 0 and quiet.stderr == ""


def test_a_gate_text_shorter_than_a_window(tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("A few words.\n")
    result = compress(tmp_path / "out", "--gate-text", short, recipe="bf16")
    assert result.returncode == 0 and "protocol B needs 512" in result.stderr
    assert_error(compress(tmp_path / "bound", "--gate-text", short, "--max-kld", 1), 2, "protocol B needs 512")
    assert not (tmp_path / "bound").exists()
    (tmp_path / "empty.txt").write_text("")
    assert_error(compress(tmp_path / "bound", "--gate-text", tmp_path / "empty.txt"), 2, "is empty")


@pytest.mark.parametrize("args, part", [
    (["--no-gate", "--max-kld", "1"], "--no-gate contradicts"),
    (["--max-task-drop", "1"], "--tasks"),
    (["--tasks", "piqa"], "expected NAME=FILE"),
    (["--tasks", "own=/no/such/file"], "no file '/no/such/file'"),
    (["--gate-text", "/no/such/text"], "/no/such/text"),
    (["--max-kld", "-1"], "-1"),
])
def test_gates_that_cannot_be(tmp_path, args, part):
    result = compress(tmp_path / "out", *args)
    assert result.returncode in (2, 3)
    assert_error(result, result.returncode, part)
    assert list(tmp_path.iterdir()) == []


# verify

def test_verify_finds_what_changed(made, tmp_path):
    folder, _ = made
    for name in ("folder", "out.gguf"):
        result = tandem("verify", folder / name)
        assert result.returncode == 0 and "is as its manifest says" in result.stdout, result.stdout
    spoiled = tmp_path / "spoiled"
    shutil.copytree(folder / "folder", spoiled)
    with open(spoiled / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    (spoiled / "generation_config.json").unlink()
    result = tandem("verify", spoiled)
    assert_error(result, 3, "2 problems found")
    assert "'model.safetensors': hash is" in result.stdout
    assert "'generation_config.json': is missing" in result.stdout
    assert len(result.stdout.splitlines()) == 2
    shutil.copy(folder / "out.gguf", tmp_path / "spoiled.gguf")
    with open(tmp_path / "spoiled.gguf", "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\x55")
    result = tandem("verify", tmp_path / "spoiled.gguf")
    assert result.returncode == 3 and "hash of the tensors is" in result.stdout
    result = tandem("verify", MODEL)
    assert result.returncode == 3 and "has no manifest" in result.stdout


# Bad input

def test_the_source_is_never_the_output(made, tmp_path):
    folder, _ = made
    copy = tmp_path / "copy.gguf"
    shutil.copy(MODEL, copy)
    assert_error(compress(copy, recipe="q8_0", model=copy), 2, "exists already")
    assert_error(compress(copy, "--format", "hf", recipe="int8", model=copy), 2, "is the source model")
    assert copy.read_bytes() == MODEL.read_bytes()
    twin = tmp_path / "twin"
    shutil.copytree(folder / "folder", twin)
    assert_error(compress(twin, recipe="bf16", model=twin), 2, "is the source model")


def test_a_model_in_fewer_bits_is_no_source(made, tmp_path):
    folder, _ = made
    assert_error(compress(tmp_path / "out", recipe="int8", model=folder / "folder"), 2, "is already int8 per channel",
                 "expected a model that is not compressed")
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_divides_no_width(tmp_path):
    assert_error(compress(tmp_path / "out", "--group", 128), 2, "width 576 is not a multiple of group 128")
    assert_error(compress(tmp_path / "out", "--group", 48), 2, "group 48, expected a multiple of 32")
    assert list(tmp_path.iterdir()) == []


def limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 24, 1 << 24))


@pytest.mark.parametrize("name, recipe", [("out", "int8"), ("out.gguf", "q8_0"), ("twin", "off-grid")])
def test_a_full_disk_leaves_nothing(tmp_path, name, recipe):
    result = compress(tmp_path / name, recipe=recipe, preexec_fn=limit_file_size)
    assert_error(result, 1, "cannot write")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_is_no_number(tmp_path):
    source = tmp_path / "source"
    assert compress(source, "--no-gate", recipe="bf16").returncode == 0
    with open(source / "model.safetensors", "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        begin = header["model.layers.3.mlp.up_proj.weight"]["data_offsets"][0]
        file.seek(8 + length + begin + 10)
        file.write(struct.pack("<H", 0x7FC0))
    for name, recipe in (("out", "int4"), ("out.gguf", "q4_0")):
        assert_error(compress(tmp_path / name, recipe=recipe, model=source), 3, "row 0 has a weight that is NaN")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# The twin

def test_the_twin_computes_the_same(tmp_path):
    result = compress(tmp_path / "plain", "--no-gate", recipe="bf16")
    assert result.returncode == 0, result.stderr
    result = compress(tmp_path / "twin", "--gate-windows", 1, "--seed", 5, recipe="off-grid", model=tmp_path / "plain")
    assert result.returncode == 0, result.stderr
    manifest = json.loads((tmp_path / "twin" / "tandem_manifest.json").read_text())
    assert manifest["seed"] == 5 and manifest["method"]["off_grid"]["seed"] == 5
    assert manifest["gate"]["kl_divergence"]["value"] < 0.002  # two roundings to bf16 apart
    assert max(matrix["error"] for matrix in manifest["matrices"]) < 0.01
