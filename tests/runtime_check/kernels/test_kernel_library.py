"""The library as a file, its registration, and releases of onnxruntime it does not know."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from kernel_files import known_minors, network, sparse
from onnx import helper

from runtime_check import CheckError, bench, kernels, load
from runtime_check.kernels import library, provider
from runtime_check.tables import bench_text


def write(path: Path) -> Path:
    weight = sparse(np.random.default_rng(2), 400, 600, density=0.05)
    path.write_bytes(network([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, {"x": ["n", 400]}))
    return path


def test_load_hands_sparse_layers_over_and_tells(tmp_path: Path) -> None:
    session = load(write(tmp_path / "m.onnx"), threads=1)
    assert session.get_providers() == [kernels.get_ep_name(), "CPUExecutionProvider"]
    (layer,) = kernels.layers(session)
    assert layer.claimed
    assert layer.operator == "MatMul"
    plain = load(tmp_path / "m.onnx", threads=1, kernels=False)
    assert plain.get_providers() == ["CPUExecutionProvider"]
    assert kernels.layers(plain) == ()


def test_bench_of_one_file_shows_what_the_kernels_bring(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    document = bench([path], seconds=0.05)
    stock, ours = document["models"]
    assert stock["file"] == f"{path} (stock onnxruntime)"
    assert (ours["file"], ours["kernels"]["claimed"], stock["kernels"]["claimed"]) == (str(path), 1, 0)
    assert stock["speedup"] is None
    assert ours["speedup"] is not None
    assert len(bench([path], seconds=0.05, kernels=False)["models"]) == 1
    assert len(bench([path, path], seconds=0.05)["models"]) == 2
    assert "sparse kernels run 1 of 1 layers" in bench_text(document)


def test_reasons_that_are_not_listed_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    document = bench([path], seconds=0.05)
    layers = [{"reason": reason} for reason in "aaabbbccde"]
    document["models"][1]["kernels"] = {"claimed": 0, "layers": layers}
    assert "run 0 of 10 layers (3 a; 3 b; 2 c; 2 for other reasons)" in bench_text(document)


def test_two_lines_of_ones_own_are_enough(tmp_path: Path) -> None:
    """The module's own example, in a process of its own."""
    write(tmp_path / "model.onnx")
    doc = kernels.__doc__ or ""
    lines = [line[4:] for line in doc.splitlines() if line.startswith("    ")]
    code = "\n".join([*lines, "print(session.get_providers())"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert kernels.get_ep_name() in done.stdout


@pytest.mark.parametrize("before", ["load('model.onnx')", ""])
@pytest.mark.parametrize("after", ["", "onnxruntime.unregister_execution_provider_library('sparse')"])
def test_ones_own_registration_and_load_do_not_disturb_each_other(tmp_path: Path, before: str, after: str) -> None:
    write(tmp_path / "model.onnx")
    lines = [line[4:] for line in (kernels.__doc__ or "").splitlines() if line.startswith("    ")]
    last = "print(load('model.onnx').get_providers()[0], kernels.status().available)"
    code = "\n".join(["from runtime_check import load", before, *lines, "del session, devices, options", after, last])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [kernels.get_ep_name(), "True"]


@pytest.mark.parametrize("name", ["a\u2028b", "a\x85b", "a\nb", "a\tb", "a\rb", ""])
def test_any_name_of_a_node_can_be_reported(tmp_path: Path, name: str) -> None:
    weight = sparse(np.random.default_rng(2), 400, 600, density=0.05)
    content = network([helper.make_node("MatMul", ["x", "w"], ["y"], name=name)], {"w": weight}, {"x": ["n", 400]})
    (tmp_path / "m.onnx").write_bytes(content)
    (layer,) = kernels.layers(load(tmp_path / "m.onnx", threads=1))
    assert layer.claimed


def test_only_the_entry_points_are_visible() -> None:
    done = subprocess.run(["nm", "-D", "--defined-only", kernels.get_library_path()], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("nm is missing")
    names = {line.split()[-1] for line in done.stdout.splitlines()}
    assert names == {"CreateEpFactories", "ReleaseEpFactory", "SparseKernelsInstructions", "SparseKernelsReport"}


def test_a_library_that_was_not_built_is_said_and_everything_still_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(library, "_FOLDER", tmp_path)
    with pytest.raises(CheckError, match="install a C compiler"):
        kernels.get_library_path()
    monkeypatch.setattr(provider, "_devices", list)
    assert "were not built" in str(kernels.status())
    session = load(write(tmp_path / "m.onnx"))
    assert session.get_providers() == ["CPUExecutionProvider"]
    session.run(None, {"x": np.zeros((1, 400), np.float32)})
    text = bench_text(bench([tmp_path / "m.onnx"], seconds=0.05))
    assert "no layer was offered to sparse kernels (not available: the sparse kernels were not built" in text


def test_a_library_that_onnxruntime_refuses_is_said(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / f"sparse_kernels{EXTENSION_SUFFIXES[0]}").write_bytes(b"not a library")
    monkeypatch.setattr(library, "_FOLDER", tmp_path)
    monkeypatch.setattr(provider, "_devices", list)
    status = kernels.status()
    assert not status.available
    assert status.reason
    assert "\n" not in status.reason


@pytest.mark.parametrize("version", ["1.22.3", "1.999.0", "2.0.0", "", "nonsense"])
def test_unknown_releases_of_onnxruntime_are_refused_by_name(version: str) -> None:
    """The entry point with a runtime that has nothing but its version and the means to make an error."""
    pointer = ctypes.c_void_p
    messages: list[str] = []

    @ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p)
    def create_status(_code, message):
        messages.append(message.decode())
        return 1

    table = (pointer * 1)(ctypes.cast(create_status, pointer))

    @ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_uint32)
    def get_api(number):
        return ctypes.addressof(table) if number == 1 else 0

    text = ctypes.create_string_buffer(version.encode())

    @ctypes.CFUNCTYPE(ctypes.c_size_t)
    def get_version():
        return ctypes.addressof(text)

    base = (pointer * 2)(ctypes.cast(get_api, pointer), ctypes.cast(get_version, pointer))
    create = provider.library().CreateEpFactories
    create.restype = pointer
    factories, count = (pointer * 4)(), ctypes.c_size_t(9)
    assert create(b"name", base, None, factories, ctypes.c_size_t(4), ctypes.byref(count)) == 1
    assert count.value == 0
    assert "know onnxruntime 1.23 to 1." in messages[0]
    assert version in messages[0]


def test_this_release_is_known() -> None:
    assert kernels.status().available, f"onnxruntime {ort.__version__}: {kernels.status()}"


def test_the_package_asks_for_no_release_that_is_unknown() -> None:
    """Otherwise a fresh install takes a newer onnxruntime, and every layer runs at dense speed."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    (asked,) = (text for text in project["project"]["dependencies"] if text.startswith("onnxruntime>"))
    oldest, newest = known_minors()
    assert asked == f"onnxruntime>=1.{oldest},<1.{newest + 1}"
