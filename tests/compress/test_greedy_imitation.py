"""The method's promises, as the contract table checks them for masks, and the errors that leave the model untouched."""

from __future__ import annotations

import copy
import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from method_checks import batch, network, optimizer_of, same, train
from shrink_checks import set_norms
from torch import Tensor, nn
from torch.nn import functional as F

from compress import fold
from compress.methods import GreedyImitation, OneShot, create
from compress.shrink import ShrinkPlan, apply_plan, load_shrunk, save_shrunk

TABLE: dict[str, Callable[[], GreedyImitation]] = {
    "macs": lambda: GreedyImitation(macs=0.5),
    "parameters": lambda: GreedyImitation(parameters=0.5, imitation="local"),
    "size": lambda: GreedyImitation(size=0.7, imitation="global", discrepancy="squared"),
    "width": lambda: GreedyImitation(width=0.5, round_to=4),
    "both bounds": lambda: GreedyImitation(macs=0.6, parameters=0.5),
    "scales only": lambda: GreedyImitation(macs=0.5, refit=False),
    "fixed": lambda: GreedyImitation(width=0.5, imitation="local", line_search=False),
    "exact": lambda: GreedyImitation(width=0.3, exact_size=25),
    "loss_gap": lambda: GreedyImitation(loss_gap=0.2),
    "accuracy_drop": lambda: GreedyImitation(accuracy_drop=50, calibration_batches=1, held_out_batches=1),
}
METHODS = pytest.mark.parametrize("make", TABLE.values(), ids=TABLE.keys())


def normal() -> nn.Module:
    return set_norms(network())


@torch.no_grad()
def answered(step: int) -> tuple[Tensor, Tensor]:
    """A batch that the network gets right, so that its accuracy can drop."""
    inputs, _ = batch(step)
    return inputs, normal().eval()(inputs).argmax(dim=1)


DATA = [answered(-1), answered(-2)]


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@METHODS
def test_attach_makes_an_ordinary_smaller_network(make: Callable[[], GreedyImitation]) -> None:
    model = normal().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before, modes = copy.deepcopy(model), [module.training for module in model.modules()]
    state = torch.get_rng_state()
    pruner = make()
    pruner.attach(model, DATA)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in before.parameters()]
    assert list(model.state_dict()) == list(before.state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert parameters(model) < parameters(before)
    assert parameters(model) / parameters(before) == pytest.approx(pruner.run.findings["parameters_left"])
    for target in ("macs", "parameters", "size"):
        wanted = getattr(pruner, target)
        assert wanted is None or 0.5 * wanted < pruner.run.findings[f"{target}_left"] <= wanted
    assert pruner.run.plan is not None
    replayed = apply_plan(before, ShrinkPlan.from_json(pruner.run.plan.to_json()))
    if pruner.refit:  # the plan has the widths, the weights are new
        replayed.load_state_dict(model.state_dict())
    assert same(replayed, model)


@METHODS
def test_deterministic(make: Callable[[], GreedyImitation]) -> None:
    first, second = normal(), normal()
    make().attach(first, DATA)
    make().attach(second, DATA)
    assert same(first, second)


@METHODS
def test_fine_tuning_resumes_in_the_middle_through_a_file(make: Callable[[], GreedyImitation]) -> None:
    def start() -> tuple[nn.Module, GreedyImitation, torch.optim.Optimizer]:
        model, pruner = normal(), make()
        pruner.attach(model, DATA)
        return model, pruner, optimizer_of(model)

    whole, pruner, optimizer = start()
    train(whole, pruner, optimizer, range(8))
    pruner.finish()
    model, pruner, optimizer = start()
    train(model, pruner, optimizer, range(3))
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict(), pruner.state_dict()), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    model, pruner, optimizer = start()
    for one, state in zip((model, optimizer, pruner), saved, strict=True):
        one.load_state_dict(state)
    assert pruner.run.step == 3
    train(model, pruner, optimizer, range(3, 8))
    pruner.finish()
    assert pruner.run.finished
    assert same(fold(model), whole)


def test_exports_and_onnxruntime_agrees(tmp_path: Path) -> None:
    from exporters import export
    from runtime_check import load

    model = normal()
    GreedyImitation(macs=0.5).attach(model, DATA)
    model.eval()
    inputs, _ = batch(5)
    export(model, inputs, tmp_path / "model.onnx")
    session = load(tmp_path / "model.onnx", threads=1)
    (output,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), model(inputs).detach(), rtol=1e-4, atol=1e-5)


