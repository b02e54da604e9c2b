"""tools/setup.sh with doubles of the system's commands: what it asks for, and what it says when it cannot."""
import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
TOOLS = ("sh dirname basename mkdir mktemp sha256sum sort tr gzip rm mv ls env cat echo").split()


def double(folder, name, body):
    path = folder / name
    path.write_text("#!/bin/sh\n" + body + "\n")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
    """A PATH with only what the script may need, and every other command a double."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in TOOLS:
        (programs / tool).symlink_to(shutil.which(tool, path="/usr/bin:/bin"))
    double(programs, "dpkg-query", "printf installed")
    double(programs, "id", "echo 0")
    double(programs, "apt-get", f'echo "$@" >> {tmp_path}/apt-get.log')
    (tmp_path / "cache").mkdir()
    return tmp_path


def run_setup(machine, *parts, **environment):
    return subprocess.run(
        ["/bin/sh", ROOT / "tools" / "setup.sh", *parts], capture_output=True, text=True, check=False,
        env={"PATH": str(machine / "bin"), "HOME": str(machine), "XDG_CACHE_HOME": str(machine / "cache"),
             "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_FIND_LINKS": "",
             "PIP_NO_CACHE_DIR": "1", **environment})


def test_nothing_is_done_when_everything_is_installed(machine):
    done = run_setup(machine, "build", "test")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (machine / "apt-get.log").exists()


def test_only_missing_packages_are_installed(machine):
    double(machine / "bin", "dpkg-query", 'case $3 in ninja-build|pkg-config) exit 1;; esac; printf installed')
    assert run_setup(machine, "build").returncode == 0
    update, install = (machine / "apt-get.log").read_text().splitlines()
    assert update == "update -q"
    assert install.endswith(" ninja-build pkg-config")


def test_a_removed_package_whose_settings_stay_is_missing(machine):
    double(machine / "bin", "dpkg-query", "printf config-files")
    run_setup(machine, "build")
    assert "g++" in (machine / "apt-get.log").read_text()


def test_without_root_and_sudo_one_message_names_the_command(machine):
    double(machine / "bin", "dpkg-query", "exit 1")
    double(machine / "bin", "id", "echo 1000")
    done = run_setup(machine, "build")
    assert done.returncode != 0
    assert "apt-get install --no-install-recommends cmake g++" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (machine / "apt-get.log").exists()


def test_with_sudo_the_commands_go_through_it(machine):
    double(machine / "bin", "dpkg-query", "exit 1")
    double(machine / "bin", "id", "echo 1000")
    double(machine / "bin", "sudo", f'echo "$@" >> {machine}/sudo.log; exec "$@"')
    assert run_setup(machine, "build").returncode == 0
    assert (machine / "sudo.log").read_text().startswith("apt-get update")


def test_apt_that_fails_is_told_in_the_last_line(machine):
    double(machine / "bin", "dpkg-query", "exit 1")
    double(machine / "bin", "apt-get", "echo no network >&2; exit 100")
    done = run_setup(machine, "build")
    assert done.returncode != 0
    assert "apt-get failed" in done.stderr.splitlines()[-1]


def test_without_network_the_message_names_the_way_out_and_nothing_is_left(machine):
    done = run_setup(machine, "model")
    assert done.returncode != 0
    assert "make study MODEL=PATH" in done.stderr
    assert list((machine / "cache" / "tandem" / "models").iterdir()) == []


def test_a_damaged_model_is_not_taken_for_the_model(machine):
    models = machine / "cache" / "tandem" / "models"
    models.mkdir(parents=True)
    (models / MODEL).write_bytes(b"GGUF, but not that one")
    assert run_setup(machine, "model").returncode != 0


def test_the_text_is_unpacked_and_checked(machine):
    if not os.path.exists("/usr/share/developers-reference/developers-reference.txt.gz"):
        pytest.skip("developers-reference is not installed")
    assert run_setup(machine, "text").returncode == 0
    texts = machine / "cache" / "tandem" / "texts"
    assert [path.name for path in texts.iterdir()] == ["developers-reference.txt"]


def test_an_unknown_part_is_refused(machine):
    done = run_setup(machine, "everything")
    assert done.returncode != 0 and "expected build, test, oracles, fuzz, model, text or calibration" in done.stderr
