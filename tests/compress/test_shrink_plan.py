"""The plan as data: round trips, refusal of hostile plans, refusal of other models, and the files on disk."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.shrink import (
    ChannelCut,
    LayerCut,
    PlanError,
    ShrinkPlan,
    apply_plan,
    load_shrunk,
    save_shrunk,
    shrink,
)

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def make_model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, groups=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1, bias=False),
        nn.Flatten(),
        nn.Linear(216, 4),
    )


def make_masked() -> nn.Sequential:
    torch.manual_seed(0)
    model = make_model()
    with torch.no_grad():
        model[1].bias.fill_(1.0)  # type: ignore[union-attr, operator]
        model[0].weight[[0, 1, 5, 6]] = 0  # type: ignore[index]
        model[3].weight[[2, 3, 4]] = 0  # type: ignore[index]
        model[3].bias[[3, 4]] = -1.0  # type: ignore[index]
        model[5].weight[1] = 0  # type: ignore[index]
    return model.eval()


def run(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(X)  # type: ignore[no-any-return]


def valid_document() -> dict[str, Any]:
    plan = shrink(make_masked(), X)
    document: dict[str, Any] = json.loads(plan.to_json())
    assert document["layers"]["3"]["merged"]
    assert document["layers"]["5"]["bias_added"] or document["layers"]["5"]["kept_inputs"]
    return document


def test_json_round_trip_is_exact_and_holds_no_more_than_json() -> None:
    plan = shrink(make_masked(), X)
    again = ShrinkPlan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    assert plan.removed_outputs > 0
    assert plan.difference < 1e-9


def test_replay_on_the_masked_model_gives_the_same_function_and_weights() -> None:
    masked, shrunk = make_masked(), make_masked()
    plan = shrink(shrunk, X)
    replayed = apply_plan(make_masked(), ShrinkPlan.from_json(plan.to_json()))
    assert torch.equal(run(replayed), run(shrunk))
    assert torch.allclose(run(masked), run(shrunk), rtol=1e-5, atol=1e-6)


def test_replay_on_a_fresh_model_gives_the_shape_for_the_saved_weights() -> None:
    shrunk = make_masked()
    plan = shrink(shrunk, X)
    fresh = apply_plan(make_model(), ShrinkPlan.from_json(plan.to_json()))
    fresh.load_state_dict(shrunk.state_dict(), strict=True)
    assert torch.equal(run(fresh), run(shrunk))


def test_a_shrunk_model_shrinks_no_further() -> None:
    model = make_masked()
    shrink(model, X)
    assert shrink(model, X).removed_outputs == 0


HOSTILE: list[tuple[str, Any]] = [
    ("schema", 2),
    ("schema", True),
    ("layers", []),
    ("notes", "text"),
    ("notes", [1]),
    ("difference", "0"),
    ("difference", True),
    ("difference", 10**400),
    ("unknown", 1),
    ("layers.0", []),
    ("layers.0.unknown", 1),
    ("layers.0.outputs", 0),
    ("layers.0.outputs", -8),
    ("layers.0.outputs", 2**40),
    ("layers.0.outputs", 8.0),
    ("layers.0.outputs", True),
    ("layers.0.kept_outputs", []),
    ("layers.0.kept_outputs", {}),
    ("layers.0.kept_outputs", [0, 0]),
    ("layers.0.kept_outputs", [1, 0]),
    ("layers.0.kept_outputs", [-1, 0]),
    ("layers.0.kept_outputs", [0, 8]),
    ("layers.0.kept_outputs", [0, 1.0]),
    ("layers.0.kept_outputs", ["0"]),
    ("layers.0.kept_outputs", [True]),
    ("layers.0.kept_outputs", [[0]]),
    ("layers.0.groups", 0),
    ("layers.3.groups", 5),
    ("layers.0.bias_added", 1),
    ("layers.0.constants", {}),
    ("layers.0.constants", [1]),
    ("layers.0.constants", [[0]]),
    ("layers.0.constants", [[3, 1.0]]),
    ("layers.0.constants", [[0, "1"]]),
    ("layers.0.constants", [[0, True]]),
    ("layers.0.constants", [[0, 1.0], [0, 2.0]]),
    ("layers.0.constants", [[0, 10**400]]),
    ("layers.0.merged", [[0, 1]]),
    ("layers.0.merged", [[0, 0, 1.0]]),
    ("layers.0.merged", [[0, 7, 1.0]]),
    ("layers.0.merged", [[0, [1], 1.0]]),
    ("layers.1", {"channels": 8, "kept": [0]}),
    ("channels.1.kept", []),
    ("channels.1.kept", [9]),
    ("channels.1.channels", None),
    ("channels.1.extra", 1),
    ("channels.0", {"channels": 8, "kept": [0]}),
]


@pytest.mark.parametrize(("path", "value"), HOSTILE, ids=[f"{path}={value!r:.24}" for path, value in HOSTILE])
def test_a_hostile_plan_is_refused(path: str, value: Any) -> None:
    document = valid_document()
    *parents, last = path.split(".")
    row = document
    for key in parents:
        row = row[key]
    row[last] = value
    with pytest.raises(ValueError, match=r"\w+"):
        ShrinkPlan.from_json(json.dumps(document))


@pytest.mark.parametrize("key", ["schema", "layers", "channels", "notes", "difference"])
def test_a_missing_key_is_named(key: str) -> None:
    document = valid_document()
    del document[key]
    with pytest.raises(PlanError, match=key):
        ShrinkPlan.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '{"schema": NaN}', "[" * 100_000, '{"schema": 1' + "0" * 5000 + "}", "\ud800"],
    ids=["empty", "cut", "list", "null", "number", "nan", "deep", "long", "surrogate"],
)
def test_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        ShrinkPlan.from_json(text)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mutated_plan_is_refused_or_harmless(data: st.DataObject) -> None:
    """Whatever one value is replaced by: a ValueError that leaves the model whole, or a model that still works."""
    document = valid_document_cached()
    leaves = list(_paths(document))
    path = data.draw(st.sampled_from(leaves))
    row = document
    for key in path[:-1]:
        row = row[key]
    row[path[-1]] = data.draw(
        st.one_of(st.integers(-2, 300), st.floats(), st.booleans(), st.none(), st.text(max_size=3), st.just([]))
    )
    model = make_model()
    before = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    try:
        apply_plan(model, ShrinkPlan.from_json(json.dumps(document)))
    except ValueError:
        assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == before
    else:
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d):
                assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups), name


_CACHE: list[str] = []


def valid_document_cached() -> dict[str, Any]:
    if not _CACHE:
        _CACHE.append(json.dumps(valid_document()))
    document: dict[str, Any] = json.loads(_CACHE[0])
    return document


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Any:
    if isinstance(value, dict | list) and value:
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(child, (*path, key))
    else:
        yield path


def cut(**changes: Any) -> LayerCut:
    values: dict[str, Any] = {"outputs": 8, "inputs": 3, "kept_outputs": (0, 1), "kept_inputs": (0, 1, 2)}
    return LayerCut(**(values | changes))


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (ShrinkPlan(layers={"9": cut()}), "'9', which this model does not have"),
        (ShrinkPlan(layers={"1": cut()}), "has a BatchNorm2d there"),
        (ShrinkPlan(layers={"0": cut(outputs=16)}), "16 outputs and 3 inputs"),
        (ShrinkPlan(layers={"0": cut(constants=((0, 1.0),))}), "which this model lacks"),
        (ShrinkPlan(layers={"3": cut(inputs=8, bias_added=True, groups=1, kept_inputs=(0,))}), "has one already"),
        (ShrinkPlan(layers={"3": cut(inputs=8, kept_outputs=(0, 1, 4), kept_inputs=(0, 4))}), "convolution group"),
        (ShrinkPlan(layers={"3": cut(inputs=8, kept_outputs=(0, 1), kept_inputs=(0, 4))}), "convolution group"),
        (ShrinkPlan(layers={"3": cut(inputs=8, kept_outputs=(0, 1), kept_inputs=(4, 5))}), "convolution group"),
        (ShrinkPlan(layers={"3": cut(inputs=8, kept_inputs=(0, 1), merged=((1, 4, 1.0),))}), "cannot be merged"),
        (ShrinkPlan(channels={"0": ChannelCut(channels=8, kept=(0,))}), "has a Conv2d"),
        (ShrinkPlan(channels={"1": ChannelCut(channels=9, kept=(0,))}), "9 channels, this model has 8"),
    ],
)
def test_a_plan_of_another_model_changes_nothing(plan: ShrinkPlan, says: str) -> None:
    model = make_model()
    good = LayerCut(outputs=6, inputs=8, kept_outputs=(0,), kept_inputs=tuple(range(8)))
    plan = ShrinkPlan(layers={"5": good, **plan.layers}, channels=plan.channels)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=says):
        apply_plan(model, plan)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_a_plan_cannot_be_changed() -> None:
    plan = ShrinkPlan(layers={"0": cut()})
    with pytest.raises(TypeError):
        plan.layers["1"] = cut()  # type: ignore[index]


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
