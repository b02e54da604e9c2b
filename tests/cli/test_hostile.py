"""What users, shells and full disks can do to the program. The names are those of docs/bad-input.md."""

import fcntl
import json
import os
import pty
import resource
import signal
import struct
import subprocess
import termios
import time

import pytest

from test_cli import BIN, MODEL, assert_error, needs_model, tandem

pytestmark = pytest.mark.skipif(not BIN, reason="TANDEM_BIN is not set")

# Text that is no JSON document of the kind that is wanted, whatever the kind.
BAD_JSON = [b"{", b"[]", b"null", b"7", b'"text"', b"{}", b"\xff\xfe{}", b"\xef\xbb\xbf", b'{"a":1,"a":2}',
            b'{"a":1e999}', b'{"a":"\xff"}', b'{"a":"\\ud800"}', b"[" * 100_000, b'{"a":' * 100_000,
            b'{"messages":7}', b'{"messages":[7]}', b'{"messages":[{"role":1,"content":2}]}',
            b'{"context":"a","choices":7,"gold":0}', b'{"context":"a","choices":["b"],"gold":9}', b"\x00" * 1000]


# cli/flags


@pytest.mark.parametrize("number", ["1e3", "4k", "5 ", "", "1_000", "1,000", "5.0", "-1", "9223372036854775808",
                                    "\u0663", "nan", "0"])
def test_counts_are_whole_decimal_numbers(number):
    assert_error(tandem("run", "/no/such", "-p", "hi", "-n", number), 2, "--max-tokens")


@pytest.mark.parametrize("locale", ["de_DE.UTF-8", "fr_FR.UTF-8", "tr_TR.UTF-8", "C", ""])
def test_numbers_are_the_same_in_every_locale(locale):
    environment = {**os.environ, "LC_ALL": locale, "LANG": locale}
    result = tandem("run", "/no/such", "-p", "hi", "--temperature", "0.5", env=environment)
    assert_error(result, 3, "/no/such")
    assert_error(tandem("run", "/no/such", "-p", "hi", "--temperature", "0,5", env=environment), 2, "temperature")


@pytest.mark.parametrize("args", [["run", "-p"], ["run", "--prompt"], ["compress", "m", "--recipe"], ["bench", "-m"],
                                  ["chat", "--seed"], ["run", "-p", "x", "--seed", "1", "--seed", "2"],
                                  ["run", "-p", "x", "--json=maybe"], ["run", "--", "-p"], ["--"], ["-"], ["run", "-p=x", "-"],
                                  ["run", "x" * 100_000, "y" * 100_000, "-p", "z"], ["--" + "z" * 100_000]])
def test_flags_that_make_no_sense_are_usage_errors(args):
    result = tandem(*args)
    assert result.returncode in (2, 3) and result.stdout == ""
    assert result.stderr.startswith("tandem: error: ") and result.stderr.count("\n") == 1


# cli/config: the program reads no configuration file; the JSON that it does read is checked


def test_there_is_no_configuration_file():
    assert_error(tandem("run", "--config", "/etc/passwd", "-p", "hi"), 2, "unknown option '--config'")


@pytest.mark.parametrize("content", BAD_JSON, ids=range(len(BAD_JSON)))
def test_bad_records_and_tasks_name_the_line(tmp_path, content):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content + b"\n")
    assert_error(tandem("report", path, "-o", tmp_path / "report.html"), 3, "bad.jsonl", "line 1")
    assert not (tmp_path / "report.html").exists()
    assert_error(tandem("eval", "--task", f"own={path}"), 3, "bad.jsonl", "line 1")


@needs_model
def test_bad_conversations_do_not_end_a_chat(tmp_path):
    lines = []
    for number, content in enumerate(BAD_JSON):
        path = tmp_path / f"{number}.json"
        path.write_bytes(content)
        lines.append(f"/load {path}\n")
    result = tandem("chat", stdin=None, input="".join(lines))
    assert result.returncode == 0 and result.stdout == ""
    for number in range(len(BAD_JSON)):
        assert f"{number}.json" in result.stderr


