"""Greedy imitation: channels are chosen so that what is left computes nearly the same, and are really removed."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import is_pruned
from torch.optim import Optimizer

from compress.checks import patterns, require, require_whole
from compress.greedy.costs import COSTS
from compress.greedy.discrepancy import DISCREPANCIES
from compress.greedy.latency import Stopwatch
from compress.greedy.layerwise import IMITATIONS, Search, ThinnedGroup
from compress.greedy.pruning import GreedyPruning
from compress.greedy.target import ROUNDED, TARGETS, Target
from compress.methods.base import Method, setting
from compress.methods.outcome import Batches, Outcome
from compress.shrink import ShrinkPlan, apply_plan

_Pairs = list[tuple[Tensor, Tensor]]
_MOST = dict.fromkeys(TARGETS, 1.0) | {"loss_gap": math.inf, "accuracy_drop": 100.0}


@dataclass(kw_only=True)
class GreedyRun(Outcome):
    """What was removed: the applied plan, and what became of every channel group by name."""

    applied: ShrinkPlan | None = None
    groups: dict[str, ThinnedGroup] = field(default_factory=dict)

    @property
    def plan(self) -> ShrinkPlan | None:
        """The plan that was applied on attach."""
        return self.applied


@dataclass(frozen=True, kw_only=True)
class GreedyImitation(Method):
    """Thin channel groups by local and global imitation, layer by layer (Ye et al. 2020, algorithms 1 and 2).

    ``attach`` searches on copies, then cuts the model in place: chosen channels stay, their scales N·a_i are folded
    into the layers that read them. Training afterwards fine-tunes an ordinary smaller network. One of the targets must
    be set, or several of macs, parameters and size.
    """

    macs: float | None = setting(None, "target: at most this fraction of the multiply-accumulates is left, in (0, 1]")
    parameters: float | None = setting(None, "target: at most this fraction of the parameters is left, in (0, 1]")
    size: float | None = setting(None, "target: at most this fraction of the bytes of the weights is left, in (0, 1]")
    latency: float | None = setting(
        None, "target: at most this fraction of the latency is left, as measured on this machine, in (0, 1]"
    )
    width: float | None = setting(None, "target: every group keeps this fraction of its channels, in (0, 1]")
    loss_gap: float | None = setting(
        None, "target: ε of the paper: every group loses channels while the cross-entropy rises by less than this"
    )
    accuracy_drop: float | None = setting(None, "target: at most so many points of accuracy lost on held-out batches")
    imitation: str = setting("both", f"how channels are searched: {', '.join(IMITATIONS)}")
    line_search: bool = setting(True, "local imitation looks for the best step; false: the fixed step 1/(k + 1)")
    discrepancy: str = setting("cross_entropy", f"distance of outputs: {', '.join(DISCREPANCIES)}")
    exact_size: int = setting(
        0, "global imitation tries every channel up to this size (25 in the paper), then five by Taylor; 0: always"
    )
    refit: bool = setting(
        True, "the layers that read the channels get new weights by least squares; false: only scales, as in the paper"
    )
    streams: bool = setting(False, "thin also what residual blocks add to")
    exclude: tuple[str, ...] = setting((), "patterns of names of layers that keep their outputs, such as layer4.*")
    round_to: int | str = setting(
        1, "widths are multiples of this many channels; auto: of as many as make the network fastest, by measurement"
    )
    calibration_batches: int = setting(8, "calibration batches, for the statistics")
    held_out_batches: int = setting(8, "further batches, for accuracy_drop")
    seed: int = setting(0, "which batches global imitation draws")

    folder: Path | None = field(default=None, init=False, repr=False, compare=False)
    stopwatch: Stopwatch | None = field(default=None, init=False, repr=False, compare=False)
    _run: GreedyRun | None = field(default=None, init=False, repr=False, compare=False)

    name: ClassVar[str] = "greedy_imitation"
    summary: ClassVar[str] = "remove channels, those that the others can imitate best"
    paper: ClassVar[str] = "Ye, Wu & Liu 2020, Greedy optimization provably wins the lottery"

    def validate(self) -> None:
        """Check target, search and data settings."""
        object.__setattr__(self, "exclude", patterns("exclude", self.exclude))
        chosen = {kind: getattr(self, kind) for kind in TARGETS if getattr(self, kind) is not None}
        if not chosen or (len(chosen) > 1 and not set(chosen) <= set(COSTS)):
            given = ", ".join(chosen) or "none"
            raise ValueError(
                f"macs: exactly one target must be set of {', '.join(TARGETS)}, or several of {', '.join(COSTS)}; "
                f"set: {given}"
            )
        for kind, value in chosen.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            least = value > 0 if number and kind != "accuracy_drop" else number and value >= 0
            bounds = f"a number above 0{'' if math.isinf(_MOST[kind]) else f', at most {_MOST[kind]:g}'}"
            require(bool(least) and value <= _MOST[kind] and math.isfinite(value), kind, value, bounds)
        require(self.imitation in IMITATIONS, "imitation", self.imitation, f"one of {', '.join(IMITATIONS)}")
        require(
            self.discrepancy in DISCREPANCIES, "discrepancy", self.discrepancy, f"one of {', '.join(DISCREPANCIES)}"
        )
        for key in ("exact_size", "seed"):
            require_whole(key, getattr(self, key), 0)
        for key in ("calibration_batches", "held_out_batches"):
            require_whole(key, getattr(self, key), 1)
        if self.round_to != "auto":
            require_whole("round_to", self.round_to, 1)
        elif not set(chosen) <= set(ROUNDED):
            raise ValueError(f"round_to: auto needs a target that tells widths beforehand: {', '.join(ROUNDED)}")

    def planned(self, total_steps: int, lr_drops: Sequence[int]) -> Self:
        """Nothing depends on the length of training."""
        return replace(self)

    def kept_in(self, folder: Path | str) -> Self:
        """The same method, which writes a file for every finished group, and goes on with those it finds there.

        Raises:
            ValueError: there is a file of that name.
        """
        if Path(folder).is_file():
            raise ValueError(f"folder: {folder} is a file; give a folder, or a name that is free")
        kept = copy.copy(self)
        object.__setattr__(kept, "folder", Path(folder))
        object.__setattr__(kept, "_run", None)
        return kept

    def timed_by(self, stopwatch: Stopwatch) -> Self:
        """The same method, which measures latency by this: (thinned, whole network) -> fraction of the latency left.

        Both are given on the CPU in eval mode; they must not be changed.
        """
        timed = copy.copy(self)
        object.__setattr__(timed, "stopwatch", stopwatch)
        object.__setattr__(timed, "_run", None)
        return timed

    def attach(self, model: nn.Module, batches: Batches = ()) -> None:
        """Choose channels and cut ``model`` in place; its modes stay, its cut parameters are new objects.

        Args:
            model: a plain, trained model that maps a batch of inputs to logits [batch, classes].
            batches: (inputs, targets) pairs, not augmented if possible; the first ``calibration_batches`` of them are
                for statistics, the next ``held_out_batches`` for ``accuracy_drop``.

        Raises:
            ValueError: data of the wrong shape or with NaN, nothing that can be thinned, or a target that cannot be
                met, with the best that could. The model is as it was.
        """
        pruning = self._prepare(model, batches)
        with torch.random.fork_rng(devices=[]):
            found = pruning.run(self.folder)
        with torch.no_grad():
            for name, weight in found.weights.items():
                model.get_submodule(name).weight.copy_(weight)  # type: ignore[operator]
        apply_plan(model, found.plan)
        run = GreedyRun(applied=found.plan, groups=dict(found.groups))
        run.findings |= {f"{cost}_left": left for cost, left in found.left.items()}
        object.__setattr__(self, "_run", run)

    def rehearse(self, model: nn.Module, batches: Batches = ()) -> Outcome:
        """Look for channel groups and check that the target is within reach; nothing is searched or cut."""
        self._prepare(model, batches).check_target()
        return GreedyRun()

    def step(self, optimizer: Optimizer | None = None) -> None:
        """Count; the channels were chosen on attach."""
        self.run.step += 1

    def finish(self) -> None:
        """Nothing is left to do."""
        self.run.finished = True

    @property
    def run(self) -> GreedyRun:
        """What was removed.

        Raises:
            ValueError: the method is not attached.
        """
        if self._run is None:
            raise self.unattached()
        return self._run

    def _prepare(self, model: nn.Module, batches: Batches) -> GreedyPruning:
        if self._run is not None and not self._run.finished:
            raise ValueError(f"model: this {self.name} is already at work; call finish() first, or make a second one")
        if not isinstance(model, nn.Module):
            raise ValueError(f"model: {type(model).__name__} is no torch.nn.Module")
        parameter = next(model.parameters(), None)
        if parameter is None:
            raise ValueError("model: it has no parameters, so there are no channels to remove")
        _check_plain(model)
        kind, *further = [kind for kind in TARGETS if getattr(self, kind) is not None]
        calibration, held_out = self._split(kind, batches, parameter.device)
        with torch.random.fork_rng(devices=[]):
            return GreedyPruning(
                model,
                calibration,
                held_out,
                target=Target(
                    kind=kind,
                    value=float(getattr(self, kind)),
                    further={cost: float(getattr(self, cost)) for cost in COSTS if cost in further},
                ),
                search=Search(
                    imitation=self.imitation,
                    step="line_search" if self.line_search else "fixed",
                    discrepancy=self.discrepancy,
                    exact_size=self.exact_size,
                    seed=self.seed,
                    refit=self.refit,
                ),
                streams=self.streams,
                exclude=self.exclude,
                round_to=None if isinstance(self.round_to, str) else self.round_to,
                stopwatch=self.stopwatch,
            )

    def _split(self, kind: str, batches: Batches, device: torch.device) -> tuple[_Pairs, _Pairs]:
        """Batches for calibration, and those held out where the target wants some."""
        wanted = self.held_out_batches if kind == "accuracy_drop" else 0
        if not isinstance(batches, Iterable):
            raise ValueError(f"batches: {type(batches).__name__} is not iterable; give (inputs, targets) batches")
        taken = _checked(list(islice(batches, self.calibration_batches + wanted)), device)
        if wanted and len(taken) <= self.calibration_batches:
            raise ValueError(
                f"held_out_batches: accuracy_drop wants batches beyond the first {self.calibration_batches} "
                f"(calibration_batches), there are {len(taken)}; give more, or lower calibration_batches"
            )
        return taken[: self.calibration_batches], taken[self.calibration_batches :]


def _check_plain(model: nn.Module) -> None:
    """Raise ValueError for what wraps a model, and for weights that are not finite."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError("model: it is TorchScript, whose layers cannot be cut; give the module that it was made from")
    if hasattr(model, "_orig_mod"):
        raise ValueError("model: it is compiled; give the module that was compiled, and compile what comes out")
    if any(is_parametrized(module) for module in model.modules()):
        raise ValueError("model: it is parametrized; fold(model) before channels are removed")
    for name, module in model.named_modules():
        if is_pruned(module) and not list(module.children()):
            raise ValueError(f"model: torch.nn.utils.prune is at work in {name or 'it'}; prune.remove() it first")
        if any(isinstance(value, Tensor) and value.grad_fn is not None for value in vars(module).values()):
            raise ValueError(
                f"model: {name or 'it'} keeps a tensor computed from parameters, as torch.nn.utils.weight_norm does; "
                "make its weights plain first (remove_weight_norm)"
            )
    statistics = [pair for pair in model.named_buffers() if pair[0].endswith(("running_mean", "running_var"))]
    for name, tensor in (*model.named_parameters(), *statistics):  # other buffers may be masks of -inf
        if tensor.is_inference():
            raise ValueError(
                f"model: {name} was made in torch.inference_mode(), which allows no search; make the model outside of "
                "it and load the state there"
            )
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"model: {name} holds NaN or infinite values; repair or retrain the weights")


