"""The table of calibrated compression takes medians of seeds and judges by them."""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def lines(method, side, perplexities):
    return [{"model": "twin", "method": method, "side": side, "seed": seed, "perplexity": value, "seconds": 2.0}
            for seed, value in enumerate(perplexities)]


def judge(tmp_path, *runs):
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for run in runs for line in run))
    done = subprocess.run([sys.executable, ROOT / "tests" / "oracle" / "calibrated_table.py", path],
                          capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_medians_of_seeds_are_compared(tmp_path):
    code, out = judge(tmp_path, lines("gptq", "tandem", [30.0, 20.0, 10.0]),
                      lines("gptq", "llm-compressor", [20.0, 19.9, 99.0]))
    assert "| twin | gptq | 20.000 (10.000 to 30.000) | 20.000 (19.900 to 99.000) | 1.0000 | 2 | 2 |" in out
    assert code == 0 and "FAIL" not in out


def test_more_than_one_percent_worse_fails(tmp_path):
    code, out = judge(tmp_path, lines("awq", "tandem", [10.11]), lines("awq", "llm-compressor", [10.0]))
    assert code == 1 and "FAIL  twin: awq 1.0110 of llm-compressor's awq, at most 1.01 (1 seed)" in out


def test_pruning_may_be_five_percent_worse(tmp_path):
    code, out = judge(tmp_path, lines("wanda", "tandem", [10.4]), lines("wanda", "llm-compressor", [10.0]))
    assert code == 0 and "PASS  twin: wanda 1.0400" in out


def test_an_inverted_order_fails(tmp_path):
    code, out = judge(tmp_path, lines("gptq", "tandem", [11.0]), lines("rtn", "tandem", [10.0]))
    assert code == 1 and "FAIL  twin: gptq 11.000, rtn 10.000" in out


def test_an_inversion_that_the_library_shares_is_printed(tmp_path):
    code, out = judge(tmp_path, lines("gptq", "tandem", [11.0]), lines("rtn", "tandem", [10.9]),
                      lines("gptq", "llm-compressor", [12.0]), lines("rtn", "llm-compressor", [11.5]))
    assert code == 0
    assert "PASS  twin: gptq 11.000, rtn 10.900; llm-compressor's are inverted too: 12.000, 11.500" in out


def test_pruning_by_calibration_stays_far_below_magnitude(tmp_path):
    code, out = judge(tmp_path, lines("sparsegpt", "tandem", [100.0]), lines("magnitude-24", "tandem", [149.0]))
    assert code == 1 and "sparsegpt 100.000, magnitude-24 149.000, 1.49 times, at least 1.5" in out


def test_errors_are_left_out_and_later_lines_replace_earlier(tmp_path):
    failed = [{"model": "twin", "method": "awq", "side": "tandem", "seed": 0, "error": "it died"}]
    code, out = judge(tmp_path, lines("awq", "tandem", [99.0]), failed, lines("awq", "tandem", [10.0]))
    assert code == 0 and "| twin | awq | 10.000 | - | - | 2 | - |" in out
