from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from runtime_check.errors import CheckError
from runtime_check.feeds import parse_shapes, random_feed
from runtime_check.session import load, run


def session_with(tmp_path, *inputs):
    """A session over inputs (name, element type, shape), each copied to an output."""
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs],
        "g",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(f"{name}_out", kind, None) for name, kind, _ in inputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    return load(tmp_path / "m.onnx", threads=1)


def test_free_batches_become_one_and_other_sizes_are_kept(tmp_path):
    session = session_with(
        tmp_path, ("x", 1, ["n", 3, 8]), ("y", 7, [None, 2]), ("flag", 9, [2]), ("scale", 11, []), ("h", 10, [4])
    )
    feed = random_feed(session, seed=3)
    assert {name: value.shape for name, value in feed.items()} == {
        "x": (1, 3, 8),
        "y": (1, 2),
        "flag": (2,),
        "scale": (),
        "h": (4,),
    }
    assert [feed[name].dtype for name in ("x", "y", "flag", "scale", "h")] == ["f4", "i8", "?", "f8", "f2"]
    assert set(np.unique(feed["y"])) <= {0, 1}
    run(session, feed)
    for name, value in random_feed(session, seed=3).items():
        np.testing.assert_array_equal(value, feed[name])
    assert (random_feed(session, seed=4)["x"] != feed["x"]).any()


def test_free_sizes_are_asked_for_and_taken(tmp_path):
    session = session_with(tmp_path, ("x", 1, ["n", 3, "height", None]))
    with pytest.raises(CheckError, match="--shape height=VALUE"):
        random_feed(session)
    with pytest.raises(CheckError, match=r"axis 3.*--shape x\.3=VALUE"):
        random_feed(session, {"height": 4})
    assert random_feed(session, {"height": 4, "x.3": 5})["x"].shape == (1, 3, 4, 5)
    assert random_feed(session, {"x.2": 4, "x.3": 5, "n": 7})["x"].shape == (7, 3, 4, 5)
    with pytest.raises(CheckError, match=r"heigth.*height"):
        random_feed(session, {"heigth": 4, "height": 4, "x.3": 5})
    with pytest.raises(CheckError, match="more than 2"):
        random_feed(session, {"height": 2**20, "x.3": 2**20})


def test_inputs_that_are_not_numbers_are_refused(tmp_path):
    with pytest.raises(CheckError, match=r"words.*numeric"):
        random_feed(session_with(tmp_path, ("words", onnx.TensorProto.STRING, [2])))


def test_shapes_are_parsed_or_refused():
    assert parse_shapes(("height=224", "a=b=3")) == {"height": 224, "a=b": 3}
    for wrong in ("height", "=3", "height=", "height=0", "height=-1", "height=x", "height=²"):
        with pytest.raises(CheckError, match="--shape"):
            parse_shapes((wrong,))
