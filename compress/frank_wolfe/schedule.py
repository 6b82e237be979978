"""The learning rate of 001: a tenth at each third of training, and in between what the losses ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from torch.optim import Optimizer

from compress.checks import require, require_whole

_SHORT, _LONG = 5, 10  # epochs whose mean losses are compared
_DOWN, _UP = 0.7, 1.06


class DynamicLR:
    """Divide the learning rate by 10 at 1/3 and 2/3 of training, and move it with the loss (001, appendix A).

    After every fifth epoch, from the tenth on, it is multiplied by 0.7 where the mean loss of the last 5 epochs is
    above that of the last 10, and by 1.06 where it is below. The paper does not say how often; the published code
    compares every 5 epochs too, but only past epoch 20, takes the loss of an epoch's last batch for the epoch's, and
    leaves the newest epoch out.

        for epoch in range(epochs):
            ...train, and take the mean loss over the epoch...
            schedule.step(loss)

    Args:
        optimizer: any; all its groups move alike.
        epochs: length of training.
        dynamic: False leaves the tenths alone.
    """

    def __init__(self, optimizer: Optimizer, epochs: int, *, dynamic: bool = True) -> None:
        require_whole("epochs", epochs, 0)
        self.optimizer = optimizer
        self.epochs = epochs
        self.dynamic = dynamic
        self.losses: list[float] = []

    def step(self, loss: float) -> float:
        """Take the mean loss of the epoch that has ended; returns the factor on the learning rate.

        Raises:
            ValueError: the loss is not a finite number.
        """
        require(math.isfinite(loss), "loss", loss, "a finite number; training has diverged, lower the learning rate")
        self.losses.append(float(loss))
        factor = self._factor()
        for group in self.optimizer.param_groups:
            group["lr"] *= factor
        return factor

    def _factor(self) -> float:
        done = len(self.losses)
        factor = 0.1 if done in (self.epochs // 3, 2 * self.epochs // 3) else 1.0
        if self.dynamic and done >= _LONG and done % _SHORT == 0:
            short, long = fmean(self.losses[-_SHORT:]), fmean(self.losses[-_LONG:])
            factor *= _DOWN if short > long else _UP if short < long else 1.0
        return factor

    def state_dict(self) -> dict[str, Any]:
        """The losses so far; the learning rate itself is in the optimizer's."""
        return {"epochs": self.epochs, "losses": list(self.losses)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            ValueError: it was taken in a training of another length.
        """
        if state["epochs"] != self.epochs:
            raise ValueError(f"state: it was saved with epochs={state['epochs']}, this schedule has {self.epochs}")
        self.losses = list(state["losses"])
