"""Which samples a score looks at: so many of each class, some classes only, or one batch after the other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor

from compress.checks import require_whole

Batch = tuple[Tensor, Tensor]


def pair(batch: object) -> Batch:
    """``batch``, when it is (inputs, targets) of as many samples each.

    Raises:
        ValueError: it is something else, or empty.
    """
    match batch:
        case (Tensor() as inputs, Tensor() as targets) if inputs.dim() and targets.dim():
            if len(inputs) != len(targets):
                raise ValueError(f"batches: one of them has {len(inputs)} inputs and {len(targets)} targets")
            if not len(inputs):
                raise ValueError("batches: one of them is empty")
            return inputs, targets
    raise ValueError(f"batches: one of them is no pair of tensors (inputs, targets) but {type(batch).__name__}")


def class_balanced(batches: Iterable[Batch], *, per_class: int, classes: Collection[int]) -> list[Batch]:
    """The first ``per_class`` samples of each class, as one batch in order of class (GraSP: 10 a class).

    Args:
        batches: (inputs, integer targets), read only as far as needed.
        per_class: samples of each class.
        classes: the classes wanted; a subset is the partial class information of 000, section IV-D.

    Raises:
        ValueError: a wrong argument, or the batches end before every class has enough samples.
    """
    require_whole("per_class", per_class, 1)
    if not classes:
        raise ValueError("classes: none given; write range(number of classes)")
    found: dict[int, list[Tensor]] = {label: [] for label in sorted(set(classes))}
    missing = per_class * len(found)
    for inputs, targets in map(pair, batches):
        for sample, target in zip(inputs, targets.tolist(), strict=True):
            if len(found.get(target, range(per_class))) < per_class:
                found[target].append(sample)
                missing -= 1
        if not missing:
            break
    absent = [label for label, samples in found.items() if not samples]
    if absent:
        raise ValueError(
            f"classes: no sample of class {absent[0]} is in the batches; leave it out, or give more batches"
        )
    short = [label for label, samples in found.items() if len(samples) < per_class]
    if short:
        raise ValueError(
            f"batches: only {len(found[short[0]])} of {per_class} samples of class {short[0]} were found; "
            "give more batches or lower per_class"
        )
    labels = torch.tensor([label for label in found for _ in range(per_class)])
    return [(torch.stack([sample for samples in found.values() for sample in samples]), labels)]


def of_classes(batches: Iterable[Batch], classes: Collection[int]) -> Iterator[Batch]:
    """The samples whose class is among ``classes``; batches that have none are left out."""
    wanted = torch.tensor(sorted(set(classes)))
    for inputs, targets in map(pair, batches):
        chosen = torch.isin(targets, wanted.to(targets.device))
        if bool(chosen.any()):
            yield inputs[chosen], targets[chosen]


@contextmanager
def undisturbed(batches: Iterable[Batch]) -> Iterator[None]:
    """Leave the random states that a shuffling loader draws its order from as they are: torch's, and its own.

    Raises:
        ValueError: a loader whose worker processes serve one pass at a time, so that a second one cuts the first short.
    """
    if getattr(batches, "persistent_workers", False):
        raise ValueError(
            "batches: a loader with persistent_workers can be gone through by one reader at a time; "
            "give a second loader of the same data"
        )
    generator = getattr(batches, "generator", None)
    state = generator.get_state() if isinstance(generator, torch.Generator) else None
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            if isinstance(generator, torch.Generator) and state is not None:
                generator.set_state(state)


class Cycle:
    """Batches one at a time, from the beginning again after the last; random states are left alone.

    Attributes:
        taken: batches given so far, which :meth:`skip` takes to go on in the same place.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.taken = 0
        self._batches = batches
        self._open: Iterator[Batch] = iter(())

    def take(self) -> Batch:
        """The next batch.

        Raises:
            ValueError: there is none, or none is left of an iterator that can be gone through only once.
        """
        with undisturbed(self._batches):
            batch = next(self._open, None)
            if batch is None:
                self._open = iter(self._batches)
                batch = next(self._open, None)
        if batch is None:
            raise ValueError(
                "batches: there are none, or none are left; give (inputs, targets) pairs in a list or loader that can "
                "be gone through again and again"
            )
        self.taken += 1
        return pair(batch)

    def check(self) -> None:
        """Raise what the first :meth:`take` would raise; the batch that is read is given there."""
        first = self.take()
        self.taken, self._open = 0, chain([first], self._open)

    def skip(self, count: int) -> None:
        """Pass over ``count`` batches."""
        for _ in range(count):
            self.take()
