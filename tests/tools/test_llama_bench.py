"""The peer bench interleaves, pairs by round and reports what the two programs said."""
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "peers"))
import llama_bench  # noqa: E402

FAKE_LLAMA = """#!/usr/bin/python3
import json
open({log!r}, "a").write("L")
print(json.dumps([{{"n_prompt": p, "n_gen": n, "avg_ts": s, "build_commit": "c", "build_number": 1}}
                  for p, n, s in ((512, 0, 100.0), (0, 64, 50.0), (0, 128, 40.0))]))
"""
FAKE_TANDEM = """#!/usr/bin/python3
import json, sys
if sys.argv[1] == "run":
    print("Paris")
else:
    assert sys.argv[1] == "bench"
    open({log!r}, "a").write("T")
    print(json.dumps([{{"n_prompt": p, "n_gen": n, "avg_ts": s, "build_commit": "x", "isa": "ref"}}
                      for p, n, s in ((512, 0, 300.0), (0, 64, 100.0), (0, 128, 100.0))]))
"""


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def run(tmp_path, llama_text):
    log = str(tmp_path / "order")
    return subprocess.run([
        sys.executable, ROOT / "bench" / "peers" / "llama_bench.py", "--rounds", "2",
        "--model", "m.gguf", "--out", tmp_path / "out.json",
        "--llama-bench", script(tmp_path / "llama", llama_text.format(log=log)),
        "--tandem", script(tmp_path / "tandem", FAKE_TANDEM.format(log=log))],
        capture_output=True, text=True, check=False)


def test_rounds_are_interleaved_and_reported(tmp_path):
    done = run(tmp_path, FAKE_LLAMA)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "order").read_text() == "LT" + "TL"
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["summary"]["pp512"]["ratio_of_medians"] == pytest.approx(3.0)
    assert document["summary"]["tg128"]["ratio_of_medians"] == pytest.approx(2.5)
    assert len(document["first_token_seconds"]) == 10
    assert "| pp512 | 300 | 0% | 100 | 0% | 3.00 |" in done.stdout


def test_a_peer_that_fails_ends_the_run_with_its_words(tmp_path):
    done = run(tmp_path, "#!/bin/sh\necho no such model >&2\nexit 3\n")
    assert done.returncode != 0
    assert "no such model" in done.stderr and not (tmp_path / "out.json").exists()


def test_ratios_pair_the_runs_of_a_round():
    rounds = [{"tandem": {"tg64": 100.0}, "llama.cpp": {"tg64": 50.0}},
              {"tandem": {"tg64": 120.0}, "llama.cpp": {"tg64": 80.0}},
              {"tandem": {"tg64": 110.0}, "llama.cpp": {"tg64": 50.0}}]
    row = llama_bench.summarise(rounds)["tg64"]
    assert row["ratio_of_medians"] == pytest.approx(110 / 50)
    assert (row["ratio_smallest"], row["ratio_largest"]) == pytest.approx((1.5, 2.2))
    assert row["tandem_spread"] == pytest.approx(20 / 110)
