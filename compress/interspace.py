"""Interspace pruning: masks on coefficients of filter bases that are trained along (002, chapter 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress import bases
from compress.bases import INITIALISATIONS, Basis, Initialisation
from compress.checks import require_whole
from compress.prunable import PrunableWeight, stored_weight
from compress.sharing import Sharing, check_sharing, shared
from compress.subspace import Formula
from compress.suggestion import did_you_mean

_MOST = 16  # times the entries of a kernel; memory grows along, and nothing is gained (002, section 5.5.4)


@dataclass(frozen=True, kw_only=True)
class Interspace:
    """Which filter bases a model gets, and how they begin.

    Args:
        sharing: who shares a basis, see :func:`compress.sharing.shared`.
        basis: standard, onb, random (002, Algorithm 5.1), or fitted to the kernels that the model has.
        size: filters in a basis, n; K² where None. Standard and onb are bases and have K²; fitted has at most K².
        seed: of the random draws.
        large_kernels: give kernels larger than 5x5 a basis too.
    """

    sharing: str
    basis: Initialisation = "standard"
    size: int | None = None
    seed: int = 0
    large_kernels: bool = False

    def __post_init__(self) -> None:
        check_sharing(self.sharing)
        if self.basis not in INITIALISATIONS:
            raise ValueError(f"basis: there is no {self.basis!r}{did_you_mean(str(self.basis), INITIALISATIONS)}")
        if self.size is not None:
            require_whole("basis_size", self.size, 1)
        require_whole("basis_seed", self.seed, 0)

    @torch.no_grad()
    def start(self, model: nn.Module, weights: Sequence[PrunableWeight]) -> tuple[dict[str, Basis], dict[str, Tensor]]:
        """Basis and first coefficients [out, in, n] by weight name; the model is only read.

        Standard, onb and fitted bases of K² filters represent the weights there are, up to rounding; a smaller fitted
        one what is nearest to them. Random ones draw the coefficients anew too, as for a network that begins.

        Raises:
            ValueError: a sharing that fits no layer, or a size that the initialisation cannot have.
        """
        generator = torch.Generator().manual_seed(self.seed)
        chosen: dict[str, Basis] = {}
        coefficients: dict[str, Tensor] = {}
        for sharing in shared(model, weights, self.sharing, large_kernels=self.large_kernels):
            basis = self._basis(sharing, generator)
            for weight in sharing.weights:
                tensor = stored_weight(weight.module)
                chosen[weight.name] = basis
                coefficients[weight.name] = (
                    bases.kaiming(tensor, basis.size, generator)
                    if self.basis == "random"
                    else basis.coefficients(tensor)
                )
        return chosen, coefficients

    def _basis(self, sharing: Sharing, generator: torch.Generator) -> Basis:
        tensors = [stored_weight(weight.module) for weight in sharing.weights]
        height, width = tensors[0].shape[2:]
        size = self._size(height, width)
        filters = [self._filters(part, (height, width), size, generator) for part in _parts(tensors, sharing)]
        basis = Basis(torch.stack(filters).to(tensors[0]), axis=sharing.axis, channels=sharing.channels or 1)
        basis.requires_grad_(any(tensor.requires_grad for tensor in tensors))
        return basis

    def _filters(self, kernels: list[Tensor], kernel: tuple[int, int], size: int, generator: torch.Generator) -> Tensor:
        match self.basis:
            case "standard":
                return bases.standard(kernel)
            case "onb":
                return bases.onb(kernel, generator)
            case "random":
                return bases.random(kernel, size, generator)
            case "fitted":
                return bases.fitted(torch.cat([part.flatten(0, 1) for part in kernels]), size)

    def _size(self, height: int, width: int) -> int:
        complete = height * width
        size = complete if self.size is None else self.size
        if size > _MOST * complete:
            raise ValueError(
                f"basis_size: {size} filters for {height}x{width} kernels would make {size / complete:.3g} "
                f"coefficients of every weight; at most {_MOST * complete} are possible"
            )
        if self.basis in ("standard", "onb") and size != complete:
            raise ValueError(
                f"basis_size: {size} filters are no {self.basis} basis of {height}x{width} kernels, which has "
                f"{complete}; take basis random (any size) or fitted (a smaller one)"
            )
        if self.basis == "fitted" and size > complete:
            raise ValueError(
                f"basis_size: {size} filters cannot be fitted to {height}x{width} kernels, {complete} span them all; "
                "take basis random"
            )
        return size


def _parts(tensors: list[Tensor], sharing: Sharing) -> list[list[Tensor]]:
    """Weights, or slices of the one weight, that each group of filters serves."""
    if sharing.channels is None:
        return [tensors]
    return [[part] for part in torch.split(tensors[0], sharing.channels, dim=sharing.axis)]


@torch.no_grad()
def findings(model: nn.Module, weights: Iterable[PrunableWeight], formulas: Mapping[str, Formula]) -> dict[str, float]:
    """What interspace pruning came to, for a model with the formula attached.

    Returns:
        interspace_sparsity: fraction of coefficients that are masked and zero, weights without a basis included.
        spatial_sparsity: fraction of zeros in the same weights as they are folded and exported.
        basis_parameters: entries of all filters.
        interspace_overall_sparsity: 1 − non-zero parameters of the interspace model, filters included, over the
            parameters of the plain model (how 002, Figure 5.10 counts).
    """
    filters = {id(basis.filters): basis.filters for basis in attached_bases(formulas)}
    coefficients = living = spatial = zeros = 0
    used = set[int]()
    for weight in weights:
        formula, tensor = formulas[weight.name], weight.module.weight
        assert isinstance(tensor, Tensor)
        size, mask = formula.dense(stored_weight(weight.module).detach()).numel(), formula.mask
        coefficients += size
        living += int(torch.count_nonzero(mask)) * (size // mask.numel()) if formula.prunes else size
        used.add(id(stored_weight(weight.module)))
        spatial += tensor.numel()
        zeros += tensor.numel() - int(torch.count_nonzero(tensor))
    others = [p for p in model.parameters() if id(p) not in used and id(p) not in filters]
    basis_parameters = sum(tensor.numel() for tensor in filters.values())
    nonzero = living + basis_parameters + sum(int(torch.count_nonzero(p)) for p in others)
    return {
        "interspace_sparsity": 1 - living / coefficients,
        "spatial_sparsity": zeros / spatial,
        "basis_parameters": basis_parameters,
        "interspace_overall_sparsity": 1 - nonzero / (spatial + sum(p.numel() for p in others)),
    }


def attached_bases(formulas: Mapping[str, Formula]) -> list[Basis]:
    """The bases in use, each once."""
    found = {id(f.basis): f.basis for f in formulas.values() if isinstance(f.basis, Basis)}
    return list(found.values())
