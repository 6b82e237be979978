"""A shrunk model on disk: safetensors and plan, whole or absent, read without pickle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from shrink_checks import X, make_masked, make_model, run
from torch import nn

from compress.shrink import (
    PlanError,
    ShrinkPlan,
    load_shrunk,
    save_shrunk,
    shrink,
)


def test_files_round_trip_without_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was pickled")

    shrunk = make_masked()
    plan = shrink(shrunk, X)
    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", refuse)
    monkeypatch.setattr("torch.save", refuse)
    monkeypatch.setattr("torch.load", refuse)
    save_shrunk(shrunk, plan, tmp_path / "new" / "folder")
    files = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert files == ["model.safetensors", "plan.json"]
    loaded = load_shrunk(make_model(), tmp_path / "new" / "folder")
    assert torch.equal(run(loaded), run(shrunk))
    assert [type(m) for m in loaded.modules()] == [type(m) for m in make_model().modules()]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    shrunk = make_masked()
    save_shrunk(shrunk, shrink(shrunk, X), tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["plan.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "noise"])
def test_damaged_files_are_refused_before_the_model_is_cut(saved: Path, name: str, damage: str) -> None:
    path = saved / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": content[:-9], "empty": b"", "noise": b"\xff\x80" * 40}[damage])
    model = make_model()
    with pytest.raises(ValueError, match=r"plan|safetensors"):
        load_shrunk(model, saved)
    assert model[0].out_channels == 8


def test_weights_of_another_model_are_refused(saved: Path) -> None:
    other = make_model()
    save_shrunk(other, ShrinkPlan(), saved / "other")
    (saved / "other" / "model.safetensors").replace(saved / "model.safetensors")
    with pytest.raises(ValueError, match="do not fit"):
        load_shrunk(make_model(), saved)


def test_a_plan_of_another_architecture_is_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"does not have|this model has"):
        load_shrunk(nn.Sequential(nn.Conv2d(3, 9, 3)), saved)


def test_two_cuts_in_a_row_are_saved_together(tmp_path: Path) -> None:
    model = make_masked()
    plans = [shrink(model, X)]
    with torch.no_grad():
        model[5].weight[[0, 3]] = 0  # type: ignore[index]
    plans.append(shrink(model, X))
    assert [plan.removed_outputs > 0 for plan in plans] == [True, True]
    save_shrunk(model, plans, tmp_path)
    assert torch.equal(run(load_shrunk(make_model(), tmp_path)), run(model))


def test_tied_parameters_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    def make() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 5), nn.Linear(5, 2))
        model[2].weight = model[0].weight
        return model

    model = make()
    with torch.no_grad():
        model[4].weight[1], model[4].bias[1] = 0, 0  # type: ignore[index, operator]
    plan = shrink(model, torch.randn(2, 6))
    assert plan.removed_outputs == 1
    save_shrunk(model, plan, tmp_path)
    loaded = load_shrunk(make(), tmp_path)
    x = torch.randn(3, 6)
    assert torch.equal(loaded(x), model(x))
    assert loaded[2].weight is loaded[0].weight


@pytest.mark.parametrize("text", ["[]", '{"schema": 1}', '{"schema": 2, "plans": []}', '{"schema": 1, "plans": {}}'])
def test_a_plan_file_of_another_kind_is_refused(saved: Path, text: str) -> None:
    (saved / "plan.json").write_text(text)
    with pytest.raises(PlanError):
        load_shrunk(make_model(), saved)


def test_a_failed_save_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="space"):
        save_shrunk(make_model(), ShrinkPlan(), tmp_path)
    assert list(tmp_path.iterdir()) == []
