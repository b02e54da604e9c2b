#!/usr/bin/python3
"""Measures tandem beside llama.cpp's llama-bench: same file, same threads, interleaved.

usage: llama_bench.py --llama-bench PATH [--model FILE] [--rounds 5] [--threads 2] [--out FILE.json]
                      [--tandem PATH]

A round runs both programs once, in the order A B, the next in the order B A, so that neither always
follows the other; each run measures a prefill of 512 tokens and decodes of 64 and 128, after a warm-up
of its own. Printed: medians over rounds, spread ((maximum - minimum) / median), the ratio of the
medians, and the smallest and largest ratio within a round. Last, the time from process start to the
first byte of an answer of `tandem run`.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"
XDG_CACHE = os.environ.get("XDG_CACHE_HOME", "")
CACHE = pathlib.Path(XDG_CACHE) if XDG_CACHE.startswith("/") else pathlib.Path.home() / ".cache"
DEFAULT_MODEL = CACHE / "tandem" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT_TOKENS = 512
NEW_TOKENS = (64, 128)
FIRST_TOKEN_PROMPT = "The capital of France is"


def output_of(command):
    """stdout of a command; a failure ends the program with the command and its own words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        sys.exit(f"llama_bench: {command[0]}: {error.strerror}")
    if done.returncode != 0:
        sys.exit(f"llama_bench: {' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def speeds_of(rows):
    return {f"tg{row['n_gen']}" if row["n_gen"] else f"pp{row['n_prompt']}": row["avg_ts"] for row in rows}


def run_llama(options):
    """Test name -> tokens a second, of one llama-bench process with one repetition each."""
    rows = json.loads(output_of([
        options.llama_bench, "-m", options.model, "-t", str(options.threads), "-p", str(PROMPT_TOKENS),
        "-n", ",".join(map(str, NEW_TOKENS)), "-r", "1", "-o", "json"]))
    options.llama_build = f"llama.cpp {rows[0]['build_commit']} ({rows[0]['build_number']})"
    return speeds_of(rows)


def run_tandem(options):
    rows = json.loads(output_of([
        options.tandem, "bench", "-m", options.model, "-t", str(options.threads), "-p", str(PROMPT_TOKENS),
        "-n", ",".join(map(str, NEW_TOKENS)), "-r", "1", "-o", "json"]))
    options.tandem_build = f"tandem {rows[0]['build_commit']}"
    options.tandem_isa = rows[0]["isa"]
    return speeds_of(rows)


def first_token_seconds(options, runs=10):
    """Process start to the first byte on stdout of `tandem run`, file in the page cache."""
    samples = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        with subprocess.Popen([options.tandem, "run", options.model, "-p", FIRST_TOKEN_PROMPT, "-n", "1"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            first = process.stdout.read(1)
            samples.append(time.perf_counter() - start)
            words = process.communicate()[1].decode(errors="replace")
        if process.returncode != 0 or not first:
            sys.exit(f"llama_bench: tandem run ended with {process.returncode}: {words[-2000:]}")
    return samples[1:]  # the first brings the file into the page cache


def spread(values):
    return (max(values) - min(values)) / statistics.median(values)


def summarise(rounds):
    """Per test: medians, spreads and ratios of {'llama.cpp': {...}, 'tandem': {...}} rounds."""
    summary = {}
    for test in rounds[0]["tandem"]:
        ours = [row["tandem"][test] for row in rounds]
        theirs = [row["llama.cpp"][test] for row in rounds]
        ratios = [a / b for a, b in zip(ours, theirs)]
        summary[test] = {
            "tandem_median": statistics.median(ours), "tandem_spread": spread(ours),
            "llama_cpp_median": statistics.median(theirs), "llama_cpp_spread": spread(theirs),
            "ratio_of_medians": statistics.median(ours) / statistics.median(theirs),
            "ratio_smallest": min(ratios), "ratio_largest": max(ratios)}
    return summary


def parse_arguments():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1])
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--model", default=str(DEFAULT_MODEL))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, default=BUILD / "llama_bench.json")
    parser.add_argument("--tandem", default=str(BUILD / "tandem"))
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def main():
    options = parse_arguments()
    sides = [("llama.cpp", run_llama), ("tandem", run_tandem)]
    rounds = []
    for number in range(options.rounds):
        order = sides if number % 2 == 0 else sides[::-1]
        rounds.append({name: run(options) for name, run in order})
        print(f"round {number + 1}/{options.rounds}: " + "; ".join(
            f"{name} " + " ".join(f"{test} {speed:.0f}" for test, speed in speeds.items())
            for name, speeds in rounds[-1].items()), file=sys.stderr)
    summary = summarise(rounds)
    first = first_token_seconds(options)

    print(f"{options.tandem_build}, {options.tandem_isa}, beside {options.llama_build}; "
          f"{options.threads} threads; {options.rounds} rounds; {pathlib.Path(options.model).name}\n")
    print("| tokens/s | tandem | spread | llama.cpp | spread | ratio | in a round |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for test, row in summary.items():
        print(f"| {test} | {row['tandem_median']:.0f} | {row['tandem_spread']:.0%} "
              f"| {row['llama_cpp_median']:.0f} | {row['llama_cpp_spread']:.0%} "
              f"| {row['ratio_of_medians']:.2f} | {row['ratio_smallest']:.2f}-{row['ratio_largest']:.2f} |")
    print(f"\nfirst token of '{FIRST_TOKEN_PROMPT}': median {statistics.median(first) * 1e3:.0f} ms after "
          f"process start, {min(first) * 1e3:.0f}-{max(first) * 1e3:.0f} ms over {len(first)} runs")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({
        "tandem": options.tandem_build, "isa": options.tandem_isa, "llama.cpp": options.llama_build,
        "model": options.model, "threads": options.threads, "machine": platform.platform(),
        "load_average": os.getloadavg()[0], "rounds": rounds, "summary": summary,
        "first_token_seconds": first}, indent=2) + "\n", encoding="utf-8")
    print(f"samples: {options.out}")


if __name__ == "__main__":
    main()
