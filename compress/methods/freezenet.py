"""FreezeNet: train a few weights and leave all others at the values that a seed gives (002, chapter 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from compress.checks import require, require_whole
from compress.frozen import DISTRIBUTIONS, FrozenValues, frozen_values
from compress.frozen_subspace import freeze
from compress.methods.base import setting
from compress.methods.run import Run
from compress.methods.scored import ScoredOnce
from compress.prunable import stored_weight

_LARGE_NORM = 0.01


@dataclass(frozen=True, kw_only=True)
class FreezeNet(ScoredOnce):
    """f(m ⊙ Θ + (1 − m) ⊙ Θ₀): the best weights by a score are trained, the others keep their initial value.

    002, Algorithm 3.1. The frozen weights act in the forward and backward pass, so gradients flow where a network
    pruned as hard has none, and one 32-bit seed gives them back. **On attach every prunable weight of the model is
    replaced by the seed's initial value, whatever it was before, and the bias beside it by zero**; the mask is then
    found on that network, as by ``at_init``. Biases and normalisation are trained and stored as they are.

    Memory: only the k trained weights of a layer are a parameter, of shape [k], so that gradient and optimizer state
    have k entries too; :mod:`compress.freezenet_checkpoint` stores no more than them, their positions and the seed.

    ``reinit`` draws all weights anew, from further streams of the same seed, once the mask is found (section 3.4.3).
    ``weight_decay`` makes it FreezeNet-WD (section 3.4.1.2): the optimizer's weight decay acts on the untrained
    weights too and shrinks them, and ``finish`` sets them to zero. Their gradient is zero then, but it is dense.
    """

    sparsity: float = setting(0.9, "fraction of prunable units that stay frozen, in [0, 1]; 1 trains biases only")
    score_batches: int = setting(1, "batches of training data that a score reads at most")
    seed: int = setting(0, "32-bit seed of all initial values")
    initialisation: str = setting(
        "xavier_normal", "distribution of the initial values: xavier_normal, kaiming_uniform or signed_constant (±σ)"
    )
    reinit: bool = setting(False, "draw all weights anew once the mask is found")
    weight_decay: bool = setting(
        False, "FreezeNet-WD: untrained weights decay with the optimizer's weight decay and are zero in the end"
    )

    name: ClassVar[str] = "freezenet"
    summary: ClassVar[str] = "train a few weights; the others stay as a seed made them, or decay to zero"
    paper: ClassVar[str] = "Wimmer et al. 2020, FreezeNet: Full performance by reduced storage costs"
    all_may_go: ClassVar[bool] = True

    def validate_choice(self) -> None:
        """Check scores, COPS, sampling, seed and initial values."""
        self.check_scores()
        require_whole("seed", self.seed, 0)
        require(self.seed < 2**32, "seed", self.seed, "a 32-bit number, below 4294967296")
        known = isinstance(self.initialisation, str) and self.initialisation in DISTRIBUTIONS
        require(known, "initialisation", self.initialisation, f"one of {', '.join(DISTRIBUTIONS)}")
        if self.weight_decay and self.sparsity == 1:
            raise ValueError("sparsity: 1 leaves nothing in the end where weight_decay is on; take less than 1")

    def masks_at(self, run: Run, step: int) -> list[Tensor] | None:
        """On attach: the best units of the network that the seed makes."""
        if step:
            return None
        with _as_before_on_failure(run):
            _initialise(run, self._sources(run, anew=False))
            masks = self.best_masks(run)
        if self.reinit:
            _initialise(run, self._sources(run, anew=True))
        return masks

    def settle(self, run: Run) -> None:
        """Keep the trained weights alone as parameters; FreezeNet-WD keeps all of them."""
        if self.weight_decay:
            for formula in run.subspaces.values():
                formula.prunes = False
        else:
            masks = {weight.name: run.subspaces[weight.name].mask for weight in run.weights}
            run.subspaces = {**freeze(run.weights, masks, self._sources(run, anew=self.reinit))}
        run.findings["trained_weights"] = float(sum(int(formula.mask.sum()) for formula in run.subspaces.values()))
        run.dynamics.close()

    def final_masks(self, run: Run) -> list[Tensor] | None:
        """The same masks; what FreezeNet-WD did not train is zero from now on."""
        if self.weight_decay:
            _prune_decayed(run)
        return None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`compress.methods.masked.Masked.load_state_dict`; what FreezeNet-WD finished is pruned here too."""
        super().load_state_dict(state)
        if self.weight_decay:
            for formula in self.run.subspaces.values():
                formula.prunes = self.run.finished

    @torch.no_grad()
    def _sources(self, run: Run, *, anew: bool) -> dict[str, FrozenValues]:
        """One stream of the seed a layer, in layer order; ``anew`` takes the streams after all of these.

        Coefficients of a filter basis get the variance of kernel entries, however many there are of them, because
        kernels have theirs then (002, Algorithm 5.1, lines 19 and 20).
        """
        spatial = {weight.name: tuple(cast(Tensor, weight.module.weight).shape) for weight in run.weights}
        sources = frozen_values(self.seed, spatial, self.initialisation)
        further = len(sources) if anew else 0
        return {
            weight.name: replace(
                sources[weight.name],
                stream=sources[weight.name].stream + further,
                shape=tuple(run.coefficients(weight).shape),
            )
            for weight in run.weights
        }


@torch.no_grad()
def _initialise(run: Run, sources: Mapping[str, FrozenValues]) -> None:
    for weight in run.weights:
        stored = stored_weight(weight.module)
        stored.copy_(sources[weight.name].tensor(stored.device))
        if isinstance(weight.module.bias, Tensor):
            weight.module.bias.zero_()


@contextmanager
def _as_before_on_failure(run: Run) -> Iterator[None]:
    """Give weights and biases their values back when scoring fails: an attach that fails changes nothing."""
    tensors = [t for w in run.weights for t in (stored_weight(w.module), w.module.bias) if isinstance(t, Tensor)]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for tensor, values in zip(tensors, before, strict=True):
                tensor.copy_(values)
        raise


@torch.no_grad()
def _prune_decayed(run: Run) -> None:
    """Set untrained weights to zero, and say what share of the squared norm they still had: δ of 003, equation (1)."""
    norm = lost = 0.0
    for weight in run.weights:
        beta, formula = stored_weight(weight.module), run.subspaces[weight.name]
        norm += float(torch.linalg.vector_norm(beta)) ** 2
        lost += float(torch.linalg.vector_norm(torch.where(formula.mask, 0.0, beta))) ** 2
        beta.copy_(torch.where(formula.mask, beta, 0.0))  # a state_dict taken from now on says it without a flag
        formula.prunes = True
    share = lost / norm if norm else 0.0
    run.findings["untrained_norm_share"] = share
    if share > _LARGE_NORM:
        run.warn(
            f"freezenet: untrained weights still held {share:.1%} of the squared norm when they were set to zero; "
            "train longer, with more weight decay or a higher learning rate, or leave weight_decay off and keep them"
        )
