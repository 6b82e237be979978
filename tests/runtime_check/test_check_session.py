from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from runtime_check.errors import CheckError, one_line
from runtime_check.session import load, load_bytes, measuring_time, run, thread_count


def with_external_data(location: str) -> bytes:
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        item = tensor.external_data.add()
        item.key, item.value = key, value
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["b", 4])],
        [helper.make_tensor_value_info("y", 1, None)],
        [tensor],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def test_load_runs_what_the_file_says(write_model, weight):
    x = np.ones((3, len(weight)), np.float32)
    for kernels in (True, False):
        session = load(write_model(), threads=1, kernels=kernels)
        np.testing.assert_allclose(run(session, {"x": x})[0], x @ weight, rtol=1e-6)
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_threads_and_spinning_reach_onnxruntime(write_model):
    options = load(write_model(), threads=2, spinning=False).get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert load(write_model()).get_session_options().get_session_config_entry("session.intra_op.allow_spinning") == "1"


@pytest.mark.parametrize("cut", [0, 1, 40, 120])
def test_a_truncated_file_is_one_line_naming_it(write_model, cut):
    path = write_model("weights.onnx")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckError, match=r"weights\.onnx") as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)


def test_noise_missing_and_folder_are_refused(tmp_path):
    noise = tmp_path / "noise.onnx"
    noise.write_bytes(np.random.default_rng(0).bytes(5000))
    for path in (noise, tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(CheckError, match=path.name):
            load(path)


@pytest.mark.parametrize("location", ["w.bin", "../w.bin", "/etc/hostname"])
def test_verified_bytes_may_not_pull_in_other_files(location, tmp_path, monkeypatch):
    (tmp_path / "w.bin").write_bytes(np.ones(4, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckError, match=r"model\.onnx keeps weights in other files"):
        load_bytes(with_external_data(location), "model.onnx")


def test_a_file_may_have_external_data_beside_it_but_not_elsewhere(tmp_path):
    (tmp_path / "w.bin").write_bytes(np.full(4, 2, np.float32).tobytes())
    (tmp_path / "inside.onnx").write_bytes(with_external_data("w.bin"))
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(run(load(tmp_path / "inside.onnx"), {"x": x})[0], 3 * x)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "outside.onnx").write_bytes(with_external_data("../w.bin"))
    with pytest.raises(CheckError, match=r"outside\.onnx"):
        load(folder / "outside.onnx")


def test_a_run_that_fails_names_the_model(write_model):
    with pytest.raises(CheckError, match=r"dense\.onnx cannot be run"):
        run(load(write_model()), {"x": np.ones((1, 99), np.float32)}, "dense.onnx")
    with pytest.raises(CheckError, match="the model cannot be run"):
        run(load(write_model()), {})


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2", 100000])
def test_wrong_threads_are_named(threads, write_model):
    with pytest.raises(CheckError, match="threads"):
        thread_count(threads)
    with pytest.raises(CheckError, match="threads"):
        load(write_model(), threads=threads)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 4000, True, "1"])
def test_wrong_seconds_are_named(seconds):
    with pytest.raises(CheckError, match="seconds"):
        measuring_time(seconds)


def test_foreign_text_becomes_one_printable_line():
    assert one_line("a\nb\x1b[31m\tc" + "d" * 400, 20) == "a b [31m c" + "d" * 9 + "…"
    assert one_line(Path("x/y.onnx")) == "x/y.onnx"
