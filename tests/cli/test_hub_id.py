"""A model by its hub id: found in a made cache, absent, and links that leave it."""

import os
import pathlib
import shutil
import subprocess

import pytest

BIN = os.environ.get("TANDEM_BIN", "")
FAMILIES = pathlib.Path(__file__).resolve().parent.parent / "golden/families"

pytestmark = pytest.mark.skipif(not BIN, reason="TANDEM_BIN is not set")


def inspect(model, cache):
    environment = {**os.environ, "HF_HUB_CACHE": str(cache)}
    return subprocess.run([BIN, "inspect", model], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, env=environment)


def add_model(cache, family="qwen2", org="org", name="tiny", revision="abc123"):
    """-> the snapshot of a model as huggingface_hub lays it out: links into blobs."""
    root = cache / f"models--{org}--{name}"
    snapshot = root / "snapshots" / revision
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    snapshot.mkdir(parents=True)
    (root / "refs/main").write_text(revision)
    for file in (FAMILIES / family).iterdir():
        if file.suffix == ".gguf" or file.name == "logits.safetensors":
            continue
        shutil.copy(file, root / "blobs" / f"blob-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/blob-{file.name}")
    return snapshot


def assert_refused(result, code, *parts):
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith("tandem: error: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr


@pytest.mark.parametrize("family", ["qwen2", "qwen2_sharded"])
def test_an_id_in_the_cache_is_its_snapshot(tmp_path, family):
    snapshot = add_model(tmp_path, family)
    result = inspect("org/tiny", tmp_path)
    assert result.returncode == 0, result.stderr
    assert str(snapshot) in result.stdout
    assert "Hugging Face folder" in result.stdout


def test_main_is_taken_among_several_revisions(tmp_path):
    snapshot = add_model(tmp_path)
    (snapshot.parent / "older").mkdir()
    assert str(snapshot) in inspect("org/tiny", tmp_path).stdout


def test_an_absent_id_is_named_with_the_command_that_fetches_it(tmp_path):
    add_model(tmp_path)
    for model in ("org/other", "other/tiny"):
        assert_refused(inspect(model, tmp_path), 2, f"hf download {model}", str(tmp_path))


def test_a_path_comes_before_an_id(tmp_path):
    add_model(tmp_path)
    folder = tmp_path / "org" / "tiny"
    folder.parent.mkdir()
    shutil.copytree(FAMILIES / "llama", folder)
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path)}
    result = subprocess.run([BIN, "inspect", "org/tiny"], cwd=tmp_path, env=environment, timeout=60,
                            capture_output=True, text=True)
    assert "  model       llama " in result.stdout


@pytest.mark.parametrize("name", ["../tiny", "org/../tiny", "org/tiny/more", "/org"])
def test_what_is_no_id_never_reaches_the_cache(tmp_path, name):
    add_model(tmp_path)
    assert_refused(inspect(name, tmp_path / "models--org--tiny"), 3, "No such file")


@pytest.mark.parametrize("target", ["../../../outside", "../../../models--org--victim/blobs/weights"])
def test_a_link_out_of_the_models_own_blobs_is_refused(tmp_path, target):
    snapshot = add_model(tmp_path)
    add_model(tmp_path, name="victim")
    weights = snapshot / "model.safetensors"
    elsewhere = snapshot / target
    shutil.copy(weights.resolve(), elsewhere)
    weights.unlink()
    weights.symlink_to(target)
    assert_refused(inspect("org/tiny", tmp_path), 3, "is a link to", "expected a file inside")


def test_a_snapshot_whose_weights_were_not_fetched(tmp_path):
    snapshot = add_model(tmp_path)
    (snapshot / "model.safetensors").resolve().unlink()  # the link dangles
    assert_refused(inspect("org/tiny", tmp_path), 3, "model.safetensors", "No such file")
