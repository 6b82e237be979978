"""What single methods promise beyond the contract table, and how methods are registered."""

import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch
from method_checks import DATA, STEPS, network, optimizer_of, train, trained, units

from compress import fold, sparsity_report
from compress.budget import keep_count
from compress.methods import DPF, AtInit, FineTune, FreezeNet, Gradual, OneShot, available, settings_of


def test_gradual_never_regrows_and_dpf_does() -> None:
    regrown = {}
    for method in (Gradual, DPF):
        name, model, pruner = method.name, network(), method(sparsity=0.9, ramp_steps=24, period=4)
        pruner.attach(model)
        optimizer = optimizer_of(model)
        regrown[name] = 0
        dead = [~mask for mask in pruner.run.masks()]
        for step in range(STEPS):
            train(model, pruner, optimizer, range(step, step + 1))
            masks = pruner.run.masks()
            regrown[name] += sum(int((d & m).sum()) for d, m in zip(dead, masks, strict=True))
            dead = [~mask for mask in masks]
    assert regrown["gradual"] == 0
    assert regrown["dpf"] > 0


def test_fine_tune_keeps_the_zeros_through_momentum_and_weight_decay() -> None:
    model = fold(trained(lambda: DPF(sparsity=0.9, ramp_steps=24, period=4))[0])
    zeros = [p == 0 for p in model.parameters()]
    before = sparsity_report(model)
    pruner = FineTune()
    pruner.attach(model)
    train(model, pruner, optimizer_of(model), range(20))
    pruner.finish()
    fold(model)
    assert sparsity_report(model).sparsity == before.sparsity
    assert all(bool((p[z] == 0).all()) for p, z in zip(model.parameters(), zeros, strict=True))


def test_filters_keep_one_in_every_layer_unless_told_otherwise() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight.mul_(1e-6)
    OneShot(sparsity=0.6, structure="filters").attach(model)
    assert int((model[0].weight != 0).flatten(1).any(1).sum()) == 1
    model = network()
    with torch.no_grad():
        model[0].weight.mul_(1e-6)
    OneShot(sparsity=0.6, structure="filters", minimum_units=0).attach(model)
    assert int((model[0].weight != 0).sum()) == 0


def test_training_that_ends_early_still_meets_the_budget_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, pruner = network(), DPF(sparsity=0.9, ramp_steps=1000)
    pruner.attach(model)
    train(model, pruner, optimizer_of(model), range(5))
    pruner.finish()
    assert "before the mask was ranked at its last sparsity" in caplog.text
    assert pruner.run.warnings
    counts = units(pruner, fold(model))
    assert sum(alive for _, alive in counts) == keep_count(sum(total for total, _ in counts), 0.9)


def test_an_optimizer_that_was_built_too_early_is_noticed() -> None:
    for early in (True, False):
        model, pruner = network(), FreezeNet(sparsity=0.9)
        before = list(model.parameters())
        pruner.attach(model, DATA)
        optimizer = torch.optim.SGD(before if early else model.parameters(), lr=0.1)
        train(model, pruner, optimizer, range(2))
        assert [w for w in pruner.run.warnings if "build the optimizer after attach" in w] == pruner.run.warnings
        assert len(pruner.run.warnings) == early


def test_a_layer_that_lost_all_its_weights_is_named() -> None:
    model, pruner = network(), OneShot(sparsity=0.5)
    with torch.no_grad():
        model[3].weight.mul_(1e-9)
    pruner.attach(model)
    pruner.finish()
    assert [w for w in pruner.run.warnings if "no weight is left in 3.weight, nothing passes" in w]


def test_what_scores_draw_follows_their_seed() -> None:
    def masks(score: str, seed: int) -> bytes:
        pruner = AtInit(sparsity=0.5, score=score, score_seed=seed)
        pruner.attach(network(), DATA)
        return b"".join(mask.numpy().tobytes() for mask in pruner.run.masks())

    for score in ("random", "usnip"):
        assert masks(score, 0) == masks(score, 0) != masks(score, 1)


def test_planned_fills_only_what_is_open() -> None:
    assert DPF(sparsity=0.9).planned(1000, [500, 750]).ramp_steps == 750
    assert DPF(sparsity=0.9).planned(1000, []).ramp_steps == 750
    assert DPF(sparsity=0.9, ramp_steps=10).planned(1000, [500, 750]).ramp_steps == 10
    assert Gradual(sparsity=0.9, start_step=100).planned(1000, [500, 750]).ramp_steps == 650
    assert OneShot(sparsity=0.9).planned(1000, [500]) == OneShot(sparsity=0.9)


def test_settings_have_help() -> None:
    for method in available().values():
        assert method.summary
        assert method.paper
        assert all(setting.metadata["help"] for setting in settings_of(method))


def test_third_parties_register_through_entry_points(tmp_path: Any) -> None:
    (tmp_path / "third.py").write_text(
        textwrap.dedent("""
        from dataclasses import dataclass
        from typing import ClassVar
        from compress.methods import OneShot
        @dataclass(frozen=True, kw_only=True)
        class Theirs(OneShot):
            name: ClassVar[str] = "theirs"
        """)
    )
    info = tmp_path / "third-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[compress.methods]\ntheirs = third:Theirs\n")
    code = "from compress.methods import create; print(create('theirs', sparsity=0.5))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )
    assert done.stdout.startswith("Theirs("), done.stderr
