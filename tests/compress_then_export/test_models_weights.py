from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress_then_export.models import WeightsError, build, load_weights


def make(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build("builtin:smallcnn", args={"width": 4})


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth"])
def test_round_trip(tmp_path: Path, ending: str) -> None:
    source, target = make(1), make(2)
    source(torch.randn(8, 1, 28, 28))  # running statistics differ too
    path = tmp_path / f"weights{ending}"
    if ending == ".safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save(source.state_dict(), path)
    assert not equal(source, target)
    load_weights(target, path)
    assert equal(source, target)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"model_state_dict": state, "optimizer": {}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}},
        lambda state: {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")},
        lambda state: {name: value.double() for name, value in state.items()},
    ],
)
def test_common_wrappings(tmp_path: Path, wrap: Any) -> None:
    source, target = make(1), make(2)
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pt")
    load_weights(target, tmp_path / "weights.pt")
    assert equal(source, target)


def test_legacy_format(tmp_path: Path) -> None:
    source, target = make(1), make(2)
    torch.save(source.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    load_weights(target, tmp_path / "old.pth")
    assert equal(source, target)


def refused(path: Path, *words: str, **options: Any) -> None:
    """Loading fails in one line with these words, and the model is as before."""
    target, untouched = make(2), make(2)
    with pytest.raises(WeightsError) as caught:
        load_weights(target, path, **options)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    for word in words:
        assert word in message
    assert equal(target, untouched)


def test_missing_empty_and_strange_files(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", "does not exist")
    refused(tmp_path, "is no file")
    (tmp_path / "empty.pt").touch()
    refused(tmp_path / "empty.pt", "is empty")
    (tmp_path / "weights.h5").write_bytes(b"x")
    refused(tmp_path / "weights.h5", "must end in .safetensors")


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".old.pt"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.97])
def test_truncated_files(tmp_path: Path, ending: str, keep: float) -> None:
    path = tmp_path / f"weights{ending}"
    state = make(1).state_dict()
    if ending == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=ending == ".pt")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    refused(path, "truncated")


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_pickles_with_code_are_refused_and_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    for index, save in enumerate((torch.save, lambda value, path: path.write_bytes(pickle.dumps(value)))):
        path = tmp_path / f"bomb{index}.pt"
        save({"state_dict": make(1).state_dict(), "extra": Bomb(marker)}, path)
        refused(path, "no plain state dict", "safetensors.torch.save_file")
        assert not marker.exists()


def test_whole_modules_are_refused_unless_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = make(1), make(2)
    path = tmp_path / "module.pt"
    torch.save(source, path)
    refused(path, "no plain state dict")
    with caplog.at_level(logging.WARNING):
        load_weights(target, path, allow_pickle=True)
    assert equal(source, target) and "allow_pickle" in caplog.text


def test_contents_that_are_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save([torch.zeros(2)], path)
    refused(path, "holds a list")
    torch.save({"lr": 0.1, "weight": torch.zeros(2)}, path)
    refused(path, "'lr' is a float")
    torch.save({}, path)
    refused(path, "not a state dict")


def test_missing_and_unexpected_keys(tmp_path: Path) -> None:
    state = make(1).state_dict()
    state["head.weight"] = state.pop("fc.weight")
    save_file(state, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", "1 missing (fc.weight)", "1 unexpected (head.weight)")
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", ", ...)", "unexpected (a)")


def test_other_shapes_name_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(build("builtin:smallcnn", args={"width": 5}).state_dict(), tmp_path / "w.safetensors")
    words = ["features.0.weight is 5x1x3x3 in the file but 4x1x3x3 in the model", "more"]
    refused(tmp_path / "w.safetensors", *words)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_name_the_tensor(tmp_path: Path, bad: float) -> None:
    state = make(1).state_dict()
    state["features.1.running_var"][2] = bad
    save_file(state, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", "features.1.running_var has 1 NaN or infinite values")


def test_weights_of_another_kind_or_too_large_are_named(tmp_path: Path) -> None:
    whole = {name: value.long() for name, value in make(1).state_dict().items()}
    save_file(whole, tmp_path / "whole.safetensors")
    refused(tmp_path / "whole.safetensors", "is torch.int64 but the model's is torch.float32")
    large = {
        name: value.double() if value.is_floating_point() else value for name, value in make(1).state_dict().items()
    }
    large["features.0.weight"][0, 0, 0, 0] = 1e300
    save_file(large, tmp_path / "large.safetensors")
    refused(tmp_path / "large.safetensors", "features.0.weight has 1 NaN or infinite values")


def test_a_negative_variance_is_named(tmp_path: Path) -> None:
    state = make(1).state_dict()
    state["features.1.running_var"][0] = -1.0
    save_file(state, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", "features.1.running_var is a variance but holds negative values")


def test_complex_weights_are_refused(tmp_path: Path) -> None:
    state = make(1).state_dict()
    state["fc.bias"] = torch.complex(state["fc.bias"], state["fc.bias"])
    torch.save(state, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "fc.bias is complex")
