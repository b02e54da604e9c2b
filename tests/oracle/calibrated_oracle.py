"""Runs calibrated compression by tandem and by llm-compressor: the same token rows, the same judge.

For each model, method and calibration seed: rows of 512 tokens of WikiText-2's validation text, the
folder that each side makes of them, and its perplexity by `tandem eval` over the first windows of the
test text. Each run adds a line of JSON to --out, or its error; runs whose line is there already are
skipped, so that the same command goes on where it was stopped. calibrated_table.py prints and judges
the lines.

usage: calibrated_oracle.py --model GGUF --tandem PROGRAM --wikitext FOLDER --out LINES
         [--library PYTHON] [--judge PROGRAM] [--methods all] [--models bf16,twin] [--seeds 1,2,3] [--rows 16]
         [--windows 40] [--group 64] [--sides tandem,llm-compressor] [--jobs 1] [--library-jobs 1]
         [--threads N] [--device cuda] [--deadline SECONDS]
  --library   the Python of an environment with llmcompressor 0.14 (this one)
  --judge     the tandem that measures perplexity (the same)
  --jobs      of each side at a time, each on --threads CPUs of its own
  --device    where perplexity is measured (the CPU)
  --deadline  start nothing after so many seconds
  twin        the off-grid twin, whose weights lie on no 4-bit grid
"""

import argparse
import json
import os
import pathlib
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import tokenizers

SKIPPED = 77
LENGTH = 512
SOURCES = {"bf16": "bf16", "twin": "off-grid"}


def steps(*tables, activations=None):
    text = f'activations = "{activations}"\n' if activations else ""
    return text + "".join("[[step]]\n" + "\n".join(table) + "\n" for table in tables)


def step(method, **options):
    values = {key.replace("_", "-"): json.dumps(value) for key, value in options.items()}
    return [f'method = "{method}"'] + [f"{key} = {value}" for key, value in values.items()]


# Name: tandem's recipe for groups of g; None: its own recipe of that name.
RECIPES = {
    "rtn": lambda g: steps(step("rtn", group=g, symmetric=False)),
    "rtn-symmetric": lambda g: steps(step("rtn", group=g, symmetric=True)),
    "gptq": lambda g: steps(step("gptq", group=g, symmetric=False)),
    "gptq-symmetric": lambda g: steps(step("gptq", group=g, symmetric=True)),
    # llm-compressor's own order: across groups, whose scales are those of the weights as they came.
    "gptq-static": lambda g: steps(step("gptq", group=g, symmetric=False, order="act", static_groups=True)),
    "awq": lambda g: steps(step("awq", group=g, symmetric=False)),
    "awq-unclipped": lambda g: steps(step("awq", group=g, symmetric=False, clip=False)),
    "smoothquant-dynamic": lambda g: steps(step("smoothquant"), step("rtn", bits=8, group=0), activations="dynamic"),
    "smoothquant-static": lambda g: steps(step("smoothquant"), step("rtn", bits=8, group=0), activations="static"),
    "sparsegpt": None,
    "wanda": None,
    "magnitude-24": None,
    "random-24": None,
}
IN_LIBRARY = {"rtn", "rtn-symmetric", "gptq", "gptq-symmetric", "awq", "smoothquant-dynamic", "smoothquant-static",
              "sparsegpt", "wanda"}
WITHOUT_ROWS = {"rtn", "rtn-symmetric", "magnitude-24", "random-24"}
SEEDLESS = {"rtn", "rtn-symmetric", "magnitude-24"}  # one run, whatever the seeds


def on_cpus(cpus, *command):
    return (["taskset", "-c", ",".join(map(str, cpus))] if cpus else []) + [str(c) for c in command]


