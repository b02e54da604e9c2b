"""What --device says where there is no GPU to be used: one line, exit code 5, nothing hangs.

Runs the binary named by TANDEM_BIN with drivers made for the test. A build without CUDA kernels says
that it has none, whatever the driver.
"""
import os
import pathlib
import subprocess

import pytest

BIN = os.environ.get("TANDEM_BIN", "")
HERE = pathlib.Path(__file__).parent
XDG_CACHE = os.environ.get("XDG_CACHE_HOME", "")
CACHE = pathlib.Path(XDG_CACHE) if XDG_CACHE.startswith("/") else pathlib.Path.home() / ".cache"
MODEL = CACHE / "tandem" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
pytestmark = pytest.mark.skipif(not BIN, reason="TANDEM_BIN names no binary")

VERBS = [["info"], ["bench", "-p", "0", "-n", "1", "--energy"], ["study", "--text", __file__], ["run", "-p", "hi"],
         ["eval", "--text", __file__]]


def refusal(arguments, libraries):
    """The one line on standard error, after exit code 5."""
    result = subprocess.run([BIN, *arguments], env=dict(os.environ, LD_LIBRARY_PATH=str(libraries)), text=True,
                            capture_output=True, timeout=60, check=False)
    assert result.returncode == 5, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("tandem: error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def has_cuda(tmp_path):
    return "no CUDA kernels" not in refusal(["info", "--device", "cuda"], with_driver(tmp_path, 13000, 100))


def with_driver(folder, version, status):
    """A folder whose libcuda.so.1 is of this version and answers cuInit with this status."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["cc", "-shared", "-fPIC", f"-DVERSION={version}", f"-DSTATUS={status}", HERE / "fake_cuda.c",
                    "-o", folder / "libcuda.so.1", "-ldl"], check=True)
    return folder


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_driver_for_an_older_cuda_is_refused_with_both_versions(verb, tmp_path):
    if verb != ["info"] and not MODEL.exists():
        pytest.skip(f"the default model is not at {MODEL}")
    if not has_cuda(tmp_path / "any"):
        pytest.skip("a build without CUDA kernels")
    line = refusal([*verb, "--device", "cuda"], with_driver(tmp_path / "old", 12040, 0))
    assert "runs CUDA 12.4; expected 13." in line


def test_a_driver_without_a_gpu_says_so(tmp_path):
    if not has_cuda(tmp_path / "any"):
        pytest.skip("a build without CUDA kernels")
    line = refusal(["info", "--device", "cuda:1"], with_driver(tmp_path / "none", 13000, 100))
    assert "no NVIDIA GPU can be used: " in line


def test_no_driver_is_named_as_what_is_missing(tmp_path):
    if not has_cuda(tmp_path / "any"):
        pytest.skip("a build without CUDA kernels")
    if pathlib.Path("/dev/nvidiactl").exists():
        pytest.skip("a machine with a driver")
    assert "libcuda.so.1, the driver, is not found" in refusal(["info", "--device", "cuda"], tmp_path)


@pytest.mark.parametrize("recipe", ["int8", "gptq"])
def test_compress_wants_the_driver_before_it_reads(recipe, tmp_path):
    if not has_cuda(tmp_path / "any"):
        pytest.skip("a build without CUDA kernels")
    driver = with_driver(tmp_path / "none", 13000, 100)
    line = refusal(["compress", "no-model", "--recipe", recipe, "-o", tmp_path / "out", "--device", "cuda"], driver)
    assert "no NVIDIA GPU can be used: " in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", [["info"], ["run", "-p", "hi"], ["bench"], ["study"]], ids=lambda verb: verb[0])
@pytest.mark.parametrize("options", [["--arch-cap", "sm_60"], ["--arch-cap", "sm_90a"]], ids=lambda options: options[1])
def test_a_cap_that_is_no_older_generation_is_refused(verb, options):
    result = subprocess.run([BIN, *verb, "--device", "cuda", *options], text=True, capture_output=True, timeout=60,
                            check=False)
    assert result.returncode == 2, result.stderr
    assert "expected sm_75, sm_80 or sm_89" in result.stderr and result.stderr.count("\n") == 1


def test_a_cap_wants_a_device():
    result = subprocess.run([BIN, "run", "-p", "hi", "--arch-cap", "sm_80"], text=True, capture_output=True,
                            timeout=60, check=False)
    assert result.returncode == 2, result.stderr
    assert "--device" in result.stderr and result.stderr.count("\n") == 1


def test_a_cap_reaches_the_device(tmp_path):
    if not has_cuda(tmp_path / "any"):
        pytest.skip("a build without CUDA kernels")
    driver = with_driver(tmp_path / "none", 13000, 100)
    assert "no NVIDIA GPU can be used" in refusal(["info", "--device", "cuda", "--arch-cap", "sm_80"], driver)
    result = subprocess.run([BIN, "info", "--device", "cuda@sm_60"], text=True, capture_output=True, timeout=60,
                            check=False)
    assert result.returncode == 2, result.stderr
    assert "device 'cuda@sm_60': found 'sm_60', expected sm_75, sm_80 or sm_89" in result.stderr


@pytest.mark.parametrize("name", ["gpu", "cuda0", "cuda:", "cuda:x", "cuda:-1"])
def test_other_names_of_devices_are_refused(name):
    result = subprocess.run([BIN, "info", "--device", name], text=True, capture_output=True, timeout=60, check=False)
    assert result.returncode == 2, result.stderr
    assert "expected cuda or cuda:N" in result.stderr and result.stderr.count("\n") == 1
