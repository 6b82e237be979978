"""Scores against finite differences, full Hessians and conservation laws; and the model is left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compress import attach, prunable_weights
from compress.prunable import PrunableWeight
from compress.sampling import class_balanced, of_classes
from compress.scores import SCORES, Score, gradient, grasp, magnitude, random, score_called, snip, synflow, usnip

Batch = tuple[Tensor, Tensor]


def tiny(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3, bias=False))
    return model.to(dtype)


def weights_of(model: nn.Module) -> tuple[PrunableWeight, ...]:
    return prunable_weights(model, skip_last_linear=False).weights


def batches_of(count: int = 2, dtype: torch.dtype = torch.float64) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4 - n, 1, 3, 3, generator=generator, dtype=dtype), torch.randint(3, (4 - n,), generator=generator))
        for n in range(count)
    ]


def mean_loss(model: nn.Module, batches: list[Batch], temperature: float = 1.0) -> Tensor:
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    return functional.cross_entropy(model(inputs) / temperature, targets)


def naive(model: nn.Module, function: Callable[[nn.Module], float], *, relative: bool) -> list[Tensor]:
    """Central differences of ``function``, weight by weight: by a factor on the weight, or by a summand."""
    found = []
    for weight in weights_of(model):
        tensor = weight.module.weight
        assert isinstance(tensor, Tensor)
        flat, slopes = tensor.detach().view(-1), torch.zeros(tensor.numel(), dtype=tensor.dtype)
        for index in range(tensor.numel()):
            kept, step = float(flat[index]), 1e-5
            sides = []
            for sign in (1, -1):
                flat[index] = kept * (1 + sign * step) if relative else kept + sign * step
                sides.append(function(model))
            flat[index] = kept
            slopes[index] = (sides[0] - sides[1]) / (2 * step)
        found.append(slopes.view_as(tensor))
    return found


def assert_equal(scores: list[Tensor], expected: list[Tensor], tolerance: float = 1e-7) -> None:
    for one, other in zip(scores, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_snip_is_the_slope_of_the_loss_by_a_factor_on_each_weight() -> None:
    model, batches = tiny(), batches_of()
    expected = naive(model, lambda m: mean_loss(m, batches).item(), relative=True)
    assert_equal(snip(model, weights_of(model), batches), [slope.abs() for slope in expected])


def test_gradient_is_the_slope_of_the_loss() -> None:
    model, batches = tiny(), batches_of()
    expected = naive(model, lambda m: mean_loss(m, batches).item(), relative=False)
    assert_equal(gradient(model, weights_of(model), batches), [slope.abs() for slope in expected])


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_half_the_slope_of_the_squared_gradient_norm(temperature: float) -> None:
    model, batches = tiny(), batches_of()

    def half_squared_norm(m: nn.Module) -> float:
        tensors = [w.module.weight for w in weights_of(m)]
        gradients = torch.autograd.grad(mean_loss(m, batches, temperature), tensors)
        return 0.5 * sum(float((g**2).sum()) for g in gradients)

    expected = naive(model, half_squared_norm, relative=True)
    scale = temperature**-2
    scores = grasp(model, weights_of(model), batches, temperature=temperature)
    assert_equal([s / scale for s in scores], [e / scale for e in expected], 1e-5)
    assert any(bool((score < 0).any()) for score in scores)


def test_several_batches_count_as_one_large_one() -> None:
    model, batches = tiny(), batches_of(3)
    joined = [(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))]
    for score in (snip, grasp, gradient):
        assert_equal(score(model, weights_of(model), batches), score(model, weights_of(model), joined), 1e-12)


def test_usnip_reads_no_labels() -> None:
    model, batches = tiny(), batches_of()
    others = [(x, (y + 1) % 3) for x, y in batches]
    assert_equal(usnip(model, weights_of(model), batches), usnip(model, weights_of(model), others), 0)
    different = usnip(model, weights_of(model), batches, seed=1)
    assert not torch.equal(different[0], usnip(model, weights_of(model), batches)[0])
    generator = torch.Generator().manual_seed(0)
    drawn = [(x, torch.randint(3, (len(x),), generator=generator)) for x, _ in batches]
    assert_equal(usnip(model, weights_of(model), batches), snip(model, weights_of(model), drawn), 0)


def relu_network() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(1, 4, 2, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 6, bias=False),
        nn.ReLU(),
        nn.Linear(6, 3, bias=False),
    )


def test_synflow_does_not_see_biases() -> None:
    model = tiny(torch.float32)
    before = synflow(model, weights_of(model), batches_of(dtype=torch.float32))
    with torch.no_grad():
        model[0].bias.fill_(5.0)  # type: ignore[union-attr,operator,index]
    assert_equal(synflow(model, weights_of(model), batches_of(dtype=torch.float32)), before, 0)


def test_synflow_is_conserved_by_layers_and_by_units() -> None:
    model = relu_network()
    first, second, third = synflow(model, weights_of(model), batches_of(dtype=torch.float32))
    sums = [float(score.sum()) for score in (first, second, third)]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-12)
    torch.testing.assert_close(second.sum(dim=1), third.sum(dim=0))  # into a hidden unit and out of it
    torch.testing.assert_close(first.sum(dim=(1, 2, 3)), second.view(6, 4, 4).sum(dim=(0, 2)))
    absolute = copy.deepcopy(model).double()
    with torch.no_grad():
        for parameter in absolute.parameters():
            parameter.abs_()
    assert float(absolute(torch.ones(1, 1, 3, 3, dtype=torch.float64)).detach().sum()) == pytest.approx(sums[0])


@pytest.mark.parametrize("score", [snip, synflow])
def test_rescaling_between_layers_changes_nothing(score: Score) -> None:
    model, batches = relu_network(), batches_of(dtype=torch.float32)
    before = score(model, weights_of(model), batches)
    with torch.no_grad():
        model[0].weight.mul_(7.0)  # type: ignore[union-attr,operator]
        model[3].weight.div_(7.0)  # type: ignore[union-attr,operator]
    assert_equal(score(model, weights_of(model), batches), before, 1e-5)


def test_magnitude_and_random() -> None:
    model = tiny(torch.float32)
    assert_equal(magnitude(model, weights_of(model)), [w.module.weight.detach().abs() for w in weights_of(model)], 0)
    once, again = (random(model, weights_of(model), seed=3) for _ in range(2))
    assert_equal(once, again, 0)
    assert not torch.equal(once[0], random(model, weights_of(model), seed=4)[0])
    assert all(bool(((score >= 0) & (score < 1)).all()) for score in once)


def awkward() -> nn.Module:
    """BatchNorm, dropout, hooks, old gradients, mixed modes."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3)
    )
    model[1].eval()
    model[5].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    return model


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("attached", [False, True])
def test_the_model_is_left_as_it_was(name: str, attached: bool) -> None:
    model, batches = awkward(), batches_of(dtype=torch.float32)
    weights = weights_of(model)
    if attached:
        attach(weights, masks={w.name: torch.rand(w.module.weight.shape) > 0.5 for w in weights})
    calls: list[int] = []
    model[0].register_forward_hook(lambda *_: calls.append(1))  # type: ignore[index,union-attr]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    scores = SCORES[name](model, weights, batches)
    assert [score.shape for score in scores] == [weight.module.weight.shape for weight in weights]
    assert all(bool(torch.isfinite(score).all()) and not score.requires_grad for score in scores)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    for parameter, old in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (old is None)
        assert old is None or torch.equal(parameter.grad, old)  # type: ignore[arg-type]


