"""The training loop: learns, resumes to the same bits, and stops with a clear word."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress import fold
from compress.checkpoint import load_checkpoint, save_checkpoint
from compress.learning_rate import LearningRate
from compress.methods import DPF, Method
from compress.train import TrainSettings, accuracy, fit, make_optimizer


class Blobs:
    """Three Gaussian blobs, noise drawn from the epoch number."""

    def __init__(self, steps: int = 6) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(number)
        for _ in range(self.steps):
            labels = torch.randint(0, 3, (32,), generator=generator)
            yield torch.eye(3)[labels] * 3 + torch.randn(32, 3, generator=generator), labels


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3))


def settings(epochs: int = 5, **other: object) -> TrainSettings:
    return TrainSettings(epochs=epochs, lr=0.05, **other)  # type: ignore[arg-type]


def test_it_learns() -> None:
    model = network()
    records = fit(model, Blobs(), settings(), evaluate=lambda m: accuracy(m, Blobs().epoch(100)))
    assert records[-1].loss < records[0].loss
    assert records[-1].accuracy is not None
    assert records[-1].accuracy > 0.9
    assert [record.epoch for record in records] == [1, 2, 3, 4, 5]
    assert records[-1].lr == pytest.approx(0.05 * 0.01)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop_after", [1, 3])
@pytest.mark.parametrize("pruned", [False, True])
def test_resume_gives_the_same_bits(tmp_path: Path, stop_after: int, pruned: bool) -> None:
    def pruner_for(model: nn.Module) -> Method | None:
        if not pruned:
            return None
        pruner = DPF(sparsity=0.7, ramp_steps=12, period=4)
        pruner.attach(model)
        return pruner

    whole = network()
    expected = fit(whole, Blobs(), settings(), pruner=pruner_for(whole))

    class Stops(Blobs):
        def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
            if number == stop_after:
                raise Interrupted
            return super().epoch(number)

    file = tmp_path / "stage.ckpt"
    model = network()
    with pytest.raises(Interrupted):
        fit(model, Stops(), settings(), pruner=pruner_for(model), checkpoint=file, fingerprint="a")
    torch.manual_seed(12345)
    model = network()
    resumed = fit(model, Blobs(), settings(), pruner=pruner_for(model), checkpoint=file, fingerprint="a")
    assert [(r.loss, r.sparsity, r.lr) for r in resumed] == [(r.loss, r.sparsity, r.lr) for r in expected]
    for a, b in zip(fold(whole).state_dict().values(), fold(model).state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_finished_training_is_restored_without_a_step(tmp_path: Path) -> None:
    file = tmp_path / "stage.ckpt"
    model = network()
    fit(model, Blobs(), settings(), checkpoint=file)

    class Untouchable(Blobs):
        def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
            raise AssertionError("trained again")

    again = network()
    fit(again, Untouchable(), settings(), checkpoint=file)
    assert torch.equal(again[0].weight, model[0].weight)


def test_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "stage.ckpt"
    fit(network(), Blobs(), settings(1), checkpoint=file, fingerprint="a")
    with pytest.raises(ValueError, match="belongs to another training"):
        fit(network(), Blobs(), settings(1), checkpoint=file, fingerprint="b")


def test_truncated_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "stage.ckpt"
    fit(network(), Blobs(), settings(1), checkpoint=file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(file)
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match="not a checkpoint of this tool"):
        load_checkpoint(file)


def test_a_teacher_takes_its_share_of_the_loss() -> None:
    """One step against the formula by hand; with the whole share labels do not matter."""
    teacher = network().eval()
    inputs, labels = next(iter(Blobs(1).epoch(0)))
    for share in (0.0, 0.25, 1.0):
        model = nn.Linear(3, 3)
        outputs = model(inputs)
        hard = -outputs.log_softmax(1)[torch.arange(32), labels].mean()
        soft = -(teacher(inputs).softmax(1) * outputs.log_softmax(1)).sum(1).mean()
        (record,) = fit(model, Blobs(1), settings(1, teacher=share), teacher=teacher)
        assert record.loss == pytest.approx(((1 - share) * hard + share * soft).item(), rel=1e-5)
    pupils = [network(), network()]
    fit(pupils[0], Blobs(), settings(1, teacher=0.5))  # nobody to learn from
    fit(pupils[1], Blobs(), settings(1))
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in pupils), strict=True))
    assert not any(p.grad is not None for p in teacher.parameters())


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "stage.ckpt"
    save_checkpoint(file, {"epoch": 1})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(file, {"epoch": lambda: 2})
    assert load_checkpoint(file) == {"epoch": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["stage.ckpt"]


def test_divergence_names_the_learning_rate() -> None:
    with pytest.raises(ValueError, match=r"train\.lr: the loss became"):
        fit(network(), Blobs(50), TrainSettings(epochs=5, lr=1e20))


def test_no_data_and_nothing_to_train() -> None:
    with pytest.raises(ValueError, match="no full batch"):
        fit(network(), Blobs(0), settings())
    with pytest.raises(ValueError, match="evaluation split is empty"):
        accuracy(network(), [])
    with pytest.raises(ValueError, match="requires_grad"):
        make_optimizer(network().requires_grad_(False), settings())


def test_accuracy_restores_the_mode() -> None:
    model = network().train()
    accuracy(model, Blobs().epoch(0))
    assert model.training
    assert accuracy(nn.Sequential(nn.Linear(2, 2)).eval(), [(torch.zeros(1, 2), torch.zeros(1).long())]) in (
        0,
        1,
    )


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimizers(name: str) -> None:
    made = make_optimizer(network(), TrainSettings(optimizer=name, weight_decay=0.01))  # type: ignore[arg-type]
    assert type(made).__name__.lower() == name
    assert made.defaults["weight_decay"] == 0.01
    assert made.defaults.get("nesterov", True)


def test_learning_rate_against_the_formulas() -> None:
    step = LearningRate(schedule="step", milestones=(0.5, 0.75), gamma=0.1)
    assert [step.factor(t, 100) for t in (0, 49, 50, 74, 75, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert step.drops(100) == [50, 75]
    cosine = LearningRate(schedule="cosine", warmup=0.1)
    assert cosine.factor(0, 100) == pytest.approx(0.01)
    assert cosine.factor(5, 100) == pytest.approx(0.505)
    assert cosine.factor(10, 100) == pytest.approx(1)
    assert cosine.factor(55, 100) == pytest.approx(0.5)
    assert cosine.factor(99, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert cosine.drops(100) == []
    assert LearningRate(schedule="constant").factor(77, 100) == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"teacher": 1.5}, "teacher: 1.5 is not a share of the loss"),
        ({"epochs": -1}, "epochs: -1"),
        ({"batch_size": 0}, "batch_size: 0"),
        ({"optimizer": "sgdd"}, "optimizer: 'sgdd'"),
        ({"lr": 0}, "lr: 0"),
        ({"lr": float("inf")}, "lr: inf"),
        ({"momentum": 1.0}, "momentum: 1.0"),
        ({"weight_decay": -1}, "weight_decay: -1"),
        ({"label_smoothing": 1}, "label_smoothing: 1"),
    ],
)
def test_wrong_settings(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings(**kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"schedule": "linear"}, "schedule"),
        ({"milestones": (0.75, 0.5)}, "milestones"),
        ({"milestones": (0.5, 1.0)}, "milestones"),
        ({"gamma": 0}, "gamma"),
        ({"warmup": 1.0}, "warmup"),
    ],
)
def test_wrong_learning_rates(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearningRate(**kwargs)  # type: ignore[arg-type]
