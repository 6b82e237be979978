"""Every release of onnxruntime that the library says it knows: downloaded, and run in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_files import known_minors, network, sparse
from onnx import helper

SCRIPT = """
import sys
import numpy as np
import onnxruntime as ort
from runtime_check import kernels, load
path, minor = sys.argv[1:]
assert ort.__version__.startswith(minor + "."), ort.__version__
ours, stock = load(path, threads=2), load(path, threads=2, kernels=False)
assert [layer.claimed for layer in kernels.layers(ours)] == [True], kernels.status()
for batch in (1, 3):
    x = np.random.default_rng(batch).standard_normal((batch, 16, 24, 24)).astype(np.float32)
    np.testing.assert_allclose(ours.run(None, {"x": x})[0], stock.run(None, {"x": x})[0], rtol=0, atol=1e-5)
"""


OLDEST, NEWEST = known_minors()


def install(minor: int, target: Path) -> bool:
    """Whether a wheel of that release is to be had for this Python; it then lies in `target`."""
    wheel = f"onnxruntime==1.{minor}.*"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), wheel]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("minor", range(OLDEST, NEWEST + 1))
def test_every_known_release(minor: int, tmp_path: Path) -> None:
    target = tmp_path / "packages"
    if not install(minor, target):
        pytest.skip(f"no wheel of onnxruntime 1.{minor} can be had here")
    weight = sparse(np.random.default_rng(1), 32, 16, 3, 3)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    path = tmp_path / "model.onnx"
    path.write_bytes(network(nodes, {"w": weight}, {"x": ["n", 16, 24, 24]}))
    code = f"import sys; sys.path.insert(0, {str(target)!r})\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", code, path, f"1.{minor}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_no_newer_release_is_out(tmp_path: Path) -> None:
    """One that is should be tried and become known: ORT_NEWEST_MINOR in ort_abi.h, the cap in pyproject.toml."""
    assert not install(NEWEST + 1, tmp_path / "packages"), f"onnxruntime 1.{NEWEST + 1} is out"


@pytest.mark.slow
def test_ten_thousand_sessions_leave_nothing_behind(tmp_path: Path) -> None:
    weight = sparse(np.random.default_rng(1), 32, 16, 3, 3)
    path = tmp_path / "model.onnx"
    path.write_bytes(network([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight}, {"x": ["n", 16, 24, 24]}))
    code = """
import resource, sys
import numpy as np
from runtime_check import kernels, load
x = np.zeros((1, 16, 24, 24), np.float32)
assert all(layer.claimed for layer in kernels.layers(load(sys.argv[1], threads=1)))
for i in range(10000):
    load(sys.argv[1], threads=1).run(None, {"x": x})
    if i == 1000:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 10_000  # kilobytes: one leaked kilobyte a session would be 9,000
