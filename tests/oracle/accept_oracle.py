"""Which GGUF and safetensors files tandem accepts, against the wheels gguf and safetensors.

usage: accept_oracle.py JUDGE_FILES [COUNT]

JUDGE_FILES writes valid files and COUNT spoiled neighbours of each kind and says which it refuses and
why; the wheels judge the same files. What tandem refuses and a wheel accepts must have one of the
reasons below; what tandem accepts and a wheel refuses has none.
"""

import collections
import contextlib
import io
import pathlib
import signal
import subprocess
import sys
import tempfile

import gguf
import safetensors

# Parts of tandem's message -> why it refuses what the wheel accepts.
STRICTER = {
    "gguf": {
        "the padded end of the tensor": "tensors must lie side by side; the wheel takes any offset",
        "bytes long, expected": "the file must end with the last tensor; the wheel looks no further",
        "holds something else than letters": "names are printed and used as keys",
        "control characters": "keys are printed",
        "a metadata key is empty": "a key is a name",
        "boolean byte": "the wheel takes any byte",
        "dimensions, expected 1 to 4": "llama.cpp's limit; 0 dimensions is one number",
        "dimension": "an empty or negative dimension is no tensor",
        "is not supported by this version": "types tandem has no decoder for",
    },
    "safetensors": {
        "'__metadata__'": "the wheel takes null for none",
    },
}
SECONDS_PER_FILE = 10


def judge_gguf(path):
    with contextlib.redirect_stdout(io.StringIO()):
        gguf.GGUFReader(path)


def judge_safetensors(path):
    safetensors.deserialize(path.read_bytes())


def wheel_refusal(judge, path):
    """Why the wheel refuses the file; empty when it accepts it."""
    def too_slow(*_):
        raise TimeoutError(f"more than {SECONDS_PER_FILE} s")

    signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(SECONDS_PER_FILE)
    try:
        judge(path)
        return ""
    except Exception as error:  # the wheels raise of every kind
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)


def reason_of(message, reasons):
    return next((f"{why} ({part!r})" for part, why in reasons.items() if part in message), None)


def compare(kind, judge, program, count):
    tally, disagreements, unexplained = collections.Counter(), collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        lines = subprocess.run([program, kind, folder, str(count)], capture_output=True, check=True).stdout
        for line in lines.decode(errors="replace").split("\n")[:-1]:
            number, ours = line.split("\t", 1)
            theirs = wheel_refusal(judge, pathlib.Path(folder) / number)
            tally[not ours, not theirs] += 1
            if bool(ours) == bool(theirs):
                continue
            side, message = ("we refuse", ours) if ours else ("the wheel refuses", theirs)
            reason = reason_of(message, STRICTER[kind]) if ours else None
            disagreements[f"{side}: {reason or message}"] += 1
            if reason is None:
                unexplained.append((number, side, message))
    print(f"{kind}: {sum(tally.values())} files, accepted by both {tally[True, True]}, refused by both "
          f"{tally[False, False]}, by us alone {tally[False, True]}, by the wheel alone {tally[True, False]}")
    for text, times in disagreements.most_common():
        print(f"  {times:5} {text[:150]}")
    for number, side, message in unexplained[:10]:
        print(f"  no reason is known: file {number}: {side}: {message[:200]}")
    return not unexplained


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    count = int(sys.argv[2]) if len(sys.argv) == 3 else 1000
    results = [compare("gguf", judge_gguf, sys.argv[1], count),
               compare("safetensors", judge_safetensors, sys.argv[1], count)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
