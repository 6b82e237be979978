"""The plan as data: round trips, refusal of hostile plans, refusal of other models."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shrink_checks import X, make_masked, make_model, run
from torch import nn

from compress.shrink import (
    ChannelCut,
    LayerCut,
    PlanError,
    ShrinkPlan,
    apply_plan,
    shrink,
)


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
    ("layers.0.scales", [[0]]),
    ("layers.0.scales", [[3, 1.0]]),
    ("layers.0.scales", [[0, 0.0]]),
    ("layers.0.scales", [[0, -1.0]]),
    ("layers.0.scales", [[0, "1"]]),
    ("layers.0.scales", [[0, 1.5], [0, 2.0]]),
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


def test_scales_multiply_the_weights_of_kept_inputs() -> None:
    layer = nn.Conv2d(4, 2, 3)
    weight = layer.weight.detach().clone()
    plan = ShrinkPlan(
        layers={"0": LayerCut(outputs=2, inputs=4, kept_outputs=(0, 1), kept_inputs=(1, 3), scales=((3, 2.5),))}
    )
    apply_plan(nn.Sequential(layer), ShrinkPlan.from_json(plan.to_json()))
    assert torch.equal(layer.weight, torch.stack([weight[:, 1], 2.5 * weight[:, 3]], 1))
    with pytest.raises(ValueError, match="scales: each must name another kept input channel"):
        LayerCut(outputs=2, inputs=4, kept_outputs=(0,), kept_inputs=(1, 3), scales=((0, 2.5),))
