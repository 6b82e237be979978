"""A copy of the model to take gradients of: whatever happens to it, the model itself does not notice."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.prunable import PrunableWeight, stored_weight
from compress.sampling import Batch, pair
from compress.subspace import Subspace, fold, formula_of


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A copy of a model whose coefficients β, and they alone, want a gradient, masked ones included.

    Attributes:
        model: the copy.
        names: names of the weights in the model.
        coefficients: β of each weight, leaves of the graph.
        masks: which of them live, broadcastable to β.
    """

    model: nn.Module
    names: tuple[str, ...]
    coefficients: list[Tensor]
    masks: list[Tensor]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.coefficients[0].device

    def values(self) -> list[Tensor]:
        """m ⊙ β, the coefficients as the network uses them."""
        return [torch.where(mask, beta.detach(), 0.0) for beta, mask in zip(self.coefficients, self.masks, strict=True)]

    def gradients(self, output: Tensor, *, create_graph: bool = False) -> list[Tensor]:
        """∂output/∂W for each weight, zeros where it has no influence.

        Raises:
            ValueError: no weight has any.
        """
        found: Sequence[Tensor | None]
        try:
            found = torch.autograd.grad(output, self.coefficients, create_graph=create_graph, allow_unused=True)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            found = [None] * len(self.coefficients)
        if all(gradient is None for gradient in found):
            raise ValueError(
                f"model: its output has no gradient with respect to {self.names[0]} or any other prunable weight; "
                "a score needs a differentiable forward pass (no torch.no_grad, no .detach inside)"
            )
        return [
            torch.zeros_like(beta) if gradient is None else gradient
            for beta, gradient in zip(self.coefficients, found, strict=True)
        ]


@contextmanager
def probe(model: nn.Module, weights: Sequence[PrunableWeight], *, dtype: torch.dtype | None = None) -> Iterator[Probe]:
    """A :class:`Probe` of ``model``; the random state is given back at the end.

    Weights whose masked coefficients go on acting (FreezeNet) are probed as the plain ones that they amount to.
    """
    if not weights:
        raise ValueError("weights: none given; prunable_weights(model).weights lists them")
    twin = copy.deepcopy(model)
    if dtype is not None:
        twin.to(dtype)
    twin.requires_grad_(False)
    coefficients, masks = [], []
    for weight in weights:
        module = twin.get_submodule(weight.name.rpartition(".")[0])
        formula = formula_of(module)
        if formula is not None and not formula.prunes:
            fold(module)
        beta = stored_weight(module).requires_grad_(True)
        mask = torch.ones((), dtype=torch.bool, device=beta.device)
        if isinstance(formula, Subspace) and formula.prunes:
            formula.straight_through, formula.normalised_axis = True, None
            mask = formula.mask
        coefficients.append(beta)
        masks.append(mask)
    devices = {beta.device.index or 0 for beta in coefficients if beta.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)), torch.enable_grad():
        yield Probe(model=twin, names=tuple(weight.name for weight in weights), coefficients=coefficients, masks=masks)


def losses(
    probed: Probe, batches: Iterable[Batch], *, temperature: float = 1.0, labels: torch.Generator | None = None
) -> Iterator[tuple[Tensor, int]]:
    """Mean cross-entropy and size of each batch, in train mode as training will begin.

    Args:
        probed: the copy of the model.
        batches: (inputs, integer targets).
        temperature: logits are divided by it first.
        labels: draw the targets uniformly from this generator instead of reading them.

    Raises:
        ValueError: there is no batch, or an empty one.
    """
    probed.model.train()
    seen = 0
    for inputs, targets in map(pair, batches):
        logits = probed.model(inputs.to(probed.device))
        if not isinstance(logits, Tensor) or logits.dim() < 2:
            shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"model: its output is {shape}; this score needs logits [batch, classes]")
        if labels is not None:
            targets = torch.randint(logits.shape[1], (len(inputs),), generator=labels)
        if not targets.is_floating_point():
            targets = targets.long()
        _check_classes(targets, logits.shape[1])
        yield functional.cross_entropy(logits / temperature, targets.to(probed.device)), len(inputs)
        seen += len(inputs)
    if not seen:
        raise ValueError("batches: there are none; this score needs (inputs, targets) pairs")


def _check_classes(targets: Tensor, classes: int) -> None:
    if targets.is_floating_point():  # probabilities
        return
    wrong = targets[((targets < 0) | (targets >= classes)) & (targets != _IGNORED)]
    if wrong.numel():
        raise ValueError(
            f"batches: a target is class {int(wrong[0])}, but the model has {classes} classes, 0 to {classes - 1}"
        )


_IGNORED = -100  # by cross_entropy


def mean_gradients(probed: Probe, terms: Iterable[tuple[Tensor, int]]) -> list[Tensor]:
    """∂L/∂W of the mean loss over all samples of ``terms``, pairs of mean loss and sample count."""
    total, samples = [torch.zeros_like(beta) for beta in probed.coefficients], 0
    for loss, count in terms:
        for summed, gradient in zip(total, probed.gradients(loss), strict=True):
            summed += count * gradient
        samples += count
    return [summed / samples for summed in total]
