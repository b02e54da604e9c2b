"""The program as a user meets it: exit codes, messages, streams and answers.

Runs the binary named by the environment variable TANDEM_BIN; tests that need the default model skip
when it has not been fetched.
"""

import csv
import fcntl
import io
import json
import os
import pathlib
import pty
import re
import resource
import select
import shutil
import signal
import sqlite3
import subprocess
import termios
import time

import pytest

BIN = os.environ.get("TANDEM_BIN", "")
XDG_CACHE = os.environ.get("XDG_CACHE_HOME", "")
CACHE = pathlib.Path(XDG_CACHE) if XDG_CACHE.startswith("/") else pathlib.Path.home() / ".cache"
MODEL = CACHE / "tandem" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"

pytestmark = pytest.mark.skipif(not BIN, reason="TANDEM_BIN is not set")
needs_model = pytest.mark.skipif(not MODEL.exists(), reason=f"no default model at {MODEL}")

FRANCE = ["run", "-p", "The capital of France is", "-n", "8"]
TINY_BENCH = ["bench", "-p", "0", "-n", "2", "-r", "1", "--no-warmup"]


def tandem(*args, **options):
    options = {"timeout": 120, "capture_output": True, "text": True, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run([BIN, *map(str, args)], **options)


def assert_error(result, code, *parts):
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("tandem: error: ")
    assert result.stderr.count("\n") == 1, "an error is one line"
    for part in parts:
        assert part in result.stderr


def run_json(*args):
    result = tandem("run", *args, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# Help, version, usage

VERBS = ["run", "chat", "inspect", "info", "compress", "study", "report", "bench", "eval", "methods", "verify",
         "completion"]


def assert_one_screen(text):
    assert text.endswith("\n")
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 100


def test_help_fits_one_screen_and_shows_examples():
    result = tandem("--help")
    assert result.returncode == 0
    assert result.stderr == ""
    assert_one_screen(result.stdout)
    assert result.stdout.count("\n  tandem ") == 3
    for verb in VERBS:
        assert f"\n  {verb} " in result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_on_one_screen_with_examples(verb):
    result = tandem(verb, "--help")
    assert result.returncode == 0
    assert "Exit codes" not in result.stdout
    assert f"tandem {verb} " in result.stdout.partition("Example")[2] or f"tandem {verb}\n" in result.stdout
    assert_one_screen(result.stdout)


def test_version_names_version_commit_and_compiler():
    result = tandem("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("tandem ")
    assert "(" in result.stdout and "+" in result.stdout


@pytest.mark.parametrize(
    "args, part",
    [
        ([], "no verb"),
        (["rnu"], "did you mean run?"),
        (["studdy"], "did you mean study?"),
        (["frobnicate"], "unknown verb 'frobnicate'"),
        (["--verison"], "did you mean --version?"),
        (["run", "--treads", "2", "-p", "hi"], "did you mean --threads?"),
        (["run", "--temprature=1", "-p", "hi"], "did you mean --temperature?"),
        (["info", "--jsn"], "did you mean --json?"),
        (["run", "--zzzzzzzz", "-p", "hi"], "unknown option '--zzzzzzzz'"),
        (["run", "a", "b", "-p", "hi"], "unknown argument 'b'"),
        (["run", "\x1b[2J\n", "x\x1b[2J\ny", "-p", "hi"], "'x\\x1b[2J\\x0ay'"),
        (["info", "--js"], "did you mean --json?"),
        (["chat", "--sytem", "x"], "did you mean --system?"),
        (["bench", "-ngl", "9"], "unknown option '-ngl'; did you mean -npl?"),
        (["bench", "--reps", "3"], "unknown option '--reps'"),
        (["eval", "--base-line", "x"], "did you mean --baseline?"),
        (["run", "-p"], "--prompt: no value given, expected TEXT"),
        (["run", "-p", "hi", "--json=3"], "--json takes no value"),
        (["run", "-p", "hi", "--json", "--json"], "--json: given 2 times, expected once"),
        (["run", "-p", "hi", "--kv", "\x1b[2J"], "found '\\x1b[2J', expected bf16, int8, fp8 or int4"),
        (["run", "-p", "hi", "--ctx=-5"], "--ctx: found '-5', expected 2 to 1073741824"),
        (["run", "-p", "hi", "-n", "0"], "--max-tokens"),
        (["run", "-p", "hi", "-n", "1e3"], "--max-tokens"),
        (["run", "-p", "hi", "-n", "4k"], "--max-tokens"),
        (["run", "-p", "hi", "-n", "010"], "--max-tokens: found '010', expected a decimal number without zeros in front"),
        (["run", "-p", "hi", "--seed", "00"], "--seed: found '00', expected a decimal number without zeros in front"),
        (["run", "-p", "hi", "-n", ""], "--max-tokens: found '', expected 1 to"),
        (["run", "-p", "hi", "--temperature", ""], "--temperature: found '', expected a number"),
        (["run", "-p", "hi", "-n", "3", "-n", "4"], "--max-tokens: given 2 times, expected once"),
        (["run", "-p", "hi", "--seed", "-1"], "--seed"),
        (["run", "-p", "hi", "--seed", "18446744073709551616"], "--seed"),
        (["run", "-p", "hi", "--temperature", "nan"], "temperature"),
        (["run", "-p", "hi", "--temperature", "-1"], "temperature"),
        (["run", "-p", "hi", "--temperature", "0,5"], "--temperature: found '0,5', expected a number"),
        (["run", "-p", "hi", "--top-p", "0"], "top-p"),
        (["run", "-p", "hi", "--top-k", "-1"], "top-k"),
        (["run", "-p", "hi", "--min-p", "2"], "min-p"),
        (["run", "-p", "hi", "--repetition-penalty", "0"], "repetition penalty"),
        (["run", "-p", "hi", "--kv", "fp4"], "--kv"),
        (["run", "-p", "hi", "--threads", "0"], "--threads"),
        (["run", "-p", "hi", "--threads", "4096"], "threads"),
        (["run", "-p", "hi", "--system", "be brief"], "--chat"),
        (["run", "-p", "hi", "--tools", "x"], "--tools without --chat"),
        (["run", "-p", "hi", "--file", "x"], "both"),
        (["run"], "no prompt"),
        (["info", "--threads", "x"], "--threads"),
        (["inspect"], "no MODEL given; see tandem inspect --help"),
        (["chat", "--seed", "-1"], "--seed: found '-1', expected 0 to 18446744073709551615"),
        (["compress", "x"], "no --recipe given"),
        (["compress", "x", "--recipe", "int4", "-o", "y", "--group", "x"], "found 'x', expected a number that"),
        (["compress", "x", "--recipe", "int5", "-o", "y"], "int5"),
        (["compress", "x", "--recipe", "gqa-mean", "-o", "y"], "--kv-heads is missing"),
        (["compress", "x", "--recipe", "int8", "--kv-heads", "3", "-o", "y"], "found --kv-heads 3"),
        (["compress", "x", "--recipe", "gqa-mean", "--kv-heads", "3", "-o", "y.gguf"], "found a GGUF file"),
        (["study", "--seed", "-1"], "--seed"),
        (["study", "--profile", "fast"], "smoke, quick or full"),
        (["study", "--variants", "int3"], "int3"),
        (["study", "--batches", "0"], "--batches"),
        (["study", "--batches", "x"], "--batches: found 'x', expected a number"),
        (["study", "--quality-floor", "top1=101"], "--quality-floor"),
        (["report"], "STUDY"),
    ],
)
def test_usage_errors_exit_2(args, part):
    assert_error(tandem(*args), 2, part)


def test_missing_default_model_says_how_to_get_it(tmp_path):
    result = tandem("run", "-p", "hi", env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
    assert_error(result, 2, "make study", str(tmp_path))


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_exits_2_in_every_verb(verb):
    assert_error(tandem(verb, "--no-such-option"), 2, "unknown option '--no-such-option'")


MODEL_VERBS = {  # what each needs besides a model, and how it takes one
    "run": ["-p", "hi"], "chat": [], "inspect": [], "compress": ["--recipe", "int8", "-o", "OUT"],
    "study": ["--text", "TEXT", "-o", "OUT"], "bench": [], "eval": ["--text", "TEXT"], "info": []}


def with_model(verb, model, tmp_path, *more):
    text = tmp_path / "text.txt"
    text.write_text("Some text.\n")
    places = {"OUT": tmp_path / "out", "TEXT": text}
    named = ["-m", model] if verb == "bench" else ["--model", model] if verb == "info" else [model]
    return tandem(verb, *named, *[places.get(arg, arg) for arg in MODEL_VERBS[verb]], *more)


@pytest.mark.parametrize("verb", MODEL_VERBS)
def test_a_missing_model_exits_3_in_every_verb(verb, tmp_path):
    assert_error(with_model(verb, "/no/such/model", tmp_path), 3, "/no/such/model")


@needs_model
@pytest.mark.parametrize("verb", ["run", "chat", "study", "bench", "eval"])
def test_a_missing_instruction_set_exits_5_in_every_verb(verb, tmp_path):
    assert_error(with_model(verb, MODEL, tmp_path, "--isa", "neon"), 5, "neon", "ref")


@pytest.mark.parametrize("verb", [["run", "-p", "hi"], ["eval", "--text", __file__], ["bench"]])
def test_device_that_is_not_there_exits_5(verb):
    # No machine has a ninth GPU here; without a driver or without CUDA in the build the answer is as short.
    assert_error(tandem(*verb, "--device", "cuda:99"), 5)


def test_device_and_isa_usage_errors():
    assert_error(tandem("run", "-p", "hi", "--device", "tpu"), 2, "'tpu'", "cuda:N")
    assert_error(tandem("run", "-p", "hi", "--device", "cuda", "--isa", "ref"), 2, "--isa", "--device")


def test_random_weights_need_no_file():
    shape = pathlib.Path(__file__).parents[2] / "data" / "models" / "SmolLM2-135M.json"
    result = tandem("bench", "--random-weights", shape, "--encoding", "q4_0", "-p", 0, "-n", 2, "-r", 1, "-o", "jsonl")
    assert result.returncode == 0, result.stderr
    row = json.loads(result.stdout)
    assert "q4_0" in row["model_type"]
    result = tandem("bench", "--random-weights", shape, "--encoding", "int4-g128")
    assert result.returncode == 2
    assert "576" in result.stderr and "128" in result.stderr


def bench_random(shape, encoding, *args):
    return tandem("bench", "--random-weights", shape, "--encoding", encoding, "-p", 0, "-n", 1, "-r", 1,
                  "--no-warmup", "-o", "jsonl", *args)


def test_2_to_4_weights_run_and_never_dense_when_that_is_asked():
    shape = pathlib.Path(__file__).parents[2] / "data" / "models" / "SmolLM2-135M.json"
    for encoding, name in [("bf16-2:4", "bf16 2:4"), ("int4-g64-2:4", "int4 g64 2:4"),
                           ("int8-2:4", "int8 per channel 2:4"), ("fp8-2:4", "fp8 per channel 2:4")]:
        result = bench_random(shape, encoding, "--isa", "ref", "--explain")
        assert result.returncode == 0, result.stderr
        assert name in json.loads(result.stdout)["model_type"]
        assert "_24_ref" in json.loads(result.stdout)["kernels"]
        assert re.search(rf"^down +30 x \[576, 1536\] {name}, [0-9.]+ MB each: linear_\w+_24_ref, (f32|fp8 per token) activations$",
                         result.stderr, re.MULTILINE)
        assert_error(bench_random(shape, encoding, "--isa", "ref", "--require-sparse"), 5, "dense", name)
    assert_error(bench_random(shape, "q8_0", "--require-sparse"), 2, "no 2:4 weights")


@needs_model
@pytest.mark.parametrize("verb", [["run", "-p", "hi", "-n", "1"], TINY_BENCH])
def test_explain_names_the_kernel_of_every_matrix(verb):
    result = tandem(*verb, "--explain")
    assert result.returncode == 0
    lines = [line for line in result.stderr.splitlines() if " activations" in line]
    assert [line.split()[0] for line in lines] == ["embedding", "qkv", "o", "gate_up", "down", "output"]
    assert all("linear_q" in line and "MB each" in line for line in lines)


@pytest.mark.parametrize("content", [None, b"", b"GGUF", b"not a model" * 100])
def test_bad_model_exits_3(tmp_path, content):
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    assert_error(tandem("run", path, "-p", "hi"), 3, "bad.gguf")


@needs_model
def test_scale_that_is_not_finite_exits_3(tmp_path):
    model = bytearray(MODEL.read_bytes())
    # The file ends with a norm of 576 floats; before it lies the last block of blk.9.attn_v, 20 bytes of q4_1.
    scale = len(model) - 576 * 4 - 20
    model[scale:scale + 2] = b"\x00\x7e"
    path = tmp_path / "model.gguf"
    path.write_bytes(model)
    assert_error(tandem("run", path, "-p", "hi"), 3, "'model.layers.9.self_attn.v_proj.weight'", "row 191")


def test_study_of_random_weights(tmp_path):
    shape = pathlib.Path(__file__).parents[2] / "data" / "models" / "SmolLM2-135M.json"
    small = tmp_path / "small.json"
    config = json.loads(shape.read_text()) | {"num_layers": 1}
    small.write_text(json.dumps(config))
    result = tandem("study", "--random-weights", small, "--encodings", "bf16,int4-g64+q8_0", "--profile", "smoke",
                    "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "the weights are random" in result.stdout
    records = [json.loads(line) for line in (tmp_path / "out/records.jsonl").read_text().splitlines()]
    assert {record["cell"]["variant"] for record in records} == {"bf16", "int4-g64+q8_0"}
    assert all(record["extra"]["random_weights"] for record in records)
    assert_error(tandem("study", "--random-weights", small, "--encodings", "int5", "-o", tmp_path / "x"), 2, "int5")
    assert_error(tandem("study", "--encodings", "int8", "-o", tmp_path / "x"), 2, "--random-weights")


@pytest.mark.parametrize("model", [["/no/such/model"], ["--model", "/no/such/model"]])
def test_study_takes_its_model_both_ways(model):
    assert_error(tandem("study", *model), 3, "/no/such/model")


@needs_model
def test_every_verb_notices_that_its_output_is_lost():
    with open("/dev/full", "wb") as full:
        result = tandem("inspect", MODEL, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert "cannot write to standard output" in result.stderr


def test_info_with_a_missing_model_exits_3():
    assert_error(tandem("info", "--model", "/no/such/model"), 3, "/no/such/model")


def test_info_json():
    result = tandem("info", "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    info = json.loads(result.stdout)
    assert info["schema"] == "tandem.info/1"
    assert info["isa"] in info["runnable_isas"]
    assert info["allowed_cpus"] == len(os.sched_getaffinity(0))
    assert 1 <= info["threads"] == info["usable_cpus"] <= info["allowed_cpus"]
    assert all(row["bytes_per_second"] > 1e8 for row in info["read_bandwidth"])
    assert [row["threads"] for row in info["peaks"]] in ([1], [1, info["threads"]])
    assert all(row["int8_gops"] > 1 and row["f32_gflops"] > 1 for row in info["peaks"])


# Answers


@needs_model
def test_greedy_answer():
    result = tandem(*FRANCE)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(" Paris.")
    assert result.stderr == "", "nothing but data when not on a terminal"


@needs_model
def test_verbose_line_is_on_stderr():
    result = tandem(*FRANCE, "--verbose")
    assert result.stdout.startswith(" Paris.")
    assert result.stderr.count("\n") == 1 and "tok/s" in result.stderr


@needs_model
def test_json_is_one_document_with_the_streamed_text():
    document = run_json(*FRANCE[1:])
    assert document["schema"] == "tandem.run/1"
    assert document["text"] == tandem(*FRANCE).stdout.removesuffix("\n")
    assert document["prompt_tokens"] == 5
    assert len(document["tokens"]) == 8
    assert document["finish_reason"] == "max_tokens"
    assert document["kernels"] and document["timings"]["first_token_seconds"] > 0


@needs_model
def test_prompt_from_file_and_stdin(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("The capital of France is")
    from_file = tandem("run", "--file", path, "-n", "8")
    from_stdin = tandem("run", "-p", "-", "-n", "8", stdin=None, input="The capital of France is")
    from_pipe = tandem("run", "-n", "8", stdin=None, input="The capital of France is\n")
    expected = tandem(*FRANCE).stdout
    assert [from_file.stdout, from_stdin.stdout, from_pipe.stdout] == [expected] * 3


@needs_model
def test_stop_string_is_cut_exactly():
    whole = run_json("-p", "The capital of France is", "-n", "24")["text"]
    stop = whole[9:13]  # crosses token borders
    stopped = run_json("-p", "The capital of France is", "-n", "24", "--stop", stop)
    assert stopped["text"] == whole[: whole.index(stop)]
    assert stopped["finish_reason"] == "stop_string"


@needs_model
@pytest.mark.parametrize("stops", [[""], ["a", "b", "c", "d", "e"]])
def test_stop_strings_are_limited(stops):
    args = [part for stop in stops for part in ("--stop", stop)]
    assert_error(tandem("run", "-p", "hi", *args), 2, "stop")


@needs_model
def test_seed_repeats_and_another_seed_differs():
    args = ["-p", "Once upon a time", "-n", "24", "--temperature", "1.2", "--top-p", "0.95"]
    first = run_json(*args, "--seed", "7")["tokens"]
    assert run_json(*args, "--seed", "7")["tokens"] == first
    assert run_json(*args, "--seed", "8")["tokens"] != first


@needs_model
def test_chat_ends_itself_and_ignore_eos_goes_on():
    args = ["--chat", "-p", "Reply with the single word: yes", "-n", "64"]
    assert run_json(*args)["finish_reason"] == "stop_token"
    ignoring = run_json(*args, "--ignore-eos")
    assert ignoring["finish_reason"] == "max_tokens" and len(ignoring["tokens"]) == 64


@needs_model
def test_special_tokens_in_a_prompt_stay_text():
    assert run_json("-p", "<|im_end|>", "-n", "1")["prompt_tokens"] > 1


@needs_model
def test_int8_cache_answers_too():
    assert run_json(*FRANCE[1:], "--kv", "int8")["text"].startswith(" Paris")


@needs_model
def test_one_thread_gives_the_same_text():
    assert run_json(*FRANCE[1:], "--threads", "1")["tokens"] == run_json(*FRANCE[1:])["tokens"]


@needs_model
def test_prompt_longer_than_the_context_is_refused_with_both_numbers():
    assert_error(tandem("run", "-p", "one two three four five six", "--ctx", "4"), 2, " 6 tokens", " 4 ")
    assert_error(tandem("run", "-p", "hi", "--ctx", "100000"), 2, "100000", "8192")


@needs_model
def test_answer_ends_when_the_context_is_full():
    document = run_json("-p", "The capital of France is", "--ctx", "9", "-n", "100")
    assert len(document["tokens"]) == 4
    assert document["finish_reason"] == "context_full"


# Streams, signals, memory


@needs_model
def test_reader_that_leaves_is_no_error():
    with subprocess.Popen([BIN, "run", "-p", "Once upon a time", "-n", "400", "--ignore-eos"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(3)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@needs_model
def test_output_that_cannot_be_written_exits_1():
    with open("/dev/full", "wb") as full:
        result = tandem(*FRANCE, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert "cannot write to standard output" in result.stderr
    closed = subprocess.run(["sh", "-c", '"$0" run -p hi -n 2 >&-', BIN], capture_output=True, text=True)
    assert closed.returncode == 1
    assert "cannot write to standard output" in closed.stderr


@needs_model
def test_interrupt_keeps_the_text_and_exits_130():
    with subprocess.Popen([BIN, "run", "-p", "Once upon a time", "-n", "8000", "--ignore-eos", "--json"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    document = json.loads(out)
    assert document["finish_reason"] == "interrupted"
    assert document["text"]


@needs_model
def test_terminate_ends_at_once():
    with subprocess.Popen([BIN, "run", "-p", "Once upon a time", "-n", "8000", "--ignore-eos"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == -signal.SIGTERM


@needs_model
def test_model_cut_short_while_in_use_exits_3(tmp_path):
    path = tmp_path / "model.gguf"
    shutil.copyfile(MODEL, path)
    with subprocess.Popen([BIN, "run", path, "-p", "Once upon a time", "-n", "8000", "--ignore-eos", "--isa", "ref"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1)  # ref decodes its weights from the file, step by step
        os.truncate(path, 1 << 20)
        assert process.wait(60) == 3
        assert process.stderr.read() == b"tandem: error: model file changed while in use\n"


@needs_model
def test_too_little_memory_exits_4():
    if b"__asan_init" in pathlib.Path(BIN).read_bytes():
        pytest.skip("the address sanitizer needs all addresses for itself")

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))

    result = tandem("run", "-p", "hi", "--ctx", "8192", "--threads", "1", preexec_fn=limit)
    assert_error(result, 4, "memory")


# bench

COMPARED_KEYS = {  # what llama.cpp's compare-llama-bench.py wants of every row
    "cpu_info", "gpu_info", "backends", "n_gpu_layers", "n_cpu_moe", "tensor_buft_overrides", "model_filename",
    "model_type", "n_batch", "n_ubatch", "embeddings", "cpu_mask", "cpu_strict", "poll", "n_threads", "type_k",
    "type_v", "load_mode", "no_kv_offload", "split_mode", "main_gpu", "tensor_split", "flash_attn", "n_prompt",
    "n_gen", "n_depth", "fit_target", "fit_min_ctx", "build_commit", "test_time", "avg_ts"}


@needs_model
def test_bench_crosses_its_lists_and_has_llama_bench_keys():
    result = tandem("bench", "-p", "4", "-n", "2-4*2", "-pg", "4,2", "-d", "0,64", "-npl", "1,2", "-r", "2",
                    "-ctk", "int8", "-ub", "6", "-t", "1", "-o", "jsonl")
    assert result.returncode == 0 and result.stderr == ""
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == 2 * 2 * 4
    assert [(r["n_prompt"], r["n_gen"]) for r in rows[:4]] == [(4, 0), (0, 2), (0, 4), (4, 2)]
    for row in rows:
        assert COMPARED_KEYS <= row.keys()
        assert len(row["samples_ns"]) == len(row["samples_ts"]) == 2
        tokens = (row["n_prompt"] + row["n_gen"]) * row["n_pl"]
        assert row["samples_ts"] == pytest.approx([tokens * 1e9 / ns for ns in row["samples_ns"]], rel=1e-5)
        assert row["avg_ts"] == pytest.approx(sum(row["samples_ts"]) / 2, rel=1e-5)
        assert row["type_k"] == row["type_v"] == "int8"
        assert row["gb_per_second"] == pytest.approx(row["bytes_moved"] / row["avg_ns"], rel=1e-4)
    keys = [tuple(str(r[k]) for k in sorted(COMPARED_KEYS - {"build_commit", "test_time", "avg_ts"})) for r in rows]
    assert len(set(keys)) == len(rows), "rows that differ in -npl stay apart"


@needs_model
def test_bench_bytes_are_the_weights_and_the_cache():
    rows = json.loads(tandem("bench", "-p", "0", "-n", "1,2", "-d", "0,64", "-r", "1", "-o", "json").stdout)
    one, two, deep = rows[0]["bytes_moved"], rows[1]["bytes_moved"], rows[2]["bytes_moved"]
    token = deep - one  # 64 more tokens in the cache
    assert token % 64 == 0 and two - 2 * one == token // 64


@needs_model
@pytest.mark.parametrize("output", ["csv", "md", "sql", "json"])
def test_bench_formats(output):
    result = tandem(*TINY_BENCH, "-o", output)
    assert result.returncode == 0, result.stderr
    text = result.stdout
    if output == "csv":
        row, = csv.DictReader(io.StringIO(text))
        assert COMPARED_KEYS <= row.keys() and row["n_gen"] == "2" and row["cpu_strict"] == "0"
    elif output == "sql":
        database = sqlite3.connect(":memory:")
        database.executescript(text)
        assert database.execute("SELECT n_gen, n_pl, avg_ts > 0 FROM llama_bench").fetchall() == [(2, 1, 1)]
    elif output == "md":
        header, rule, row = text.splitlines()[:3]
        assert header.count("|") == rule.count("|") == row.count("|") and " tg2 " in row and "\u00b1" in row
    else:
        assert len(json.loads(text)) == 1


@needs_model
def test_bench_energy_is_of_the_meter_over_the_window():
    command = [*TINY_BENCH, "--energy", "--energy-seconds", "2", "--power-command", "echo 100"]
    row = json.loads(tandem(*command, "-o", "jsonl").stdout)
    assert row["energy_source"].startswith("command: echo 100")
    assert row["mean_watts"] == pytest.approx(100) and row["loaded_idle_watts"] == pytest.approx(100)
    energy = row["energy"]
    assert energy["valid"] and energy["seconds"] >= 2 and energy["tokens"] % 2 == 0
    assert row["joules_per_token"] == pytest.approx(energy["joules"] / energy["tokens"], abs=1e-6)
    assert row["joules_per_token"] * row["tokens_per_second_per_watt"] == pytest.approx(1, rel=1e-3)
    assert abs(row["dynamic_joules_per_token"]) < 0.01 * row["joules_per_token"]
    header, _, line = tandem(*command).stdout.splitlines()[:3]
    assert "J/token" in header and header.count("|") == line.count("|")


@needs_model
def test_bench_energy_without_a_meter_says_why():
    result = tandem(*TINY_BENCH, "--energy", "--power-command", "exit 3", "-o", "jsonl")
    assert result.returncode == 0 and "exited with status 3" in result.stderr
    row = json.loads(result.stdout)
    assert row["joules_per_token"] is None and row["energy_source"].startswith("not measured: ")


@pytest.mark.parametrize("args, part", [
    (["-p", "1,,2"], "-p"), (["-n", "4-2"], "-n"), (["-n", "x"], "-n"), (["-npl", "0"], "-npl"),
    (["-pg", "512"], "-pg"), (["-ctk", "fp4"], "fp4"), (["-ctk", "bf16", "-ctv", "int8"], "one type"),
    (["-o", "xml"], "xml"), (["-p", "0", "-n", "0"], "nothing to time"), (["-t", "100000"], "100000"),
    (["-r", "0"], "--repetitions"), (["-p", "0-8*2"], "-p")])
def test_bench_usage_errors(args, part):
    assert_error(tandem("bench", *args), 2, part)


@needs_model
def test_bench_beyond_the_context_is_refused_before_anything_is_printed():
    assert_error(tandem("bench", "-p", "8000", "-d", "0,8000", "-n", "0"), 2, "depth 8000", "8192")


# eval


@needs_model
def test_eval_reports_texts_and_tasks_with_errors(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 120)
    task = tmp_path / "task.jsonl"
    task.write_text('{"context": "The capital of France is", "choices": ["Paris", "a spoon"], "gold": 0}\n'
                    '{"context": "2 + 2 =", "choices": ["banana", "4"], "gold": 1}\n')
    lambada = tmp_path / "lambada.jsonl"
    lambada.write_text('{"context": "The capital of France is", "continuation": "Paris"}\n')
    result = tandem("eval", "--text", text, "--windows", "1", "--ppl", "B,E", "--baseline", MODEL,
                    "--task", f"own={task}", "--task", f"lambada={lambada}", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert [(t["protocol"], t["scored_tokens"]) for t in document["texts"]] == [("B", 255), ("E", 511)]
    b, e = document["texts"]
    assert 1 < b["perplexity"]["value"] < e["perplexity"]["value"] and b["perplexity"]["stderr"] > 0
    assert b["kl_divergence"]["value"] == 0 and b["top1_agreement"]["value"] == 1
    assert b["log_ratio"] == {"value": 0, "stderr": 0}, "the same model"
    assert "kl_divergence" not in e and "log_ratio" not in e
    own, last_word = document["tasks"]
    assert own["items"] == 2 and own["acc"] == {"value": 1.0, "stderr": 0.0}
    assert own["acc_norm"] == {"value": 0.5, "stderr": 0.5}, "a sum over one character is not made smaller"
    assert last_word["acc"]["value"] == 1.0 and last_word["perplexity"]["value"] < 3


@needs_model
def test_eval_compares_kernel_sets_on_one_model(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 60)
    result = tandem("eval", "--text", text, "--windows", "1", "--isa", "avx2", "--baseline", MODEL,
                    "--baseline-isa", "ref", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)["texts"][0]
    assert found["log_ratio"]["stderr"] > 0 and abs(found["log_ratio"]["value"]) < 0.05
    assert 0 < found["kl_divergence"]["value"] < 0.05 and found["top1_agreement"]["value"] > 0.9


@pytest.mark.parametrize("args, part", [
    (["--text", "x", "--baseline-isa", "ref"], "--baseline"), ([], "nothing to evaluate"), (["--ppl", "B"], "--text"), (["--text", "x", "--ppl", "F"], "A, B, C, D or E"),
    (["--ppl", "D"], "--text"), (["--ppl", "D", "--text", "x", "--baseline", "y"], "protocol B"),
    (["--task", "piqa"], "NAME=FILE"), (["--baseline", "x", "--text", "y", "--ppl", "A"], "protocol B")])
def test_eval_usage_errors(args, part):
    assert_error(tandem("eval", *args), 2, part)


def test_eval_names_the_bad_line_of_a_task(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"context": "a", "choices": ["b", "c"], "gold": 0}\n{"context": "a"}\n')
    assert_error(tandem("eval", "--task", f"own={path}"), 3, "bad.jsonl", "line 2")


# completion, inspect


def test_bash_completes_verbs_and_options():
    def complete(*words):
        script = (f'source <("{BIN}" completion bash); COMP_WORDS=({" ".join(words)}); '
                  f'COMP_CWORD={len(words) - 1}; _tandem; printf "%s\\n" "${{COMPREPLY[@]}}"')
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()

    assert complete("tandem", "in") == ["inspect", "info"]
    assert complete("tandem", "run", "--temp") == ["--temperature"]
    assert complete("tandem", "chat", "--too") == ["--tools"]
    assert {"--npl", "--no-warmup"} <= set(complete("tandem", "bench", "--n"))


needs_zsh = pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
needs_fish = pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")


@needs_fish
def test_fish_completes_verbs_and_options(tmp_path):
    def complete(line):
        script = f'"{BIN}" completion fish | source; complete -C "{line}"'
        result = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True,
                                env={**os.environ, "HOME": str(tmp_path)})
        return [entry.split("\t")[0] for entry in result.stdout.splitlines()]

    assert complete("tandem in") == ["info", "inspect"]
    assert complete("tandem run --temp") == ["--temperature"]
    assert {"--npl", "--no-warmup"} <= set(complete("tandem bench --n"))


class Screen:
    """What a program writes to a terminal of its own."""

    def __init__(self, args, env=(), wait=120):
        self.parent, child = pty.openpty()
        self.process = subprocess.Popen(args, stdin=child, stdout=child, stderr=child, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
                                        env={**os.environ, "TERM": "xterm", **dict(env)})
        os.close(child)
        self.text, self.wait = "", wait

    def type(self, keys):
        self.text = ""
        os.write(self.parent, keys.encode())

    def until(self, part):
        end = time.monotonic() + self.wait
        while part not in self.text:
            ready, _, _ = select.select([self.parent], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {part!r} in {self.text!r}"
            try:
                block = os.read(self.parent, 1 << 16)
            except OSError:  # the other side is closed
                block = b""
            assert block, f"no {part!r} in {self.text!r}"
            self.text += block.decode(errors="replace")
        return self.text

    def modes(self):
        return termios.tcgetattr(self.parent)

    def end(self):
        code = self.process.wait(60)
        os.close(self.parent)
        return code


@needs_zsh
def test_zsh_completes_verbs_and_options(tmp_path):
    screen = Screen(["zsh", "-f", "-i"], {"HOME": str(tmp_path), "PS1": "$ "}, wait=30)
    screen.type("autoload -Uz compinit; compinit -D -u; setopt no_beep\n"
                f"alias tandem='{BIN}'; source <('{BIN}' completion zsh); print rea''dy\n")
    screen.until("ready")
    screen.type("tandem insp\t")
    screen.until("tandem inspect")
    screen.type("\x15tandem run --temp\t")
    screen.until("--temperature")
    screen.type("\x15tandem bench --no-w\t")
    screen.until("--no-warmup")
    screen.type("\x15exit\n")
    assert screen.end() == 0


def test_an_unknown_shell_is_a_usage_error():
    assert_error(tandem("completion", "tcsh"), 2, "SHELL: found 'tcsh', expected bash, zsh or fish")


@needs_model
def test_inspect_says_what_fits_here():
    footprint = json.loads(tandem("inspect", MODEL, "--json").stdout)["footprint"]
    needs = {(n["kv"], n["context"]): n for n in footprint["one_sequence"]}
    assert list(needs) == [("bf16", 1024), ("bf16", 8192), ("int8", 1024), ("int8", 8192)]
    cache = needs["bf16", 8192]["bytes"] - footprint["resident_bytes"]
    assert cache == 8192 * footprint["kv_bytes_per_token"]["bf16"]
    assert all(n["fits"] == (n["bytes"] <= footprint["available_memory_bytes"]) for n in needs.values())
    assert "8192 tokens with KV int8" in tandem("inspect", MODEL).stdout


@needs_model
def test_a_cache_that_the_processor_does_not_run_is_refused():
    for kv in ("fp8", "int4"):
        assert_error(tandem("run", MODEL, "-p", "hi", "--kv", kv), 5, f"found {kv}, which ref and cuda run")


# tools

TOOLS = [{"name": "f"}]


def with_template(folder, source):
    """-> a tiny model whose chat template is this."""
    family = pathlib.Path(__file__).resolve().parent.parent / "golden/families/qwen3"
    folder.mkdir()
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]:
        shutil.copy(family / name, folder)
    (folder / "chat_template.jinja").write_text(source)
    return folder


def test_the_template_shows_the_tools(tmp_path):
    model = with_template(tmp_path / "model", "{{ tools | tojson }} {{ messages[-1].content }}")
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps(TOOLS))
    shown = run_json(model, "--chat", "-p", "Sun?", "--tools", tools, "-n", "4")
    same = run_json(model, "-p", json.dumps(TOOLS) + " Sun?", "-n", "4")
    assert shown["tokens"] == same["tokens"] and shown["prompt_tokens"] == same["prompt_tokens"]
    answer = tandem("chat", model, "--tools", tools, "-n", "4", stdin=None, input="Sun?\n")
    assert answer.returncode == 0 and answer.stdout == same["text"] + "\n"


@pytest.mark.parametrize("verb", [["run", "--chat", "-p", "Sun?"], ["chat"]])
def test_a_template_that_ignores_tools_is_told(tmp_path, verb):
    model = with_template(tmp_path / "model", "{{ messages[-1].content }}")
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps(TOOLS))
    assert_error(tandem(*verb, model, "--tools", tools), 2, "--tools", "ignores tools", str(model))


@pytest.mark.parametrize("content, part", [
    ("{", "not valid JSON"), ("{}", "found object, expected an array"), ("[]", "an empty array"),
    ('[{}, "f"]', "tool 2: found string, expected an object"), (None, "No such file")])
def test_tools_that_are_none_exit_3(tmp_path, content, part):
    model = with_template(tmp_path / "model", "{{ tools | tojson }}")
    tools = tmp_path / "tools.json"
    if content is not None:
        tools.write_text(content)
    assert_error(tandem("run", "--chat", "-p", "Sun?", model, "--tools", tools), 3, "tools.json", part)
    assert_error(tandem("chat", model, "--tools", tools), 3, "tools.json", part)


# chat


def chat(lines, *args, new_tokens=12):
    return tandem("chat", "-n", new_tokens, *args, stdin=None, input="".join(line + "\n" for line in lines))


@needs_model
def test_chat_remembers_and_starts_over():
    result = chat(["My name is Ada. Say hello.", "/regen", "/system", "My name is Ada. Say hello."])
    assert result.returncode == 0, result.stderr
    answers = result.stdout.splitlines()
    assert answers[0] and result.stdout.count(answers[0]) == 3, "greedy answers repeat"
    assert "a new conversation\n" in result.stderr
    assert "> " not in result.stderr and "tok/s" not in result.stderr, "neither away from a terminal"


@needs_model
def test_chat_first_answer_is_that_of_run():
    run = tandem("run", "--chat", "--system", "Be brief.", "-p", "What is a lighthouse?", "-n", "12")
    assert chat(["What is a lighthouse?"], "--system", "Be brief.").stdout == run.stdout


@needs_model
def test_chat_saves_and_loads(tmp_path):
    path = tmp_path / "talk.json"
    saved = chat(["Hello", f"/save {path}", "What did I say?"])
    messages = json.loads(path.read_text())["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"] and messages[0]["content"] == "Hello"
    loaded = chat([f"/load {path}", "What did I say?"])
    assert loaded.stdout and saved.stdout.endswith(loaded.stdout)


@needs_model
def test_chat_says_when_the_context_is_full_and_goes_on():
    result = chat(["word " * 200, "Hi"], "--ctx", "100")
    assert result.returncode == 0
    assert "context is full" in result.stderr and "100 fit" in result.stderr and "/clear" in result.stderr
    assert result.stdout.strip(), "the next message is answered"
    assert "ends at token 44" in chat(["Hi"], "--ctx", "44", new_tokens=100).stderr


@needs_model
def test_chat_command_errors_do_not_end_it(tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    result = chat(["/frob", "/regen", "/save", "/load /no/such", f"/load {bad}", "/help", "/quit", "never read"])
    assert result.returncode == 0 and result.stdout == ""
    for part in ["'/frob'", "/clear", "/regen: nothing", "/save: no file", "/no/such", "bad.json", "/load FILE"]:
        assert part in result.stderr


@needs_model
def test_chat_interrupt_stops_the_answer_and_not_the_program():
    with subprocess.Popen([BIN, "chat", "-n", "8000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        process.stdin.write("Count from one to one thousand in words, one a line.\n")
        process.stdin.flush()
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate("Say hi.\n", timeout=100)
    assert process.returncode == 0, err
    assert "\n" in out


@needs_model
def test_chat_on_a_terminal_prompts_and_shows_fill_and_speed():
    screen = Screen([BIN, "chat", "-n", "4"])
    screen.until("> ")
    before = screen.modes()
    screen.type("Hello\n")
    shown = screen.until("tok/s")
    assert "/8192 tokens" in shown and "prompt tokens computed" in shown
    screen.until("> ")
    screen.type("/quit\n")
    assert screen.modes() == before, "the terminal is left as it was"
    assert screen.end() == 0


@needs_model
def test_chat_on_a_terminal_counts_interrupts():
    screen = Screen([BIN, "chat", "-n", "8000"])
    screen.until("> ")
    screen.type("half a message\x03")
    screen.until("Ctrl-C again ends the program")
    screen.type("Write a long story about a lighthouse.\n")
    screen.until("lighthouse.\r\n")
    screen.text = ""
    screen.until(" the ")
    screen.type("\x03")
    screen.until("stopped]")
    screen.until("> ")
    screen.type("\x03")
    screen.until("Ctrl-C again")
    screen.type("\x03")
    assert screen.end() == 130


@needs_model
def test_chat_ends_with_its_input():
    screen = Screen([BIN, "chat"])
    screen.until("> ")
    screen.type("\x04")
    assert screen.end() == 0
    assert tandem("chat").returncode == 0


@needs_model
def test_chat_says_when_the_terminal_cuts_a_line():
    screen = Screen([BIN, "chat", "-n", "4"])
    screen.until("> ")
    screen.type("x" * 4200 + "\n")
    screen.until("the message is not sent")
    screen.until("> ")
    screen.type("\x04")
    assert screen.end() == 0


@needs_model
def test_chat_computes_only_what_is_new_of_a_turn():
    lines = ["My name is Ada. Say hello.", "What is my name?", "/regen", "/clear", "My name is Ada. Say hello."]
    result = chat(lines, "--verbose")
    turns = re.findall(r"context (\d+)/8192 tokens \(\d+ %\), (\d+) of (\d+) prompt tokens computed", result.stderr)
    (_, computed, prompt), (_, computed2, prompt2), (_, computed3, prompt3), (_, computed4, prompt4) = \
        [tuple(map(int, turn)) for turn in turns]
    assert computed == prompt
    assert 0 < computed2 < prompt2 - prompt, "the first turn and its answer are in the cache"
    assert (computed3, prompt3) == (1, prompt2)
    assert prompt4 == prompt and 0 < computed4 < prompt, "the template's opening is still there"


@needs_model
def test_chat_continues_with_the_answers_of_a_fresh_cache(tmp_path):
    path = tmp_path / "talk.json"
    continued = chat(["My name is Ada. Say hello.", f"/save {path}", "What is my name?"]).stdout
    fresh = chat([f"/load {path}", "What is my name?"]).stdout
    assert continued.endswith(fresh) and len(continued) > len(fresh) > 1


@needs_model
def test_chat_takes_messages_of_several_lines(tmp_path):
    path = tmp_path / "talk.json"
    chat(['"""', "/one", "", "two", '"""', "three\\", "four", f"/save {path}"], new_tokens=2)
    messages = json.loads(path.read_text())["messages"]
    assert [m["content"] for m in messages if m["role"] == "user"] == ["/one\n\ntwo", "three\nfour"]


@needs_model
def test_chat_refuses_a_message_that_is_too_long():
    result = chat(["x" * (1 << 20) + "y", "Hi"], new_tokens=2)
    assert result.returncode == 0 and "more than 1048576 bytes is not sent" in result.stderr
    assert result.stdout.strip()


def test_chat_without_the_model_or_with_bad_flags():
    assert_error(tandem("chat", "/no/such.gguf"), 3, "/no/such.gguf")
    assert_error(tandem("chat", "--temperature", "-1"), 2, "temperature")