def run(cpus, *command):
    done = subprocess.run(on_cpus(cpus, *command), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {(done.stdout + done.stderr)[-400:]}")
    return done.stdout


class Library:
    """A llm_compressor_run.py that works off jobs; started at the first one, and again if it died."""

    def __init__(self, python, cpus):
        threads = ["--threads", len(cpus)] if cpus else []
        self.command = on_cpus(cpus, python, pathlib.Path(__file__).with_name("llm_compressor_run.py"), *threads)
        self.process = None

    def compress(self, **job):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=sys.stderr, text=True)
        print(json.dumps(job), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline() or '{"error": "the library\'s process died"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["seconds"]

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()


class Comparison:
    def __init__(self, args, scratch):
        self.args = args
        self.scratch = scratch
        self.start = time.monotonic()
        self.lock = threading.Lock()
        lines = args.out.read_text().splitlines() if args.out.exists() else []
        self.done = {self.key(line) for line in map(json.loads, lines) if "perplexity" in line}
        self.text = args.wikitext / "test.raw"

    @staticmethod
    def key(line):
        return tuple(line[k] for k in ("model", "method", "side", "seed", "rows", "windows", "group"))

    def note(self, line):
        with self.lock:
            with self.args.out.open("a") as out:
                print(json.dumps(line), file=out, flush=True)
            print(f"{time.monotonic() - self.start:6.0f} s  {json.dumps(line)}", flush=True)

    def prepare(self):
        """The sources and the calibration rows; perplexity of each source."""
        for name in self.args.models:
            run([], self.args.tandem, "compress", self.args.model, "--recipe", SOURCES[name], "--no-gate",
                "-o", self.scratch / name)
        tokenizer = tokenizers.Tokenizer.from_file(str(self.scratch / self.args.models[0] / "tokenizer.json"))
        ids = tokenizer.encode((self.args.wikitext / "valid.tokens").read_bytes().decode()).ids
        for seed in self.args.seeds:
            starts = random.Random(seed).sample(range(len(ids) // LENGTH), self.args.rows)
            self.rows_file(seed).write_text(
                "".join(json.dumps(ids[s * LENGTH:(s + 1) * LENGTH]) + "\n" for s in starts))

    def rows_file(self, seed):
        return self.scratch / f"rows-{seed}.jsonl"

    def jobs(self, side):
        """All lines that this side still owes, those of the first seed first."""
        wanted = []
        for nth, seed in enumerate(self.args.seeds):
            for model in self.args.models:
                methods = ["none"] + self.args.methods if side == "tandem" else self.args.methods
                for method in methods:
                    is_seedless = method == "none" or method in SEEDLESS
                    if nth > 0 and is_seedless or side != "tandem" and method not in IN_LIBRARY:
                        continue
                    line = {"model": model, "method": method, "side": side, "seed": None if is_seedless else seed,
                            "rows": 0 if method == "none" or method in WITHOUT_ROWS else self.args.rows,
                            "windows": self.args.windows, "group": self.args.group}
                    if self.key(line) not in self.done:
                        wanted.append(line)
        return wanted

    def compress_ours(self, line, out, cpus):
        recipe, more = line["method"], []
        if RECIPES[line["method"]] is not None:
            recipe = out.with_suffix(".toml")
            recipe.write_text(RECIPES[line["method"]](line["group"]))
        if line["rows"]:
            more = ["--calibration", self.rows_file(line["seed"]), "--samples", line["rows"], "--length", LENGTH]
        elif line["seed"] is not None:
            more = ["--seed", line["seed"]]
        start = time.monotonic()
        run(cpus, self.args.tandem, "compress", self.scratch / line["model"], "--recipe", recipe, "--no-gate",
            "-o", out, *more)
        return round(time.monotonic() - start, 2)

    def perplexity(self, folder, cpus):
        device = ["--device", self.args.device] if self.args.device else []
        report = json.loads(run(cpus, self.args.judge or self.args.tandem, "eval", folder, "--text", self.text,
                                "--windows", self.args.windows, "--json", *device))
        return report["texts"][0]["perplexity"]

    def work_off(self, jobs, compress, cpus):
        while True:
            try:
                line = jobs.get_nowait()
            except queue.Empty:
                return
            if self.args.deadline and time.monotonic() - self.start > self.args.deadline:
                return
            folder = self.scratch / "-".join(str(line[k]) for k in ("model", "method", "side", "seed"))
            try:
                if line["method"] == "none":
                    measured = self.perplexity(self.scratch / line["model"], cpus)
                else:
                    line["seconds"] = compress(line, folder, cpus)
                    measured = self.perplexity(folder, cpus)
                line["perplexity"], line["stderr"] = round(measured["value"], 4), round(measured["stderr"], 4)
            except Exception as error:  # the others go on
                line["error"] = f"{type(error).__name__}: {error}"[:600]
            self.note(line)
            shutil.rmtree(folder, ignore_errors=True)

    def run(self):
        workers, libraries = [], []
        cpus = sorted(os.sched_getaffinity(0))
        for side in self.args.sides:
            jobs = queue.Queue()
            for line in self.jobs(side):
                jobs.put(line)
            for _ in range(jobs_of(self.args, side)):
                own, cpus = cpus[:self.args.threads], cpus[self.args.threads:]
                compress = self.compress_ours
                if side != "tandem":
                    libraries.append(Library(self.args.library, own))
                    compress = self.library_job(libraries[-1])
                workers.append(threading.Thread(target=self.work_off, args=(jobs, compress, own)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for library in libraries:
            library.close()

    def library_job(self, library):
        return lambda line, out, _: library.compress(
            method=line["method"], folder=str(self.scratch / line["model"]), rows=str(self.rows_file(line["seed"])),
            out=str(out), group=line["group"])


def jobs_of(args, side):
    return args.jobs if side == "tandem" else args.library_jobs


def names(known):
    def read(text):
        found = list(known) if text == "all" else text.split(",")
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name}: expected some of {','.join(known)}")
        return found
    return read


def main():
    sides = ["tandem", "llm-compressor"]
    parser = argparse.ArgumentParser(usage=__doc__)
    for option in ("--model", "--tandem", "--wikitext", "--out"):
        parser.add_argument(option, type=pathlib.Path, required=True)
    parser.add_argument("--library", type=pathlib.Path, default=sys.executable)
    parser.add_argument("--methods", type=names(RECIPES), default=list(RECIPES))
    parser.add_argument("--models", type=names(SOURCES), default=list(SOURCES))
    parser.add_argument("--sides", type=names(sides), default=sides)
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[1, 2, 3])
    for option, default in {"rows": 16, "windows": 40, "group": 64, "jobs": 1, "library-jobs": 1, "threads": 0,
                            "deadline": 0}.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--judge", type=pathlib.Path)
    parser.add_argument("--device")
    args = parser.parse_args()
    wanted = args.threads * sum(jobs_of(args, side) for side in args.sides)
    if wanted > len(os.sched_getaffinity(0)):
        parser.error(f"{wanted} CPUs wanted for all jobs, found {len(os.sched_getaffinity(0))}")
    for needed in (args.library, args.wikitext / "valid.tokens", args.wikitext / "test.raw"):
        if not pathlib.Path(needed).exists():
            print(f"{needed} is absent: not compared")
            sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory() as scratch:
        comparison = Comparison(args, pathlib.Path(scratch))
        comparison.prepare()
        comparison.run()


if __name__ == "__main__":
    main()
