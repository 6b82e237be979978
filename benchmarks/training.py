"""One stage of training with a method, as the accuracy benchmarks do it."""

from __future__ import annotations

from torch import nn

from compress import fold
from compress.methods import Method
from compress.train import TrainSettings, fit
from compress_then_export.data import Loader


def train(model: nn.Module, loader: Loader, settings: TrainSettings, method: Method | None = None) -> None:
    """Plan ``method`` for this training, attach it, train, finish and fold."""
    pruner = None
    if method is not None:
        total = len(loader) * settings.epochs
        pruner = method.planned(total, settings.learning_rate.drops(total))
        pruner.attach(model, loader)
    fit(model, loader, settings, pruner=pruner)
    if pruner is not None:
        pruner.finish()
        fold(model)
