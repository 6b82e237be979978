"""Greedy global imitation of one layer (Ye et al. 2020, section 2.2): neurons that lower the discrepancy at the output.

Step k mixes one neuron in with γ_k = 1/(1 + k) (8). Exact: every neuron is tried by a forward pass of the layers
after the cut. Accelerated (2.2.1): with unit i scaled by N(a_i + z_i), one backward pass at z = 0 gives c_i = ∂D/∂z_i
for all units, a step towards i changes D by γ (c_i − Σ_j a_j c_j) to first order, and only the few most promising
neurons are tried. The layer right behind the cut runs once for all that are tried (`compress.greedy.reading`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from compress.greedy.discrepancy import Discrepancy
from compress.greedy.gates import gated
from compress.greedy.groups import ChannelGroup
from compress.greedy.local import Indices, Vector
from compress.greedy.reading import Reading, is_plain
from compress.greedy.replay import Replay

CANDIDATES = 5


class GlobalImitation:
    """The search for one group on a model that runs from before the group's consumers.

    Args:
        replay: the model, advanced to the group.
        group: what is thinned.
        full: outputs of the full network, batch by batch.
        discrepancy: D.
        exact_size: every neuron is tried while at most this many are chosen; 0: from the start only the most promising.
        seed: which batches are drawn, one a step.
    """

    def __init__(
        self,
        replay: Replay,
        group: ChannelGroup,
        full: Sequence[Tensor],
        discrepancy: Discrepancy,
        *,
        exact_size: int,
        seed: int,
    ) -> None:
        self.replay, self.group, self.full, self.discrepancy = replay, group, full, discrepancy
        self.exact_size = exact_size
        self.rng = np.random.default_rng(seed)
        self.forwards = 0
        self.backwards = 0

    def steps(self, first: int) -> Iterator[tuple[Vector, float]]:
        """Shares a(k) and their D on the step's batch, k = 0, 1, ...; never ends.

        Args:
            first: the neuron to begin with where none is tried by itself (`exact_size` 0), for example the one that
                imitates best locally.
        """
        a = np.zeros(self.group.units)
        every = np.arange(self.group.units)
        i, value = self._best(a, 1.0, every if self.exact_size else np.array([first]), self._draw())
        a[i] = 1.0
        count = 0
        while True:
            yield a, value
            count += 1
            gamma, number = 1 / (1 + count), self._draw()
            candidates = every
            if np.count_nonzero(a) > self.exact_size or not self.exact_size:
                candidates = np.argsort(self.slopes(a, number), kind="stable")[:CANDIDATES]
            i, value = self._best(a, gamma, candidates, number)
            a = (1 - gamma) * a
            a[i] += gamma

    def slopes(self, a: Vector, number: int) -> Vector:
        """[N] the derivative of D by γ at 0 of a step from `a` towards every unit, on batch `number`.

        Raises:
            ValueError: the model changes what a consumer read in place, which leaves no gradients.
        """
        z = torch.zeros(len(a), dtype=torch.float64, requires_grad=True)
        with torch.enable_grad(), gated(self.replay.model, self.group) as gates:
            gates.factors = len(a) * (torch.from_numpy(a) + z)
            value = self.discrepancy(self.replay.run(number), self.full[number])
            try:
                (c,) = torch.autograd.grad(value, z)
            except RuntimeError as error:
                if "modified by an inplace operation" not in str(error):
                    raise
                raise ValueError(
                    "imitation: global imitation finds no gradients, the model works in place on what "
                    f"{' or '.join(self.group.consumers)} or a layer behind reads; use imitation: local"
                ) from error
        self.backwards += 1
        derivatives = c.numpy()
        return np.asarray(derivatives - a @ derivatives)

    @torch.no_grad()
    def _best(self, a: Vector, gamma: float, candidates: Indices, number: int) -> tuple[int, float]:
        rest, values = (1 - gamma) * a, []
        with gated(self.replay.model, self.group) as gates:
            gates.factors = torch.from_numpy(len(a) * rest)
            reading = self._reading(number)
            for i in candidates:
                moved = rest.copy()
                moved[i] += gamma
                gates.factors = torch.from_numpy(len(a) * moved)
                found = self.replay.run(number, first=reading.plus(i, len(a) * gamma) if reading else None)
                values.append(float(self.discrepancy(found, self.full[number])))
        self.forwards += len(candidates)
        best = int(np.argmin(values))
        return int(candidates[best]), values[best]

    def _reading(self, number: int) -> Reading | None:
        """Of the consumer at the cut; None where the model runs whole, or the consumer is more than its formula."""
        found = self.replay.at_cut(number, self.group.consumers)
        if found is None:
            return None
        name, x = found
        module = self.replay.model.get_submodule(name)
        return Reading(module, self.group.consumers[name], x) if is_plain(module) else None

    def _draw(self) -> int:
        return int(self.rng.integers(len(self.full)))
