#!/usr/bin/python3
"""Runs the libFuzzer programs of a built tree one after the other and prints what each one covered.

usage: run.py BUILD_FOLDER SECONDS [TARGET...]

Inputs that reach new code are kept in BUILD_FOLDER/corpus/TARGET, so that a later run goes on from
there; the seeds are made anew each time. A crash, a hang (over 10 s an input), a single allocation
of more than 512 MB or a process of more than 2 GB fails the target: the input is kept in
BUILD_FOLDER/findings/TARGET and the line that replays it is printed.
"""
import os
import pathlib
import re
import subprocess
import sys

TARGETS = ("gguf", "safetensors", "index", "tokenizer", "pieces", "template", "detokenizer")
LIMITS = ["-timeout=10", "-malloc_limit_mb=512", "-rss_limit_mb=2048", "-max_len=65536"]
ENVIRONMENT = {"UBSAN_OPTIONS": "print_stacktrace=1"}


def last_number(pattern, text):
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def run_target(build, name, seconds):
    """(executions, edges covered, edges, corpus files, path of a finding or None)"""
    corpus, findings = build / "corpus" / name, build / "findings" / name
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    log = build / f"fuzz_{name}.log"
    command = [build / "tests/fuzz" / f"fuzz_{name}", f"-max_total_time={seconds}", *LIMITS,
               f"-artifact_prefix={findings}/", "-print_final_stats=1", corpus, build / "seeds" / name]
    with open(log, "wb") as out:
        status = subprocess.run(command, stdout=out, stderr=out, check=False,
                                env={**os.environ, **ENVIRONMENT}).returncode
    text = log.read_text(errors="replace")
    finding = re.findall(r"Test unit written to (\S+)", text)
    if status != 0 and not finding:
        finding = [f"exit code {status}, see {log}"]
    executions = last_number(r"stat::number_of_executed_units:\s*(\d+)", text)
    return (executions or last_number(r"#(\d+)\s", text), last_number(r" cov: (\d+)", text),
            last_number(r"Loaded 1 PC tables \((\d+) PCs\)", text), len(list(corpus.iterdir())),
            finding[-1] if finding else None)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    build, seconds = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2])
    names = sys.argv[3:] or TARGETS
    subprocess.run([build / "tests" / "fuzz" / "fuzz_seeds", build / "seeds"], check=True)
    print(f"{'target':<14}{'executions':>12}{'edges':>8}{'of':>8}{'covered':>9}{'corpus':>8}  result",
          flush=True)
    failed = []
    for name in names:
        executions, covered, edges, files, finding = run_target(build, name, seconds)
        share = f"{100 * covered / edges:.1f} %" if edges else "-"
        print(f"{name:<14}{executions:>12}{covered:>8}{edges:>8}{share:>9}{files:>8}  "
              f"{'FAILED' if finding else 'ok'}", flush=True)
        if finding:
            failed.append((name, finding))
    for name, finding in failed:
        print(f"\n{name}: {finding}\n  replay: {build}/tests/fuzz/fuzz_{name} {finding}\n"
              f"  log:    {build}/fuzz_{name}.log")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