# cli/output: the old file or the new one, never a part


def limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


@needs_model
def test_a_full_disk_leaves_no_half_folder(tmp_path):
    out = tmp_path / "out"
    result = tandem("compress", MODEL, "--recipe", "int4", "-o", out, preexec_fn=limit_file_size)
    assert_error(result, 1, "cannot write")
    assert list(tmp_path.iterdir()) == []


@needs_model
@pytest.mark.parametrize("occupied", ["file", "folder", "missing parent", "file for a parent"])
def test_an_output_that_cannot_be_is_refused_at_once(tmp_path, occupied):
    out = tmp_path / "out"
    if occupied == "file":
        out.write_text("mine")
    elif occupied == "folder":
        out.mkdir()
        (out / "mine").write_text("mine")
    elif occupied == "missing parent":
        out = tmp_path / "no" / "out"
    else:
        out.write_text("mine")
        out = out / "out"
    before = sorted(tmp_path.rglob("*"))
    result = tandem("compress", MODEL, "--recipe", "int4", "-o", out)
    assert result.returncode in (1, 2), result.stderr
    assert result.stderr.startswith("tandem: error: ") and str(out.parent) in result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    if out.exists() and out.is_file():
        assert out.read_text() == "mine"


@needs_model
def test_a_kill_leaves_no_half_folder_under_the_name(tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen([BIN, "compress", MODEL, "--recipe", "bf16", "-o", out], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and not list(tmp_path.rglob("*.safetensors*")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
    assert not out.exists() or (out / "config.json").exists()


def test_an_old_report_survives_a_full_disk(tmp_path):
    report, records = tmp_path / "report.html", tmp_path / "records.jsonl"
    records.write_text("")
    report.write_text("old")

    def limit():
        limit_file_size()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    assert_error(tandem("report", records, "-o", report, preexec_fn=limit), 1, "cannot write")
    assert report.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["records.jsonl", "report.html"]


# cli/terminal


def on_terminal(args, lines, columns, term):
    """(exit code, standard output, what the terminal showed), with the terminal resized on the way."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 1, columns, 0, 0))
    with subprocess.Popen([BIN, *args], stdin=child, stdout=subprocess.PIPE, stderr=child,
                          env={**os.environ, "TERM": term}) as process:
        os.close(child)
        os.write(parent, lines)
        for size in (200, 1, 0, 65535):
            fcntl.ioctl(parent, termios.TIOCSWINSZ, struct.pack("HHHH", 24, size, 0, 0))
            process.send_signal(signal.SIGWINCH)
        answer = process.stdout.read()
        code = process.wait(60)
        shown = b""
        try:
            while chunk := os.read(parent, 1 << 16):
                shown += chunk
        except OSError:
            pass
    os.close(parent)
    return code, answer, shown


@needs_model
@pytest.mark.parametrize("columns, term", [(1, "xterm"), (0, "xterm"), (80, "dumb"), (80, ""), (65535, "xterm")])
def test_odd_terminals(columns, term):
    code, answer, shown = on_terminal(["chat", "-n", "4"], b"Hello\n/quit\n", columns, term)
    assert code == 0 and answer.strip()
    if term == "dumb":
        assert b"\x1b" not in shown and b"\r\x1b" not in shown


@needs_model
@pytest.mark.parametrize("stdin", ["<&-", "</dev/null"])
def test_no_standard_input_is_no_conversation(stdin):
    result = subprocess.run(["sh", "-c", f'"$0" chat {stdin}', BIN], capture_output=True, text=True, timeout=120,
                            check=False)
    assert result.returncode in (0, 1) and result.stdout == ""
    assert "\x1b" not in result.stderr


@needs_model
def test_nothing_but_data_when_no_terminal_is_there():
    result = tandem("run", "-p", "The capital of France is", "-n", "4", "--json")
    assert result.returncode == 0 and result.stderr == ""
    assert json.loads(result.stdout)["finish_reason"] == "max_tokens"
