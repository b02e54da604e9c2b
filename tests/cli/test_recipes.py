"""Recipes of steps as a user meets them: what is refused, and the smallest calibrated compression."""

import json
import os
import pathlib
import re
import subprocess

import pytest

BIN = os.environ.get("TANDEM_BIN", "")
XDG_CACHE = os.environ.get("XDG_CACHE_HOME", "")
CACHE = pathlib.Path(XDG_CACHE) if XDG_CACHE.startswith("/") else pathlib.Path.home() / ".cache"
MODEL = CACHE / "tandem" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"

pytestmark = [pytest.mark.skipif(not BIN, reason="TANDEM_BIN is not set"),
              pytest.mark.skipif(not MODEL.exists(), reason=f"no default model at {MODEL}")]


def compress(out, *args):
    return subprocess.run([BIN, "compress", MODEL, "-o", out, *map(str, args)], capture_output=True,
                          text=True, timeout=600, check=False)


def assert_refused(result, code, part, out):
    assert result.returncode == code, result.stderr
    assert result.stderr.count("\n") == 1 and part in result.stderr
    assert not out.exists() and not pathlib.Path(f"{out}.partial").exists()


@pytest.fixture(name="out")
def out_folder(tmp_path):
    return tmp_path / "out"


def test_a_recipe_says_where_it_is_wrong(tmp_path, out):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[[step]]\nmethod = "rtn"\nbist = 4\n')
    assert_refused(compress(out, "--recipe", recipe), 2, "r.toml:3: rtn: unknown option 'bist' (nearest: 'bits')", out)
    recipe.write_text('[[step]]\nmethod = "rtn"\ngroup = 128\n')
    assert_refused(compress(out, "--recipe", recipe), 2, "does not divide the 576 input channels", out)


def test_calibration_text_must_hold_a_window(tmp_path, out):
    text = tmp_path / "short.txt"
    text.write_text("Too short.")
    assert_refused(compress(out, "--recipe", "gptq", "--calibration", text), 3, "expected at least the 512", out)


def test_a_budget_of_energy_needs_a_meter(tmp_path, out):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[mixed]\nmillijoules = 1\nmeasure = "output"\n\n[[step]]\nmethod = "rtn"\n')
    text = tmp_path / "text.txt"
    text.write_text("The river ran past the mill and on to the sea. " * 40)
    rows = ["--recipe", recipe, "--calibration", text, "--samples", 2, "--length", 64]
    assert_refused(compress(out, *rows, "--power-command", "echo none"), 5,
                   "a budget in millijoules needs a meter of energy: ", out)


def test_calibration_flags_need_a_recipe_that_measures(out):
    assert_refused(compress(out, "--recipe", "int8", "--samples", 4), 2, "measures no inputs", out)
    assert_refused(compress(out, "--recipe", "rtn", "--seed", 4), 2, "measures no inputs", out)


def test_one_layer_by_gptq(tmp_path, out):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[[step]]\nmethod = "gptq"\nonly = "model.layers.0.*"\n')
    text = tmp_path / "text.txt"
    text.write_text("The river ran past the mill and on to the sea. " * 40)
    done = compress(out, "--recipe", recipe, "--calibration", text, "--samples", 2, "--length", 64)
    assert done.returncode == 0, done.stderr
    assert "calibration" in done.stdout and "2 rows of 64 tokens" in done.stdout
    # At most two layers in float, the activations and 1 GB, besides the mapped source.
    activations, peak = (int(re.search(pattern, done.stdout)[1])
                         for pattern in (r"(\d+) MiB of activations", r"peak memory (\d+) MiB"))
    two_layers = 2 * (576 * (576 * 2 + 192 * 2) + 3 * 576 * 1536) * 4
    assert peak << 20 <= two_layers + (activations + 1 << 20) + 10**9 + MODEL.stat().st_size
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    assert len(config["ignore"]) == 1 + 29 * 7
    manifest = json.loads((out / "tandem_manifest.json").read_text())
    assert manifest["calibration"]["rows"] == 2 and manifest["recipe_text"] == recipe.read_text()


SHAPE = {"name": "tiny", "family": "llama", "num_layers": 2, "width": 64, "num_heads": 4, "num_kv_heads": 2,
         "head_dim": 16, "ffn_width": 128, "vocab_size": 300, "max_context": 256, "rope_theta": 10000.0,
         "rms_eps": 1e-5, "tied_embedding": False}


def compress_random(shape, out, *args):
    return subprocess.run([BIN, "compress", "--random-weights", shape, "-o", out, *map(str, args)], capture_output=True,
                          text=True, timeout=600, check=False)


@pytest.mark.parametrize("recipe", ["rtn", "gptq", "hqq", "int8"])
def test_random_weights_become_a_folder(recipe, tmp_path, out):
    shape = tmp_path / "tiny.json"
    shape.write_text(json.dumps(SHAPE))
    rows = ["--samples", 4, "--length", 32] if recipe == "gptq" else []
    done = compress_random(shape, out, "--recipe", recipe, *rows)
    assert done.returncode == 0, done.stderr
    assert "random weights have no quality to lose" in done.stderr
    manifest = json.loads((out / "tandem_manifest.json").read_text())
    assert manifest["source_format"] == "random weights"
    if recipe == "gptq":
        assert manifest["calibration"]["source"] == "random ids" and manifest["calibration"]["rows"] == 4
    assert subprocess.run([BIN, "verify", out], check=False).returncode == 0
    said = subprocess.run([BIN, "run", out, "-p", "hi", "-n", "3", "--ignore-eos"], capture_output=True, text=True,
                          timeout=60, check=False)
    assert said.returncode == 0, said.stderr


def test_random_weights_take_the_place_of_a_model(tmp_path, out):
    shape = tmp_path / "tiny.json"
    shape.write_text(json.dumps(SHAPE))
    both = compress(out, "--random-weights", shape, "--recipe", "rtn")
    assert_refused(both, 2, "takes either MODEL or --random-weights", out)
    none = subprocess.run([BIN, "compress", "--recipe", "rtn", "-o", out], capture_output=True, text=True, timeout=60,
                          check=False)
    assert_refused(none, 2, "needs MODEL or --random-weights", out)


def test_fewer_heads_then_a_recipe_that_prunes_and_quantizes(tmp_path, out):
    heads = tmp_path / "heads"
    assert compress(heads, "--recipe", "gqa-mean", "--kv-heads", 1, "--no-gate").returncode == 0
    recipe = tmp_path / "r.toml"
    recipe.write_text('format = "sparse-24-bitmask"\n[[step]]\nmethod = "magnitude-24"\n'
                      '[[step]]\nmethod = "rtn"\ngroup = 64\n')
    result = subprocess.run([BIN, "compress", heads, "-o", out, "--recipe", recipe, "--no-gate"],
                            capture_output=True,
                            text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    config = json.loads((out / "config.json").read_text())
    assert config["num_key_value_heads"] == 1
    assert config["quantization_config"]["sparsity_config"]["sparsity_structure"] == "2:4"
    shown = subprocess.run([BIN, "inspect", out], capture_output=True, text=True, timeout=60, check=True).stdout
    assert re.search(r"int4 g64 2:4 +210 tensors", shown), shown
    answer = subprocess.run([BIN, "run", out, "-p", "One", "-n", "2", "--require-sparse"], capture_output=True,
                            text=True, timeout=600, check=False)
    assert answer.returncode == 0, answer.stderr
