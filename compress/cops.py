"""COPS: the best mask for one score that is good enough for another (000, Algorithm 1; proofs in 002, chapter 4).

    min S₀(m)   such that   S₁(m) ≤ κ = α · κ_min,   ‖m‖₀ ≤ σ

is solved through its dual, a concave function g of one multiplier λ: the solution keeps the σ most negative
s⁽⁰⁾ + λ* s⁽¹⁾. Bisection, helped by tangents, finds λ*; of the weights that are tied there, those live that fill up
what κ allows. Two things make it fast and change nothing: a sample of the weights says where λ* will be, and weights
that are surely in or out for every λ left are set aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.budget import kth_smallest
from compress.checks import require


@dataclass(frozen=True, kw_only=True)
class Cops:
    """A COPS mask and what is known of it.

    Attributes:
        masks: bool, one a score tensor; at most ``keep`` ones in all.
        importance: −(s⁽⁰⁾ + λ* s⁽¹⁾) of every weight, float64; the mask keeps the largest.
        multiplier: λ*.
        kappa: κ, what S₁ may come to at most.
        kappa_min: κ_min, the least that S₁ of a mask of this size can come to.
        target_similarity: sim (13) to the mask of the target score alone.
        control_similarity: sim (13) to the mask of the control score alone.
        parent_similarity: sim (13) of those two.
    """

    masks: list[Tensor]
    importance: list[Tensor]
    multiplier: float
    kappa: float
    kappa_min: float
    target_similarity: float
    control_similarity: float
    parent_similarity: float


def cops(
    target: Sequence[Tensor], control: Sequence[Tensor], *, keep: int, alpha: float, precision: float = 1e-12
) -> Cops:
    """The mask of at most ``keep`` weights that is best by ``target`` while good enough by ``control``.

    Args:
        target: importance by the target score, one tensor a weight, larger is better (SNIP in 000).
        control: importance by the control score, same shapes (GraSP, magnitude, USNIP: G-, M-, U-COPS).
        keep: σ, the weights that live.
        alpha: α in [0, 1): 0 hardly constrains, towards 1 the mask becomes that of the control score.
        precision: δ, how far g may be from its maximum; scores are normalised to Σ|s| = 1 (the paper takes 1e-6).

    Returns:
        The mask, which fulfils S₁ ≤ κ. The printed (11) takes s⁽⁰⁾ for the index set of κ_min; that is a misprint
        for s⁽¹⁾, as in (4.27) of 002.

    Raises:
        ValueError: an argument out of range, other shapes, NaN, or a control score that is nowhere positive.
    """
    for argument, value in (("alpha", alpha), ("precision", precision)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        require(number and 0 <= value < 1, argument, value, "a number in [0, 1)")
    require(len(target) > 0, "target", target, "a list of at least one score tensor")
    shapes = [score.shape for score in target]
    if shapes != [score.shape for score in control]:
        raise ValueError("control: its tensors have other shapes than those of target")
    first, second = _normalised("target", target), _normalised("control", control)
    require(
        isinstance(keep, int) and not isinstance(keep, bool) and 0 < keep <= first.numel(),
        "keep",
        keep,
        f"a whole number between 1 and the {first.numel()} weights",
    )
    alone = best(second, keep)
    kappa_min = float(second[alone].sum())
    if kappa_min >= 0:
        raise ValueError("control: no weight has a positive importance, so there is nothing to hold it to")
    kappa = alpha * kappa_min
    low, multiplier = _multipliers(_Open(first=first, second=second, keep=keep), alpha, kappa, precision)
    combined, favourite = first + multiplier * second, best(first, keep)
    mask = best(combined, keep)
    if low < multiplier:
        tight, loose = mask, best(first + low * second, keep)
        mask = _exchanged(second, keep, loose, tight, kappa)
        # Ties are decided: those that live rank above those that do not.
        worst = combined[tight].max() if bool(tight.any()) else combined.new_zeros(())
        combined = torch.where(mask, combined.clamp(max=worst), combined.clamp(min=worst.nextafter(worst + 1)))
    sizes = [score.numel() for score in target]

    def unflatten(flat: Tensor) -> list[Tensor]:
        return [part.view(shape) for part, shape in zip(torch.split(flat, sizes), shapes, strict=True)]

    return Cops(
        masks=unflatten(mask),
        importance=unflatten(-combined),
        multiplier=multiplier,
        kappa=kappa,
        kappa_min=kappa_min,
        target_similarity=similarity(mask, favourite),
        control_similarity=similarity(mask, alone),
        parent_similarity=similarity(favourite, alone),
    )


def similarity(one: Tensor, other: Tensor) -> float:
    """sim(m, M) = ‖m ⊙ M‖₀ / max(‖m‖₀, ‖M‖₀) of two bool masks (000, equation (13)); 0 where both are empty."""
    most = max(int(torch.count_nonzero(one)), int(torch.count_nonzero(other)))
    return int(torch.count_nonzero(one & other)) / most if most else 0.0


def best(scores: Tensor, keep: int) -> Tensor:
    """Bool mask of the at most ``keep`` most negative entries (3); among equal ones the lower index lives."""
    keep = min(keep, scores.numel())
    if keep == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = kth_smallest(scores, keep)
    if threshold >= 0:
        return scores < 0
    mask = scores < threshold
    missing = keep - int(torch.count_nonzero(mask))
    mask[torch.nonzero(scores == threshold).flatten()[:missing]] = True
    return mask


def _normalised(argument: str, scores: Sequence[Tensor]) -> Tensor:
    """All scores in one float64 vector, small is good, Σ|s| = 1 (000, section IV-A)."""
    flat = torch.empty(sum(score.numel() for score in scores), dtype=torch.float64, device=scores[0].device)
    torch.cat([score.detach().flatten() for score in scores], out=flat)
    total = float(torch.linalg.vector_norm(flat, ord=1))
    require(0 < total < float("inf"), argument, total, "a score with a finite, positive sum of absolute values")
    return flat.div_(-total)


_SAMPLED, _STRIDE = 1_000_000, 61


@dataclass(kw_only=True)
class _Open:
    """The weights that λ still decides about, and what those that are surely in add up to."""

    first: Tensor
    second: Tensor
    keep: int
    sum_first: float = 0.0
    sum_second: float = 0.0

    def dual(self, multiplier: float, kappa: float) -> _Point:
        """g(λ) and a superderivative of g there, equations (7) and (14)."""
        chosen = torch.nonzero(best(self.first + multiplier * self.second, self.keep)).flatten()
        zeroth = self.sum_first + float(self.first[chosen].sum())
        slope = self.sum_second + float(self.second[chosen].sum()) - kappa
        return _Point(multiplier=multiplier, value=zeroth + multiplier * slope, slope=slope)

    def least(self) -> float:
        """κ_min, the least sum of s⁽¹⁾."""
        return float(self.second[best(self.second, self.keep)].sum())

    def sampled(self) -> _Open:
        """The same question about every so-many-th weight."""
        return _Open(first=self.first[::_STRIDE], second=self.second[::_STRIDE], keep=max(1, self.keep // _STRIDE))

    def narrowed(self, low: float, high: float) -> _Open:
        """Without the weights that are chosen for every λ in [low, high], or for none.

        On the interval a weight's combined score lies between its values at the ends, so the threshold lies
        between the thresholds of the smaller and of the larger ends.
        """
        keep = min(self.keep, self.first.numel())
        if not keep:
            return self
        ends = self.first + low * self.second, self.first + high * self.second
        smaller, larger = torch.minimum(*ends), torch.maximum(*ends)
        least = min(0.0, float(kth_smallest(smaller, keep)))
        most = min(0.0, float(kth_smallest(larger, keep)))
        inside, undecided = larger < least, (larger >= least) & (smaller <= most)
        return _Open(
            first=self.first[undecided],
            second=self.second[undecided],
            keep=self.keep - int(torch.count_nonzero(inside)),
            sum_first=self.sum_first + float(self.first[inside].sum()),
            sum_second=self.sum_second + float(self.second[inside].sum()),
        )


@dataclass(frozen=True, kw_only=True)
class _Point:
    """A multiplier, g there, and a superderivative of g."""

    multiplier: float
    value: float
    slope: float


def _multipliers(problem: _Open, alpha: float, kappa: float, precision: float) -> tuple[float, float]:
    """Two neighbours λ₋ ≤ λ* ≤ λ₊; with λ₊ the constraint holds. They are equal where it holds with λ = 0.

    g is concave and its pieces are linear, so it lies below its tangents at both ends, whose intersection says how
    much may be missing and where to look next; every other step halves the interval, as Algorithm 1 does.
    """
    problem, low, high = _bracket(problem, alpha, kappa)
    halve = False
    while low.multiplier < high.multiplier:
        crossing, bound = _crossing(low, high)
        if bound - max(low.value, high.value) <= precision:
            break
        problem = problem.narrowed(low.multiplier, high.multiplier)
        inside = low.multiplier < crossing < high.multiplier
        middle = (low.multiplier + high.multiplier) / 2 if halve or not inside else crossing
        if middle in (low.multiplier, high.multiplier):  # neighbours in float64
            break
        point, halve = problem.dual(middle, kappa), not halve
        low, high = (point, high) if point.slope > 0 else (low, point)
    return low.multiplier, high.multiplier


def _crossing(low: _Point, high: _Point) -> tuple[float, float]:
    """Where the tangents at both ends meet, and their value there."""
    rise = high.value - high.slope * high.multiplier - low.value + low.slope * low.multiplier
    crossing = rise / (low.slope - high.slope)
    return crossing, low.value + low.slope * (crossing - low.multiplier)


def _bracket(problem: _Open, alpha: float, kappa: float) -> tuple[_Open, _Point, _Point]:
    """What is open between λ₋ with g' > 0 and λ₊ with g' ≤ 0, close together where a sample is representative."""
    least, most = 0.0, 1.0
    if problem.first.numel() > _SAMPLED:
        sample = problem.sampled()
        guess = _multipliers(sample, alpha, alpha * sample.least(), 1e-6)[1]
        if guess > 0:
            least, most = guess / 1.1, guess * 1.1
            narrow = problem.narrowed(least, most)
            low, high = narrow.dual(least, kappa), narrow.dual(most, kappa)
            if low.slope > 0 >= high.slope:
                return narrow, low, high
    low = problem.dual(least, kappa)
    if low.slope <= 0:  # λ* lies below the guess, or is 0
        high = low
        while high.multiplier > 0:
            low = problem.dual(high.multiplier / 2 if high.multiplier > 1e-9 else 0.0, kappa)
            if low.slope > 0:
                return problem, low, high
            high = low
        return problem, high, high
    while True:
        high = problem.dual(most, kappa)
        if high.slope <= 0:
            return problem, low, high
        low, most = high, 2 * most


def _exchanged(second: Tensor, keep: int, loose: Tensor, tight: Tensor, kappa: float) -> Tensor:
    """The mask between two that are equally good at λ*: ``loose`` misses the constraint, ``tight`` may overfulfil it.

    All weights in which they differ have the same s⁽⁰⁾ + λ* s⁽¹⁾, so the more s⁽¹⁾ of them adds up to, the less s⁽⁰⁾
    does: of all their windows in the order of s⁽¹⁾ the last one is taken that still meets κ.
    """
    differing = torch.nonzero(loose ^ tight).flatten()
    if not len(differing):
        return tight
    sure = loose & tight
    places = keep - int(torch.count_nonzero(sure))
    values = second[differing]
    if int(torch.count_nonzero(tight)) < keep or int(torch.count_nonzero(loose)) < keep:
        values = torch.cat([values, values.new_zeros(places)])  # places may stay empty where s⁽⁰⁾ + λ* s⁽¹⁾ = 0
    order = values.argsort(stable=True)
    summed = torch.cat([values.new_zeros(1), values[order].cumsum(0)])
    windows = summed[places:] - summed[: len(summed) - places]
    fitting = torch.nonzero(windows <= kappa - float(second[sure].sum())).flatten()
    if not len(fitting):  # rounding
        return tight
    chosen = order[int(fitting[-1]) : int(fitting[-1]) + places]
    mask = sure.clone()
    mask[differing[chosen[chosen < len(differing)]]] = True
    return mask
