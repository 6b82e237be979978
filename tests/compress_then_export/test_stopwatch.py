"""The stopwatch of recipes, and a stage of greedy imitation with the target latency through the whole path."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pipeline_checks import run
from torch import nn

from compress_then_export import stopwatch as module
from compress_then_export.recipe import RecipeError, parse_recipe
from compress_then_export.stopwatch import OnnxStopwatch
from runtime_check import load


def chain(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3)).eval()


def by_size(a: Path, b: Path, **_: Any) -> Any:
    """In place of the clock: a file's size is its latency."""
    return SimpleNamespace(speedup=SimpleNamespace(median=a.stat().st_size / b.stat().st_size))


def test_both_networks_become_files_that_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path, list[int], list[int]]] = []

    def compared(a: Path, b: Path, *, threads: int, seconds: float) -> Any:
        assert (threads, seconds) == (2, 0.5)
        sessions = [load(path, threads=1) for path in (a, b)]
        assert all(list(s.get_inputs()[0].shape) == [1, 4] for s in sessions)
        seen.append((a, *([len(path.read_bytes())] for path in (a, b))))
        return SimpleNamespace(speedup=SimpleNamespace(median=2.5))

    monkeypatch.setattr(module, "compare", compared)
    measure, whole = OnnxStopwatch((4,), threads=2, seconds=0.5), chain(300)
    assert measure(chain(100), whole) == pytest.approx(0.4)
    written = seen[0][0].stat().st_mtime_ns
    assert measure(chain(50), whole) == pytest.approx(0.4)
    assert seen[1][0].stat().st_mtime_ns == written  # the whole one was exported once
    assert seen[1][1] == seen[0][1] > seen[0][2] > seen[1][2]


def test_a_real_measurement_is_a_positive_number() -> None:
    assert OnnxStopwatch((4,), seconds=0.05)(chain(10), chain(20)) > 0


def test_stopwatches_are_told_apart_by_what_they_measure() -> None:
    first, *others = (
        OnnxStopwatch([4]), OnnxStopwatch((4,), seconds=1), OnnxStopwatch((4,), threads=2), OnnxStopwatch((4, 1)),
    )  # fmt: skip
    assert repr(first) == "OnnxStopwatch((4,), threads=1, seconds=2.0)"
    assert repr(first) not in map(repr, others)


@pytest.mark.parametrize("round_to", ["1", pytest.param("auto", marks=pytest.mark.slow)])
def test_a_recipe_with_the_target_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, round_to: str) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(module, "compare", by_size)
    stage = (
        f"{{method: greedy_imitation, latency: 0.7, calibration_batches: 2, imitation: local, round_to: {round_to}}}"
    )
    result = run(tmp_path, stage, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    (note,) = [note for note in document["notes"] if note.startswith("1-greedy_imitation: latency_left ")]
    assert float(note.rpartition(" ")[2]) <= 0.7
    assert document["recipe"]["compress"][0]["round_to"] == (1 if round_to == "1" else "auto")
    assert document["compressed"]["parameters"] < 0.8 * document["baseline"]["parameters"]


def test_out_of_reach_is_said_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "compare", by_size)
    result = run(tmp_path, "{method: greedy_imitation, latency: 0.001}", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "compress.0.latency: 0.001 cannot be met; with every group at its narrowest 0." in result.stderr


def test_auto_is_for_methods_that_choose_widths() -> None:
    document = {
        "model": {"source": "builtin:smallcnn"},
        "data": {"source": "digits"},
        "compress": [{"method": "dpf", "sparsity": 0.9, "round_to": "auto"}],
    }
    with pytest.raises(RecipeError, match=r"compress\.0\.round_to: auto is for methods that choose widths, dpf does"):
        parse_recipe(document)
