"""The contract table: every method, the same promises."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from method_checks import DATA, STEPS, batch, network, optimizer_of, train, trained, units

from compress import fold
from compress.budget import keep_count
from compress.methods import (
    DPF,
    SET,
    AtInit,
    FrankWolfe,
    FreezeNet,
    Gradual,
    LotteryTicket,
    Method,
    OneShot,
    RigL,
    available,
)
from compress.structures import Neighbours

TABLE: dict[str, Callable[[], Method]] = {
    "one_shot": lambda: OneShot(sparsity=0.8),
    "one_shot-filters": lambda: OneShot(sparsity=0.5, structure="filters"),
    "one_shot-layer": lambda: OneShot(sparsity=0.8, distribution="layer"),
    "gradual": lambda: Gradual(sparsity=0.9, ramp_steps=24, period=4),
    "gradual-filters": lambda: Gradual(sparsity=0.5, ramp_steps=24, period=4, structure="filters"),
    "gradual-late": lambda: Gradual(sparsity=0.9, start_step=7, ramp_steps=15, period=4),
    "dpf": lambda: DPF(sparsity=0.9, ramp_steps=24, period=4),
    "dpf-filters": lambda: DPF(sparsity=0.5, ramp_steps=24, period=4, structure="filters"),
    "dpf-layer": lambda: DPF(sparsity=0.9, ramp_steps=24, period=4, distribution="layer"),
    "at_init-snip": lambda: AtInit(sparsity=0.8),
    "at_init-grasp": lambda: AtInit(sparsity=0.8, score="grasp", per_class=1, classes=(0, 1)),
    "at_init-synflow": lambda: AtInit(sparsity=0.8, score="synflow", rounds=10),
    "at_init-usnip": lambda: AtInit(sparsity=0.8, score="usnip", distribution="layer"),
    "at_init-gradient": lambda: AtInit(sparsity=0.8, score="gradient", score_batches=1),
    "at_init-random": lambda: AtInit(sparsity=0.8, score="random"),
    "at_init-filters": lambda: AtInit(sparsity=0.5, score="magnitude", structure="filters"),
    "at_init-cops": lambda: AtInit(sparsity=0.8, control="grasp", alpha=0.9),
    "at_init-cops-filters": lambda: AtInit(sparsity=0.5, control="magnitude", structure="filters", alpha=0.3),
    "one_shot-2:4": lambda: OneShot(sparsity=0.5, structure="2:4"),
    "one_shot-block": lambda: OneShot(sparsity=0.75, structure="block:4x1"),
    "one_shot-erk": lambda: OneShot(sparsity=0.9, distribution="erk"),
    "gradual-2:4": lambda: Gradual(sparsity=0.5, ramp_steps=24, period=4, structure="2:4"),
    "gradual-block": lambda: Gradual(sparsity=0.8, ramp_steps=24, period=4, structure="block:2x3"),
    "dpf-1:4": lambda: DPF(sparsity=0.75, ramp_steps=24, period=4, structure="1:4"),
    "dpf-block-erk": lambda: DPF(sparsity=0.8, ramp_steps=24, period=4, structure="block:1x4", distribution="erk"),
    "at_init-2:4": lambda: AtInit(sparsity=0.5, structure="2:4"),
    "at_init-cops-block": lambda: AtInit(sparsity=0.8, control="grasp", structure="block:4x1", rounds=3),
    "freezenet": lambda: FreezeNet(sparsity=0.9),
    "freezenet-reinit": lambda: FreezeNet(sparsity=0.9, reinit=True, seed=5, initialisation="kaiming_uniform"),
    "freezenet-wd": lambda: FreezeNet(sparsity=0.8, weight_decay=True),
    "freezenet-cops": lambda: FreezeNet(sparsity=0.8, control="grasp", alpha=0.9, initialisation="signed_constant"),
    "freezenet-filters": lambda: FreezeNet(sparsity=0.5, score="synflow", rounds=3, structure="filters"),
    "freezenet-layer": lambda: FreezeNet(sparsity=0.8, score="random", distribution="layer"),
    "freezenet-interspace": lambda: FreezeNet(sparsity=0.8, interspace="fine"),
    "freezenet-wd-interspace": lambda: FreezeNet(sparsity=0.8, weight_decay=True, interspace="coarse", basis="onb"),
    "rigl-interspace": lambda: RigL(sparsity=0.8, stop_step=30, period=4, interspace="fine"),
    "set-interspace": lambda: SET(sparsity=0.8, stop_step=30, period=4, interspace="fine"),
    "lottery_ticket-interspace": lambda: LotteryTicket(sparsity=0.45, round_steps=10, interspace="fine"),
    "dpf-interspace": lambda: DPF(sparsity=0.9, ramp_steps=24, period=4, interspace="fine"),
    "dpf-interspace-filters": lambda: DPF(
        sparsity=0.5, ramp_steps=24, period=4, structure="filters", interspace="out_4", basis="onb"
    ),
    "gradual-interspace": lambda: Gradual(sparsity=0.9, ramp_steps=24, period=4, interspace="coarse", basis="onb"),
    "one_shot-interspace": lambda: OneShot(sparsity=0.8, interspace="medium", basis="fitted", basis_size=6),
    "one_shot-interspace-2:4": lambda: OneShot(sparsity=0.5, structure="2:4", interspace="in_2"),
    "at_init-snip-interspace": lambda: AtInit(sparsity=0.8, interspace="fine", basis="random", basis_size=12),
    "at_init-synflow-interspace": lambda: AtInit(
        sparsity=0.8, score="synflow", rounds=10, interspace="coarse", basis="random", basis_size=5
    ),
    "at_init-cops-interspace": lambda: AtInit(
        sparsity=0.8, control="grasp", alpha=0.9, interspace="coarse", basis="onb", basis_seed=3
    ),
    "dpf-layer-filters": lambda: DPF(sparsity=0.5, ramp_steps=24, period=4, distribution="layer", structure="filters"),
    "set": lambda: SET(sparsity=0.8, stop_step=30, period=4),
    "rigl": lambda: RigL(sparsity=0.8, stop_step=30, period=4),
    "rigl-layer": lambda: RigL(sparsity=0.8, stop_step=30, period=4, distribution="layer", skip_last_linear=True),
    "rigl-filters": lambda: RigL(sparsity=0.5, stop_step=30, period=4, structure="filters"),
    "rigl-block": lambda: RigL(sparsity=0.8, stop_step=30, period=4, structure="block:4x1"),
    "lottery_ticket": lambda: LotteryTicket(sparsity=0.45, round_steps=10),  # three prunings, four trainings
    "lottery_ticket-rewind": lambda: LotteryTicket(sparsity=0.9, round_steps=8, rewind_step=3, round_fraction=0.5),
    "lottery_ticket-layer": lambda: LotteryTicket(sparsity=0.45, round_steps=10, distribution="layer"),
    "lottery_ticket-filters": lambda: LotteryTicket(sparsity=0.45, round_steps=10, structure="filters"),
}
TRAIN_ONLY: dict[str, Callable[[], Method]] = {
    "frank_wolfe": lambda: FrankWolfe(),
    "frank_wolfe-init": lambda: FrankWolfe(radius=20, k_fraction=0.2, norm="start", init_iterations=3, lr=0.5),
    "frank_wolfe-published": lambda: FrankWolfe(norm="shape", outside="scale", momentum=0.5),
}
WITH_BUDGET = pytest.mark.parametrize("make", TABLE.values(), ids=TABLE.keys())
METHODS = pytest.mark.parametrize("make", [*TABLE.values(), *TRAIN_ONLY.values()], ids=[*TABLE, *TRAIN_ONLY])


@WITH_BUDGET
def test_exact_budget(make: Callable[[], Method]) -> None:
    model, pruner = trained(make)
    counts = units(pruner, fold(model))
    if isinstance(pruner.units, Neighbours):
        # 3 input channels, then 8 and 192: the first layer has groups of three, which keep as many as one of four.
        keep, of = pruner.units.keep, pruner.units.of
        assert [alive for _, alive in counts] == [
            8 * 9 * keep,
            12 * 8 * 9 * keep // of,
            16 * 192 * keep // of,
            5 * 16 * keep // of,
        ][: len(counts)]
    elif pruner.distribution == "layer":
        assert [alive for _, alive in counts] == [keep_count(total, pruner.sparsity) for total, _ in counts]
    else:
        assert sum(alive for _, alive in counts) == keep_count(sum(t for t, _ in counts), pruner.sparsity)


@METHODS
def test_deterministic(make: Callable[[], Method]) -> None:
    first, second = (fold(trained(make)[0]).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@METHODS
def test_resume_in_the_middle_through_a_file(make: Callable[[], Method]) -> None:
    whole, whole_pruner = trained(make)
    model, pruner = network(), make()
    pruner.attach(model, DATA)
    optimizer = optimizer_of(model, pruner)
    train(model, pruner, optimizer, range(13))
    file = io.BytesIO()
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "pruner": pruner.state_dict()},
        file,
    )
    file.seek(0)
    state = torch.load(file, weights_only=True)

    model, pruner = network(), make()
    pruner.attach(model, DATA)
    optimizer = optimizer_of(model, pruner, fresh=False)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    pruner.load_state_dict(state["pruner"])
    train(model, pruner, optimizer, range(13, STEPS))
    pruner.finish()
    assert pruner.history == whole_pruner.history
    expected, resumed = fold(whole).state_dict(), fold(model).state_dict()
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)


@METHODS
def test_fold_equals_unfolded_and_nothing_is_left(make: Callable[[], Method]) -> None:
    keys, classes = list(network().state_dict()), [type(m) for m in network().modules()]
    model, _ = trained(make)
    model.eval()
    inputs, _ = batch(99)
    before = model(inputs)
    fold(model)
    assert torch.equal(model(inputs), before)
    assert list(model.state_dict()) == keys
    assert [type(m) for m in model.modules()] == classes
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


@METHODS
def test_attach_leaves_grads_mode_and_random_state_alone(make: Callable[[], Method]) -> None:
    model = network()
    model[1].eval()
    modes = [(module, module.training) for module in model.modules()]
    state = torch.get_rng_state()
    statistics = copy.deepcopy(model[1].state_dict())
    make().attach(model, [batch(0)])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training == training for module, training in modes)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(statistics[k], v) for k, v in model[1].state_dict().items())


@WITH_BUDGET
def test_history_is_sane(make: Callable[[], Method]) -> None:
    _, pruner = trained(make)
    assert pruner.history
    for record in pruner.history:
        assert 0 <= record.sparsity < 1
        assert 0 <= record.delta <= 1
        assert 0 <= record.iou <= 1
        assert 0 <= record.flipping <= 1
    assert pruner.history[-1].flipping == 0


@METHODS
def test_exports_and_onnxruntime_agrees(make: Callable[[], Method], tmp_path: Any) -> None:
    from exporters import export
    from runtime_check import load

    model = fold(trained(make)[0]).eval()
    inputs, _ = batch(5)
    export(model, inputs, tmp_path / "model.onnx")
    session = load(tmp_path / "model.onnx", threads=1)
    (output,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), model(inputs).detach(), rtol=1e-4, atol=1e-5)


def test_every_method_is_in_the_table() -> None:
    own_tests = {"fine_tune", "greedy_imitation"}
    named = {make().name for make in (TABLE | TRAIN_ONLY).values()} | own_tests
    assert set(available()) == named
