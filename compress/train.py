"""The training loop of the command. A method never edits it: it only hears of every optimizer step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from compress.checkpoint import load_checkpoint, save_checkpoint
from compress.checks import require, require_whole
from compress.learning_rate import LearningRate
from compress.methods.base import EpochSchedule, Method

logger = logging.getLogger(__name__)

Schedule = LambdaLR | EpochSchedule
OptimizerName = Literal["sgd", "adam", "adamw"]
OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "adam", "adamw")


class Batches(Protocol):
    """Training data: a fixed number of batches an epoch, their order a function of the epoch alone."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def epoch(self, number: int) -> Iterable[tuple[Tensor, Tensor]]:
        """The (inputs, labels) batches of epoch ``number``, the same whenever asked."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Optimizer, schedule and length of one training.

    ``teacher`` is the share of the loss that is cross-entropy under the classes of a teacher network instead of the
    labels, in [0, 1]; it is of use where ``fit`` is given one.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: OptimizerName = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    teacher: float = 0.0
    learning_rate: LearningRate = field(default_factory=LearningRate)
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole("epochs", self.epochs, 0)
        require_whole("batch_size", self.batch_size, 1)
        require_whole("seed", self.seed, 0)
        require(self.optimizer in OPTIMIZERS, "optimizer", self.optimizer, f"one of {', '.join(OPTIMIZERS)}")
        require(self.lr > 0 and math.isfinite(self.lr), "lr", self.lr, "a positive learning rate")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "in [0, 1)")
        require(0 <= self.teacher <= 1, "teacher", self.teacher, "a share of the loss, in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What one epoch came to; ``accuracy`` is on the evaluation data, None where none was given."""

    epoch: int
    loss: float
    accuracy: float | None
    lr: float
    sparsity: float
    seconds: float


def fit(
    model: nn.Module,
    batches: Batches,
    settings: TrainSettings,
    *,
    pruner: Method | None = None,
    teacher: nn.Module | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    label: str = "train",
) -> list[EpochRecord]:
    """Train ``model`` in place on cross-entropy and return one record an epoch.

    Args:
        model: the model, on its device, with ``pruner`` already attached where there is one.
        batches: training data.
        settings: optimizer, schedule, length, seed.
        pruner: the method; told of every optimizer step. One that brings its own optimizer and schedule is given way.
        teacher: the network that ``settings.teacher`` speaks of, in eval mode on the model's device.
        evaluate: accuracy of the model, in [0, 1], measured after every epoch.
        checkpoint: file written after every epoch; when it exists already, training goes on from it.
        fingerprint: what the checkpoint must have been written for; another one is refused.
        label: name shown with the progress.

    Raises:
        ValueError: no data, a checkpoint of another training, or a loss that is not finite.
    """
    steps = len(batches)
    if steps == 0:
        raise ValueError("data: the training split has no full batch; lower train.batch_size or give more data")
    total = steps * settings.epochs
    going_on = checkpoint is not None and checkpoint.exists()
    optimizer = (pruner.own_optimizer(fresh=not going_on) if pruner else None) or make_optimizer(model, settings)
    scheduler: Schedule = (pruner.own_schedule(optimizer, settings.epochs) if pruner else None) or LambdaLR(
        optimizer, lambda step: settings.learning_rate.factor(step, max(1, total))
    )
    records: list[EpochRecord] = []
    if checkpoint is not None and going_on:
        state = load_checkpoint(checkpoint)
        if state.get("fingerprint") != fingerprint:
            raise ValueError(f"{checkpoint}: it belongs to another training; undo what was changed, or delete it")
        _restore(state, model, optimizer, scheduler, pruner)
        records = [EpochRecord(**row) for row in state["records"]]
        logger.info("%s: resumed after epoch %d of %d", label, len(records), settings.epochs)
    else:
        torch.manual_seed(settings.seed)
    with (
        logging_redirect_tqdm(),
        tqdm(total=total, initial=steps * len(records), desc=label, unit="step", disable=None, leave=False) as bar,
    ):
        for epoch in range(len(records), settings.epochs):
            started = time.perf_counter()
            lr = float(optimizer.param_groups[0]["lr"])
            loss, images, held = _train_epoch(
                model, batches.epoch(epoch), optimizer, scheduler, settings, pruner, teacher, bar, steps
            )
            if not isinstance(scheduler, LambdaLR):
                scheduler.step(loss)
            seconds = time.perf_counter() - started
            accuracy = evaluate(model) if evaluate else None
            sparsity = pruner.run.sparsity if pruner else 0.0
            record = EpochRecord(
                epoch=epoch + 1, loss=loss, accuracy=accuracy, lr=lr, sparsity=sparsity, seconds=seconds
            )
            records.append(record)
            _log(label, record, settings.epochs, images)
            if pruner is not None and held:
                pruner.step(optimizer)
            if checkpoint is not None:
                save_checkpoint(checkpoint, _state(fingerprint, model, optimizer, scheduler, pruner, records))
    return records


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer of ``settings`` over all parameters that want a gradient."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model: no parameter has requires_grad, there is nothing to train")
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov and settings.momentum > 0,
            weight_decay=settings.weight_decay,
        )
    adam = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay)


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Top-1 accuracy of ``model`` in [0, 1], in eval mode; the mode is restored.

    Raises:
        ValueError: no samples.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    correct = samples = 0
    try:
        for inputs, labels in batches:
            predicted = model(inputs.to(device)).argmax(dim=1)
            correct += int((predicted == labels.to(device)).sum())
            samples += len(labels)
    finally:
        model.train(was_training)
    if samples == 0:
        raise ValueError("data: the evaluation split is empty")
    return correct / samples


