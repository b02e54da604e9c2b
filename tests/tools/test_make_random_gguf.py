"""The random model files are what the reader expects: same bytes for a seed, whole, finite."""
import json
import pathlib
import struct
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "make_random_gguf.py"
SHAPE = {"name": "tiny", "num_layers": 2, "width": 64, "num_heads": 4, "num_kv_heads": 2,
         "head_dim": 16, "ffn_width": 96, "vocab_size": 300, "max_context": 128,
         "rope_theta": 10000.0, "rms_eps": 1e-5, "tied_embedding": False}
MATRIX_ELEMENTS = 2 * 300 * 64 + 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64)
NORM_BYTES = 5 * 64 * 4


def make(tmp_path, kind, *flags, shape=None, name="out.gguf"):
    (tmp_path / "tiny.json").write_text(json.dumps(shape or SHAPE))
    out = tmp_path / name
    done = subprocess.run([sys.executable, TOOL, tmp_path / "tiny.json", kind, out, *flags],
                          capture_output=True, text=True, check=False)
    return out, done


@pytest.mark.parametrize("kind, block, block_bytes", [
    ("F32", 1, 4), ("F16", 1, 2), ("BF16", 1, 2), ("Q4_1", 32, 20), ("Q8_0", 32, 34),
    ("Q4_0", 32, 18), ("Q5_0", 32, 22), ("Q5_1", 32, 24), ("IQ4_NL", 32, 18)])
def test_size_is_header_and_every_tensor(tmp_path, kind, block, block_bytes):
    out, done = make(tmp_path, kind)
    assert done.returncode == 0, done.stderr
    raw = out.read_bytes()
    magic, version, tensors, _ = struct.unpack_from("<4sIQQ", raw)
    assert (magic, version, tensors) == (b"GGUF", 3, 3 + 2 * 9)
    data_bytes = MATRIX_ELEMENTS // block * block_bytes + NORM_BYTES
    # the last norm is followed by output.weight; everything here is a multiple of the alignment
    header_bytes = len(raw) - data_bytes
    assert 0 < header_bytes < 20000 and header_bytes % 32 == 0


def test_a_seed_gives_the_same_bytes(tmp_path):
    first, second, other = (make(tmp_path, "Q4_1", "--seed", seed, name=name)[0].read_bytes()
                            for seed, name in (("1", "a"), ("1", "b"), ("2", "c")))
    assert first == second
    assert first != other


def test_half_precision_weights_are_finite_and_bounded(tmp_path):
    raw = make(tmp_path, "F16")[0].read_bytes()
    bound = 64 ** -0.5
    embedding_bytes = 300 * 64 * 2
    begin = len(raw) - MATRIX_ELEMENTS * 2 - NORM_BYTES
    values = struct.unpack_from(f"<{embedding_bytes // 2}e", raw, begin)
    assert max(map(abs, values)) <= bound * 1.001
    assert len(set(values)) > 1000


def test_a_width_that_blocks_do_not_divide_is_refused(tmp_path):
    out, done = make(tmp_path, "Q8_0", shape=dict(SHAPE, ffn_width=100))
    assert done.returncode != 0
    assert "rows of 100 elements, Q8_0 needs a multiple of 32" in done.stderr
    assert list(tmp_path.glob("out.gguf*")) == [] and not out.exists()


def test_an_unknown_shape_lists_the_known(tmp_path):
    done = subprocess.run([sys.executable, TOOL, "Llama-9", "F16", tmp_path / "x"],
                          capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "Llama-3.2-1B" in done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "data" / "models").glob("*.json")), ids=lambda p: p.stem)
def test_shapes_are_consistent(path):
    shape = json.loads(path.read_text())
    assert shape["name"] == path.stem and shape["source"]
    assert shape["num_heads"] % shape["num_kv_heads"] == 0
    assert shape["head_dim"] % 2 == 0 and shape["width"] % 32 == 0 and shape["ffn_width"] % 32 == 0
