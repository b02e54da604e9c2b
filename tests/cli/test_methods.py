"""The table of methods as a user meets it: a calibrated row, what is refused, a table of records."""

import json
import os
import pathlib
import subprocess

import pytest

BIN = os.environ.get("TANDEM_BIN", "")
XDG_CACHE = os.environ.get("XDG_CACHE_HOME", "")
CACHE = pathlib.Path(XDG_CACHE) if XDG_CACHE.startswith("/") else pathlib.Path.home() / ".cache"
MODEL = CACHE / "tandem" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"

pytestmark = [pytest.mark.skipif(not BIN, reason="TANDEM_BIN is not set"),
              pytest.mark.skipif(not MODEL.exists(), reason=f"no default model at {MODEL}")]

ONE_LAYER = '[[step]]\nmethod = "gptq"\nonly = "model.layers.0.*"\n'


@pytest.fixture(name="texts")
def prose_and_calibration(tmp_path):
    prose, rows = tmp_path / "prose.txt", tmp_path / "rows.txt"
    prose.write_text("".join(f"On day {i} the boat left at {i % 12} and was back by night.\n"
                             for i in range(120)))
    rows.write_text("The river ran past the mill and on to the sea. " * 60)
    return prose, rows


def methods(tmp_path, *args):
    # A cache of its own: variants are made here, and no text of the set-up is found.
    environment = dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache"))
    return subprocess.run([BIN, "methods", *map(str, args)], capture_output=True, text=True,
                          timeout=600, check=False, env=environment)


def test_rows_of_steps_are_measured_and_kept(tmp_path, texts):
    prose, rows = texts
    recipe = tmp_path / "first-layer.toml"
    recipe.write_text(ONE_LAYER)
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps(
        {"context": f"{i} and one make", "choices": [str(i + 1), "a sea"], "gold": 0}) + "\n"
        for i in range(3)))
    out = tmp_path / "out"
    command = [MODEL, "--methods", f"int8,{recipe}", "--text", prose, "--calibration", rows,
               "--samples", 1, "--windows", 1, "--hellaswag", items, "--limit", 2, "--no-twin",
               "--jobs", 2, "-o", out]
    done = methods(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "making variant first-layer" in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert [r["cell"]["variant"] for r in records] == ["bf16", "int8", "first-layer"]
    assert all(len(r["quality"]["task_hits"]) == 2 for r in records)
    assert 15 < records[2]["extra"]["layer_bits"] < 16 and records[2]["quality"]["kl_divergence"] > 0
    assert all(len(r["decode_tokens_per_second"]) == 5 for r in records)

    again = methods(tmp_path, *command)
    assert again.returncode == 0 and "making variant" not in again.stderr
    assert again.stdout == done.stdout

    shown = methods(tmp_path, "--from", out / "records.jsonl", "-o", tmp_path / "shown")
    assert shown.returncode == 0 and shown.stdout == done.stdout
    assert (tmp_path / "shown" / "methods.md").read_text() == (out / "methods.md").read_text()


def refused(result, code, *parts):
    assert result.returncode == code, result.stderr
    assert result.stderr.count("\n") == 1 and all(part in result.stderr for part in parts)


def test_what_cannot_be_made_is_refused_by_name(tmp_path, texts):
    prose, rows = texts
    out = tmp_path / "out"
    refused(methods(tmp_path, MODEL, "--methods", "gptq-g100", "--text", prose, "--calibration",
                    rows, "-o", out), 2, "group", "100")
    refused(methods(tmp_path, MODEL, "--methods", "gptq", "--text", prose, "-o", out), 2,
            "tools/setup.sh calibration")
    refused(methods(tmp_path, MODEL, "--methods", "gtpq", "--text", prose, "-o", out), 2, "gtpq")
    refused(methods(tmp_path, MODEL, "--methods", "gptq", "--text", prose, "--calibration", prose,
                    "-o", out), 2, "prose.txt", "shares")
    refused(methods(tmp_path, "--from", tmp_path / "none.jsonl", "-o", out), 2, "none.jsonl")