def _train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    scheduler: Schedule,
    settings: TrainSettings,
    pruner: Method | None,
    teacher: nn.Module | None,
    bar: Any,
    steps: int,
) -> tuple[float, int, bool]:
    """Mean loss, images, and whether the last step is still to be told to a pruner that will rewind then."""
    device = next(model.parameters()).device
    model.train()
    total, images, held = 0.0, 0, False
    for number, (inputs, labels) in enumerate(batches, start=1):
        optimizer.zero_grad(set_to_none=True)
        loss = _loss(model, inputs.to(device), labels.to(device), settings, teacher)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"train.lr: the loss became {value}; lower the learning rate or check the data")
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if isinstance(scheduler, LambdaLR):
            scheduler.step()
        if pruner is not None:
            held = number == steps and pruner.rewinds_next
            if not held:
                pruner.step(optimizer)
        total += value * len(labels)
        images += len(labels)
        bar.update()
        if not bar.disable and bar.n % 20 == 0:
            sparsity = f", sparsity {pruner.run.sparsity:.1%}" if pruner else ""
            rate = (bar.format_dict["rate"] or 0.0) * len(labels)
            bar.set_postfix_str(f"{rate:.0f} images/s, loss {total / images:.3f}{sparsity}", refresh=False)
    return total / max(1, images), images, held


def _loss(
    model: nn.Module, inputs: Tensor, labels: Tensor, settings: TrainSettings, teacher: nn.Module | None
) -> Tensor:
    outputs = model(inputs)
    loss = functional.cross_entropy(outputs, labels, label_smoothing=settings.label_smoothing)
    if teacher is None or settings.teacher == 0:
        return loss
    with torch.no_grad():
        taught = teacher(inputs).softmax(dim=1)
    return (1 - settings.teacher) * loss + settings.teacher * functional.cross_entropy(outputs, taught)


def _log(label: str, record: EpochRecord, epochs: int, images: int) -> None:
    shown = "" if record.accuracy is None else f", accuracy {record.accuracy:.2%}"
    sparse = f", sparsity {record.sparsity:.2%}" if record.sparsity else ""
    left = record.seconds * (epochs - record.epoch)
    logger.info(
        "%s: epoch %d/%d, loss %.4f%s%s, %.0f images/s, %.0f s left",
        label, record.epoch, epochs, record.loss, shown, sparse, images / max(record.seconds, 1e-9), left,
    )  # fmt: skip


def _state(
    fingerprint: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Schedule,
    pruner: Method | None,
    records: list[EpochRecord],
) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "pruner": None if pruner is None else pruner.state_dict(),
        "records": [asdict(record) for record in records],
        "rng": torch.get_rng_state(),
    }


def _restore(
    state: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Schedule,
    pruner: Method | None,
) -> None:
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    if pruner is not None:
        pruner.load_state_dict(state["pruner"])
    torch.set_rng_state(state["rng"])