def _checked(pairs: _Pairs, device: torch.device) -> _Pairs:
    """The batches on the model's device.

    Raises:
        ValueError: there are none, they are no pairs of tensors, of different shapes, or hold NaN.
    """
    if not pairs:
        raise ValueError("batches: empty; greedy imitation needs (inputs, targets) batches for its statistics")
    for number, pair in enumerate(pairs):
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(x, Tensor) for x in pair)):
            raise ValueError(f"batches: number {number} is no pair of tensors (inputs, targets)")
        inputs, targets = pair
        if not (inputs.dim() and targets.dim()):
            raise ValueError(f"batches: number {number} is a single sample; add a first dimension, [None]")
        if inputs.shape[1:] != pairs[0][0].shape[1:]:
            raise ValueError(
                f"batches: number {number} has inputs of shape {list(inputs.shape[1:])}, the first one "
                f"{list(pairs[0][0].shape[1:])}; calibration inputs must be of one shape"
            )
        if len(inputs) == 0 or len(inputs) != len(targets):
            raise ValueError(f"batches: number {number} has {len(inputs)} inputs and {len(targets)} targets")
        if not bool(torch.isfinite(inputs).all()):
            raise ValueError(f"batches: number {number} holds NaN or infinity; clean the calibration data")
    return [(inputs.to(device), targets.to(device)) for inputs, targets in pairs]
