"""Pruning before training: the masks are those of the scores, and what can be wrong is named."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress import fold, prunable_weights, sparsity_report
from compress.budget import allocate, keep_count
from compress.cops import cops, similarity
from compress.methods import AtInit
from compress.scores import grasp, snip

Batch = tuple[Tensor, Tensor]


def network(depth: int = 2, width: int = 12) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(16, width)]
    for _ in range(depth):
        layers += [nn.ReLU(), nn.Linear(width, width)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(width, 4))


def data(count: int = 3) -> list[Batch]:
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(12, 1, 4, 4, generator=generator), torch.arange(12) % 4) for _ in range(count)]


def masks_after(model: nn.Module, pruner: AtInit, batches: list[Batch]) -> list[Tensor]:
    pruner.attach(model, batches)
    return [mask.clone() for mask in pruner.run.masks()]


def weights_of(model: nn.Module) -> Any:
    return prunable_weights(model, skip_last_linear=False).weights


def assert_same(masks: list[Tensor], expected: list[Tensor]) -> None:
    assert all(torch.equal(one, other) for one, other in zip(masks, expected, strict=True))


def test_snip_keeps_the_most_sensitive_connections() -> None:
    model = network()
    expected = allocate(snip(model, weights_of(model), data()), 0.9)
    assert_same(masks_after(model, AtInit(sparsity=0.9), data()), expected)


def test_cops_is_that_of_the_two_scores_and_reports_itself() -> None:
    model = network()
    target, control = (score(model, weights_of(model), data()) for score in (snip, grasp))
    keep = keep_count(sum(t.numel() for t in target), 0.9)
    solution = cops(target, control, keep=keep, alpha=0.95)
    pruner = AtInit(sparsity=0.9, control="grasp", alpha=0.95)
    masks = masks_after(model, pruner, data())
    assert sum(int(mask.sum()) for mask in solution.masks) == keep
    assert_same(masks, solution.masks)
    found = pruner.run.findings
    assert found["multiplier"] == solution.multiplier > 0
    assert 0 < found["parent_similarity"] <= found["target_similarity"] < 1
    assert found["control_similarity"] == solution.control_similarity
    assert found["control_score"] <= found["kappa"] < 0
    assert not pruner.run.warnings


def test_cops_under_another_budget_says_what_its_mask_comes_to() -> None:
    model = network()
    pruner = AtInit(sparsity=0.5, structure="2:4", control="grasp", alpha=0.999)
    masks = masks_after(model, pruner, data())
    fresh = network()
    control = torch.cat([score.flatten() for score in grasp(fresh, weights_of(fresh), data())]).double()
    chosen = torch.cat([mask.flatten() for mask in masks])
    found = pruner.run.findings
    assert found["control_score"] == pytest.approx(-float(control[chosen].sum() / control.abs().sum()))
    assert found["control_score"] > found["kappa"]
    assert "above κ" in pruner.run.warnings[0]
    # Similarities are those of masks of the same structure.
    alone = masks_after(network(), AtInit(sparsity=0.5, structure="2:4", score="grasp"), data())
    assert found["control_similarity"] == similarity(chosen, torch.cat([mask.flatten() for mask in alone]))


def test_budgets_are_exact_where_cops_would_keep_fewer() -> None:
    model = network()
    pruner = AtInit(sparsity=0.05, score="grasp", control="magnitude", alpha=0.1)
    masks = masks_after(model, pruner, data())
    total = sum(mask.numel() for mask in masks)
    assert sum(int(mask.sum()) for mask in masks) == keep_count(total, 0.05)


def test_synflow_in_a_hundred_rounds_leaves_every_layer_a_path_where_one_round_cuts_one() -> None:
    """Layer collapse: Tanaka et al. 2020, Figure 1 and Theorem 3."""

    def uneven() -> nn.Module:
        model = network(depth=4)
        with torch.no_grad():
            for number, layer in enumerate(m for m in model if isinstance(m, nn.Linear)):
                layer.weight.mul_(0.1 if number == 3 else 1.0)
        return model

    def living(score: str, rounds: int) -> list[int]:
        return [
            int(mask.sum()) for mask in masks_after(uneven(), AtInit(sparsity=0.98, score=score, rounds=rounds), data())
        ]

    assert 0 in living("magnitude", 1)
    assert min(living("synflow", 100)) > 0


def test_only_as_many_batches_are_read_as_asked_for() -> None:
    model = network()
    expected = allocate(snip(model, weights_of(model), data()[:1]), 0.9)
    assert_same(masks_after(model, AtInit(sparsity=0.9, score_batches=1), data()), expected)


def test_a_generator_will_do_even_for_two_scores_in_many_rounds() -> None:
    pruner = AtInit(sparsity=0.9, control="usnip", alpha=0.5, rounds=3, per_class=2)
    pruner.attach(network(), (batch for batch in data()))
    total = sum(mask.numel() for mask in pruner.run.masks())
    assert sum(int(mask.sum()) for mask in pruner.run.masks()) == keep_count(total, 0.9)


def test_partial_class_information_reads_no_other_class() -> None:
    def poisoned(batches: list[Batch]) -> list[Batch]:
        return [(torch.where((y >= 2).view(-1, 1, 1, 1), torch.nan, x), y) for x, y in batches]

    for settings in ({}, {"per_class": 2}):
        pruner = AtInit(sparsity=0.9, classes=(0, 1), **settings)
        masks = masks_after(network(), pruner, poisoned(data()))
        assert_same(masks, masks_after(network(), AtInit(sparsity=0.9, classes=(0, 1), **settings), data()))


def test_a_class_that_is_not_there_is_said() -> None:
    pruner = AtInit(sparsity=0.9, classes=(1, 9))
    pruner.attach(network(), data())
    assert pruner.run.warnings == ["at_init: the batches that were read hold no sample of classes [9]"]


def test_what_a_model_must_give_is_said() -> None:
    with pytest.raises(ValueError, match=r"model: its output is \[12\]; this score needs logits"):
        AtInit(sparsity=0.5).attach(nn.Sequential(network(), nn.Linear(4, 1), nn.Flatten(0)), data())


def test_targets_of_any_whole_type_will_do() -> None:
    short = [(inputs, targets.int()) for inputs, targets in data()]
    assert_same(masks_after(network(), AtInit(), short), masks_after(network(), AtInit(), data()))


def test_a_score_that_ranks_nothing_is_refused() -> None:
    model = network()
    nn.init.zeros_(model[-1].weight)  # type: ignore[arg-type]
    for score in ("snip", "usnip", "synflow"):
        with pytest.raises(ValueError, match=f"score: {score} is zero for every weight"):
            AtInit(sparsity=0.5, score=score).attach(model, data())


def test_masked_weights_stay_zero_through_momentum_and_weight_decay() -> None:
    model, pruner = network(), AtInit(sparsity=0.9)
    pruner.attach(model, data())
    before = pruner.run.masks()[0].clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for inputs, targets in data():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        pruner.step()
    pruner.finish()
    fold(model)
    assert torch.equal(model[1].weight != 0, before)  # type: ignore[index,union-attr]
    assert sparsity_report(model).sparsity == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "snop"}, "score: there is no 'snop'; did you mean 'snip'"),
        ({"score": None}, "score: there is no None"),
        ({"control": "gasp"}, "control: there is no 'gasp'; did you mean 'grasp'"),
        ({"alpha": 1.0}, r"alpha: 1.0 is not in \[0, 1\)"),
        ({"alpha": "x"}, "alpha: 'x'"),
        ({"rounds": 0}, "rounds: 0"),
        ({"score_batches": 0}, "score_batches: 0"),
        ({"per_class": 0}, "per_class: 0"),
        ({"classes": ()}, "classes: "),
        ({"classes": (-1,)}, "classes: -1"),
    ],
)
def test_wrong_settings_name_the_argument(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AtInit(**settings)


@pytest.mark.parametrize(
    ("settings", "batches", "message"),
    [
        ({}, [], "batches: there are none"),
        ({"per_class": 3}, [], "batches: there are none"),
        ({"per_class": 13}, data(1), "only 3 of 13 samples of class 0"),
        ({"classes": (9,)}, data(), r"classes: no sample of \[9\] is in the batches"),
        ({"classes": (9,), "per_class": 2}, data(), "classes: no sample of class 9"),
        ({}, [data()[0][0]], "batches: one of them is no pair"),
        ({}, [(data()[0][0], torch.arange(3))], "batches: one of them has 12 inputs and 3 targets"),
        ({}, [(data()[0][0], torch.full((12,), 4))], "batches: a target is class 4, but the model has 4 classes"),
        ({}, [(data()[0][0], torch.full((12,), -1))], "batches: a target is class -1"),
    ],
)
def test_data_that_does_not_do_leaves_the_model_alone(
    settings: dict[str, Any], batches: list[Batch], message: str
) -> None:
    model = network()
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        AtInit(**settings).attach(model, batches)
    assert list(model.state_dict()) == keys