def test_masked_weights_have_no_saliency_but_a_gradient() -> None:
    model, batches = tiny(), batches_of()
    weights = weights_of(model)
    masks = {w.name: torch.arange(w.module.weight.numel()).view_as(w.module.weight) % 2 == 0 for w in weights}  # type: ignore[arg-type,operator]
    attach(weights, masks=masks)
    masked = [~masks[weight.name] for weight in weights]
    assert all(bool((s[m] == 0).all()) for s, m in zip(snip(model, weights, batches), masked, strict=True))
    assert all(bool((s[m] != 0).any()) for s, m in zip(gradient(model, weights, batches), masked, strict=True))


@pytest.mark.parametrize("name", ["snip", "usnip", "grasp", "gradient", "synflow"])
def test_data_that_is_missing(name: str) -> None:
    model = tiny()
    with pytest.raises(ValueError, match="batches: there are none"):
        SCORES[name](model, weights_of(model), [])
    with pytest.raises(ValueError, match="batches: "):
        SCORES[name](model, weights_of(model), [(torch.zeros(0, 1, 3, 3), torch.zeros(0, dtype=torch.long))])


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow"])
def test_a_model_without_gradients_is_named(name: str) -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(9, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.flatten(1)).detach()  # type: ignore[no-any-return]

    model = Frozen()
    with pytest.raises(ValueError, match=r"model: its output has no gradient with respect to fc\.weight"):
        SCORES[name](model, weights_of(model), batches_of(dtype=torch.float32))


def test_unknown_score() -> None:
    with pytest.raises(ValueError, match="score: there is no 'snap'; did you mean 'snip'"):
        score_called("snap")
    with pytest.raises(ValueError, match="weights: none given"):
        snip(tiny(), [], batches_of())


def labelled(targets: list[int]) -> Batch:
    return torch.arange(float(len(targets))).view(-1, 1), torch.tensor(targets)


def test_class_balanced_takes_the_first_of_each_class_and_no_more_data_than_needed() -> None:
    def stream() -> object:
        yield labelled([0, 0, 0, 1])
        yield labelled([2, 1, 0])
        raise AssertionError("read too far")

    ((inputs, targets),) = class_balanced(stream(), per_class=2, classes=[1, 0])  # type: ignore[arg-type]
    assert targets.tolist() == [0, 0, 1, 1]
    assert inputs.flatten().tolist() == [0, 1, 3, 1]


def test_class_balanced_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="only 1 of 2 samples of class 2"):
        class_balanced([labelled([0, 0, 2])], per_class=2, classes=range(3)[::2])
    with pytest.raises(ValueError, match="per_class: 0"):
        class_balanced([labelled([0])], per_class=0, classes=[0])
    with pytest.raises(ValueError, match="classes: none"):
        class_balanced([labelled([0])], per_class=1, classes=[])


def test_partial_class_information() -> None:
    kept = list(of_classes([labelled([0, 1, 2]), labelled([1, 1]), labelled([2, 0])], {0, 2}))
    assert [targets.tolist() for _, targets in kept] == [[0, 2], [2, 0]]
    assert [inputs.flatten().tolist() for inputs, _ in kept] == [[0, 2], [0, 1]]
