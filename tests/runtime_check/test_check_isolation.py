"""The check runs on a device: without torch, without onnx, without anything of this project's other rooms."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import runtime_check

BLOCKER = """
import importlib.abc, sys

BLOCKED = {"torch", "torchvision", "onnx", "onnxscript", "scipy", "matplotlib", "PIL", "yaml", "sklearn",
           "compress", "exporters", "compress_then_export"}

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
        return None

sys.meta_path.insert(0, Blocker())
for name in ("torch", "onnx"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} can be imported: the blocker does not block")
from runtime_check.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_runs_where_torch_and_onnx_cannot_be_imported(command, make_bundle, tmp_path):
    folder = make_bundle()
    targets = [folder, "--html", tmp_path / "r.html"] if command == "verify" else [folder / "model.onnx"]
    args = [command, *map(str, targets), "--seconds", "0.02", "--json"]
    done = subprocess.run([sys.executable, "-c", BLOCKER, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == 1
    assert "Traceback" not in done.stderr


def test_the_module_runs_as_a_command(make_bundle):
    args = [sys.executable, "-m", "runtime_check", "verify", str(make_bundle()), "--seconds", "0.02"]
    args += ["--min-speedup", "1000"]
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "measuring with 1 thread" in done.stderr
    assert "not good" in done.stdout


def test_public_names_are_there_and_others_are_not():
    for name in runtime_check.__all__:
        assert callable(getattr(runtime_check, name))
        assert name in dir(runtime_check)
    from runtime_check.verification import verify

    assert runtime_check.verify is verify
    with pytest.raises(AttributeError, match="nonsense"):
        _ = runtime_check.nonsense
