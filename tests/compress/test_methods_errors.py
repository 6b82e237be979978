"""Settings and calls that are wrong: the argument is named, the model stays as it was."""

from typing import Any

import pytest
import torch
from method_checks import network

from compress import fold
from compress.methods import DPF, OneShot, RigL, create


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dfp", {}, "there is no 'dfp'; did you mean 'dpf'"),
        ("dpf", {"sparsty": 0.9}, "sparsty: dpf has no such setting; did you mean 'sparsity'"),
        ("dpf", {"sparsity": 1.0}, "sparsity: 1.0"),
        ("dpf", {"sparsity": -0.1}, "sparsity: -0.1"),
        ("dpf", {"sparsity": float("nan")}, "sparsity: nan"),
        ("dpf", {"sparsity": "0.9"}, "sparsity: '0.9'"),
        ("dpf", {"period": 0}, "period: 0"),
        ("dpf", {"period": True}, "period: True"),
        ("dpf", {"skip_first": "maybe"}, "skip_first: 'maybe' is not true or false"),
        ("dpf", {"ramp_steps": -1}, "ramp_steps: -1"),
        ("gradual", {"start_step": 1.5}, "start_step: 1.5"),
        ("one_shot", {"structure": "filter"}, "structure: 'filter'"),
        ("one_shot", {"structure": "4:2"}, "structure: '4:2'"),
        ("one_shot", {"structure": "block:0x4"}, "structure: 'block:0x4'"),
        ("one_shot", {"structure": "2:4"}, "sparsity: 0.9 cannot be reached, structure 2:4 ends at sparsity 0.5"),
        ("one_shot", {"structure": "2:4", "sparsity": 0.5, "minimum_units": 9}, "minimum_units: 9 is not possible"),
        (
            "one_shot",
            {"structure": "2:4", "sparsity": 0.5, "distribution": "erk"},
            "distribution: 'erk' is not possible",
        ),
        ("one_shot", {"distribution": "local"}, "distribution: 'local'"),
        ("one_shot", {"minimum_units": -1}, "minimum_units: -1"),
        ("one_shot", {"exclude": "layer4"}, "exclude: 'layer4' is not a list"),
        ("one_shot", {"basis_seed": 3}, "basis_seed: 3 is not of use without a filter basis"),
        ("at_init", {"score": ["snip"]}, r"score: there is no \['snip'\]"),
        ("at_init", {"control": 3}, "control: there is no 3"),
        ("at_init", {"alpha": 0.9}, "alpha: 0.9 is not of use without a second score"),
        ("at_init", {"score_seed": -1}, "score_seed: -1"),
        ("at_init", {"classes": 3}, "classes: 3 is not a list"),
        ("freezenet", {"initialisation": ["xavier_normal"]}, r"initialisation: \['xavier_normal'\] is not one of"),
    ],
)
def test_wrong_settings_name_the_argument(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create(name, **settings)


def test_an_unknown_setting_of_the_class_itself_is_a_value_error_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match="sparsty: dpf has no such setting; did you mean 'sparsity'"):
        DPF(sparsty=0.9)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"dpf: 0\.9 has no name; settings are keyword-only"):
        DPF(0.9)  # type: ignore[misc]


def test_a_failure_while_attaching_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    calls = iter([False, True])
    real = torch.nn.utils.parametrize.register_parametrization

    def fails_at_the_second(*args: Any, **kwargs: Any) -> Any:
        if next(calls):
            raise RuntimeError("out of memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.nn.utils.parametrize, "register_parametrization", fails_at_the_second)
    with pytest.raises(RuntimeError, match="out of memory"):
        OneShot(sparsity=0.5).attach(model)
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_wrong_order_of_calls() -> None:
    with pytest.raises(ValueError, match="not attached"):
        DPF(sparsity=0.9, ramp_steps=1).step()
    model = network()
    with pytest.raises(ValueError, match="ramp_steps: not set"):
        DPF(sparsity=0.9).attach(model)
    assert list(model.state_dict()) == list(network().state_dict())
    pruner = OneShot(sparsity=0.5)
    pruner.attach(model)
    with pytest.raises(ValueError, match="already at work"):
        pruner.attach(network())
    with pytest.raises(ValueError, match="saved by 'dpf'"):
        pruner.load_state_dict({"method": "dpf"})
    with pytest.raises(ValueError, match="state: 'dynamics' is missing"):
        pruner.load_state_dict({"method": "one_shot"})
    with pytest.raises(ValueError, match=r"saved with sparsity=0\.5, this method has 0\.6"):
        other = OneShot(sparsity=0.6)
        other.attach(network())
        other.load_state_dict(pruner.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 0.95, "structure": "filters", "minimum_units": 3}, "sparsity: 0.95 keeps 2 of 36 units"),
        ({"sparsity": 0.999999}, r"sparsity: 0.999999 keeps none of 4152 units; at most 0.999759 is possible"),
        ({"sparsity": 0.999999, "distribution": "layer"}, "sparsity: 0.999999 keeps none"),
        (
            {"sparsity": 0.9, "distribution": "layer", "minimum_units": 50},
            "minimum_units: 50 is more than the 22 of 216 units that 0.weight keeps at sparsity 0.9",
        ),
        ({"structure": "block:1000x1000"}, "structure: block:1000x1000 fits no layer, none is larger"),
        ({"interspace": "fine", "basis": "random", "basis_size": 100000}, "basis_size: 100000 filters for 3x3 kernels"),
    ],
)
def test_a_budget_that_does_not_fit_leaves_the_model_as_it_was(settings: dict[str, Any], message: str) -> None:
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        OneShot(**settings).attach(model)
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_model_that_is_at_work_takes_no_second_method() -> None:
    model = network()
    OneShot(sparsity=0.5, exclude=("0",)).attach(model)
    with pytest.raises(ValueError, match=r"model: 3.weight already carries the formula of a method; .* call fold"):
        DPF(sparsity=0.5, ramp_steps=1, exclude=("3",)).attach(model)


def test_a_model_that_was_folded_cannot_be_finished() -> None:
    model, pruner = network(), OneShot(sparsity=0.5)
    pruner.attach(model)
    fold(model)
    for call in (pruner.finish, pruner.step):
        with pytest.raises(
            ValueError, match=r"model: it was folded while one_shot was at work; call finish\(\) before"
        ):
            call()


def test_masks_rest_once_they_are_finished() -> None:
    pruner = DPF(sparsity=0.5, ramp_steps=0, period=1)
    pruner.attach(network())
    pruner.finish()
    with pytest.raises(ValueError, match=r"dpf: finish\(\) was called, the masks are final"):
        pruner.step()


def test_a_state_that_lacks_what_the_method_saves_is_refused_before_anything_is_restored() -> None:
    pruner = RigL(sparsity=0.5, stop_step=10)
    pruner.attach(network(), [(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))])
    pruner.step()
    state = pruner.state_dict()
    del state["batches_taken"]
    pruner.step()
    with pytest.raises(ValueError, match="state: 'batches_taken' is missing"):
        pruner.load_state_dict(state)
    assert pruner.run.step == 2


def test_a_setting_younger_than_the_state_counts_as_its_default() -> None:
    pruner = OneShot(sparsity=0.5)
    pruner.attach(network())
    state = pruner.state_dict()
    del state["settings"]["interspace"]
    pruner.load_state_dict(state)