def test_the_plan_and_the_weights_restore_the_network(tmp_path: Path) -> None:
    model, pruner = normal(), GreedyImitation(width=0.5)
    pruner.attach(model, DATA)
    assert pruner.run.plan is not None
    save_shrunk(model, pruner.run.plan, tmp_path)
    assert same(load_shrunk(network(), tmp_path), model)


def test_rehearsing_changes_nothing_and_says_what_cannot_work() -> None:
    model = normal()
    before = copy.deepcopy(model)
    assert GreedyImitation(macs=0.5).rehearse(model, DATA).plan is None
    assert same(model, before)
    with pytest.raises(ValueError, match=r"macs: 0\.001 cannot be met"):
        GreedyImitation(macs=0.001).rehearse(model, DATA)


def test_without_gradients_allowed() -> None:
    first, second = normal(), normal()
    GreedyImitation(width=0.5).attach(first, DATA)
    with torch.no_grad():
        GreedyImitation(width=0.5).attach(second, DATA)
    assert same(first, second)


class Shared(nn.Module):
    """Every layer with hidden channels is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = F.relu(self.b(F.relu(self.a(x))))
        y: Tensor = self.last(x)
        return y


def flat(samples: int = 6) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(samples, 4), torch.zeros(samples, dtype=torch.int64))]


def images(*shape: int, fill: float | None = None) -> tuple[Tensor, Tensor]:
    inputs, labels = batch(0)
    inputs = torch.randn(8, *shape) if shape else inputs
    return (inputs if fill is None else inputs.index_fill(0, torch.tensor([2]), fill)), labels


@pytest.mark.parametrize(
    ("make", "data", "settings", "message"),
    [
        (normal, [], {}, "batches: empty; greedy imitation needs"),
        (normal, [images(1, 8, 8)], {}, r"batches: the model does not run on inputs of shape \[1, 8, 8\]"),
        (normal, [images(3, 9, 9)], {}, r"batches: the model does not run on inputs of shape \[3, 9, 9\]"),
        (normal, [batch(0), images(3, 9, 9)], {}, r"batches: number 1 has inputs of shape \[3, 9, 9\], the first one"),
        (normal, [batch(0), images(fill=float("nan"))], {}, "batches: number 1 holds NaN or infinity"),
        (normal, [images(fill=float("inf"))], {}, "batches: number 0 holds NaN or infinity"),
        (normal, [batch(0)[0]], {}, "batches: number 0 is no pair of tensors"),
        (normal, [(batch(0)[0], batch(0)[1][:3])], {}, "batches: number 0 has 8 inputs and 3 targets"),
        (normal, DATA, {"macs": 0.01}, r"macs: 0\.01 cannot be met; with every group at its narrowest 0\.0\d+ of them"),
        (normal, DATA, {"macs": None, "parameters": 1e-4}, r"parameters: 0\.0001 cannot be met"),
        (
            normal,
            DATA,
            {"macs": None, "accuracy_drop": 1},
            "held_out_batches: accuracy_drop wants batches bey",
        ),
        (normal, DATA, {"exclude": ("*",)}, "exclude: none of its channel groups can be thinned .0: excluded; 3: excl"),
        (normal, DATA, {"round_to": 64}, "round_to: none of its .* no multiple of 64 channels is below its width"),
        (normal, None, {}, "batches: NoneType is not iterable"),
        (Shared, flat(), {}, "a is called 2 times in one forward"),
        (lambda: nn.Sequential(nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 3)), flat(), {}, "it has one channel"),
        (lambda: nn.Sequential(nn.Linear(4, 3)), flat(), {}, "none of its channel groups can be thinned"),
        (lambda: nn.ReLU(), flat(), {}, "model: it has no parameters"),
    ],
)
def test_errors_leave_the_model_untouched(
    make: Callable[[], nn.Module], data: list[Any], settings: dict[str, Any], message: str
) -> None:
    torch.manual_seed(0)
    model = make()
    before, kept = copy.deepcopy(model), dict(model.named_parameters())
    with pytest.raises(ValueError, match=message):
        GreedyImitation(**{"macs": 0.5, **settings}).attach(model, data)
    assert same(model, before)
    assert dict(model.named_parameters()) == kept
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_models_that_cannot_be_searched() -> None:
    model = normal()
    nn.init.constant_(model[8].bias, float("nan"))
    with pytest.raises(ValueError, match=r"model: 8\.bias holds NaN"):
        GreedyImitation(macs=0.5).attach(model, DATA)
    model = normal()
    norm = next(module for module in model if isinstance(module, nn.BatchNorm2d))
    nn.init.constant_(norm.running_var, float("inf"))
    with pytest.raises(ValueError, match=r"model: \d\.running_var holds NaN or infinite"):
        GreedyImitation(macs=0.5).attach(model, DATA)
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(old := normal()[0])
    with pytest.raises(ValueError, match="model: 0 keeps a tensor computed from parameters"):
        GreedyImitation(macs=0.5).attach(nn.Sequential(old, *normal()[1:]), DATA)
    with torch.inference_mode():
        model = normal()
    with pytest.raises(ValueError, match=r"model: 0\.weight was made in torch.inference_mode"):
        GreedyImitation(macs=0.5).attach(model, DATA)
    with pytest.raises(ValueError, match=r"model: NoneType is no torch\.nn\.Module"):
        GreedyImitation(macs=0.5).attach(None, DATA)  # type: ignore[arg-type]


def test_an_error_in_the_middle_of_the_search_leaves_the_model_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.greedy.layerwise import Layerwise

    model = normal()
    before = copy.deepcopy(model)

    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Layerwise, "settle", fails)
    with pytest.raises(MemoryError):
        GreedyImitation(macs=0.5).attach(model, DATA)
    assert same(model, before)


def test_wrong_order_of_calls() -> None:
    with pytest.raises(ValueError, match="greedy_imitation: not attached to a model"):
        GreedyImitation(macs=0.5).step()
    model, pruner = normal(), GreedyImitation(width=0.5)
    pruner.attach(model, DATA)
    with pytest.raises(ValueError, match="already at work"):
        pruner.attach(normal(), DATA)
    masked = normal()
    OneShot(sparsity=0.5).attach(masked)
    with pytest.raises(ValueError, match=r"model: it is parametrized; fold\(model\)"):
        GreedyImitation(macs=0.5).attach(masked, DATA)
    with pytest.raises(ValueError, match=r"state: it was saved with macs=None, this method has 0\.9"):
        other = GreedyImitation(macs=0.9)
        other.attach(normal(), DATA)
        other.load_state_dict(pruner.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "macs: exactly one target must be set of macs, parameters, .*; set: none"),
        ({"macs": 0.5, "width": 0.5}, "macs: exactly one target .*; set: macs, width"),
        ({"macs": 0}, "macs: 0 is not a number above 0, at most 1"),
        ({"width": 1.5}, "width: 1.5 is not a number above 0, at most 1"),
        ({"loss_gap": float("nan")}, "loss_gap: nan is not"),
        ({"accuracy_drop": -1}, "accuracy_drop: -1 is not"),
        ({"macs": "half"}, "macs: 'half' is not"),
        ({"macs": 0.5, "imitation": "locl"}, "imitation: 'locl' is not one of both, local, global"),
        ({"macs": 0.5, "discrepancy": "l1"}, "discrepancy: 'l1' is not one of cross_entropy, squared"),
        ({"macs": 0.5, "round_to": 0}, "round_to: 0 is not a whole number, 1 or more"),
        ({"macs": 0.5, "calibration_batches": 0}, "calibration_batches: 0 is not"),
        ({"macs": 0.5, "line_search": "yes"}, "line_search: 'yes' is not true or false"),
        ({"macs": 0.5, "exclude": "layer1"}, "exclude: 'layer1' is not a list of patterns"),
        ({"mac": 0.5}, "mac: greedy_imitation has no such setting; did you mean 'macs'"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create("greedy_imitation", **settings)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_greedy_imitation import DATA, GreedyImitation, normal
from compress.greedy.layerwise import Layerwise

settle, calls = Layerwise.settle, []

def hangs_behind_the_first_group(self, *rest):
    calls.append(1)
    settle(self, *rest)
    if len(calls) == 2:
        time.sleep(60)

Layerwise.settle = hangs_behind_the_first_group
GreedyImitation(width=0.5).kept_in(Path(sys.argv[1])).attach(normal(), DATA)
"""


def test_kill_9_and_on_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.greedy.layerwise import Layerwise

    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)])
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "group-001.npz").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    whole, resumed = normal(), normal()
    GreedyImitation(width=0.5).attach(whole, DATA)
    original, names = Layerwise.thin_to, list[str]()

    def noted(self: Layerwise, group: Any, *rest: Any) -> Any:
        names.append(group.name)
        return original(self, group, *rest)

    monkeypatch.setattr(Layerwise, "thin_to", noted)
    GreedyImitation(width=0.5).kept_in(tmp_path).attach(resumed, DATA)
    assert names == ["6"]
    assert same(resumed, whole)
