"""Stages of methods that run through the whole path in a way of their own, on small real data."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_checks import run

from compress_then_export import pipeline


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_a_dynamic_stage_is_sparse_throughout_and_says_how_much_it_explored(tmp_path: Path, method: str) -> None:
    stage = f"{{method: {method}, sparsity: 0.8, period: 3, from_scratch: true, train: {{epochs: 2}}}}"
    result = run(tmp_path, stage, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [row["step"] for row in document["masks"]] == [0, 3, 6, 9, 12]  # of 20 steps, up to 3/4
    assert len({row["sparsity"] for row in document["masks"]}) == 1
    (note,) = [note for note in document["notes"] if note.startswith(f"1-{method}: explored ")]
    assert 0.2 < float(note.rpartition(" ")[2]) < 1
    assert document["recipe"]["compress"][0]["stop_step"] == 15


def test_a_lottery_ticket_shows_all_its_trainings_and_resumes_within_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = "{method: lottery_ticket, sparsity: 0.45, rewind_step: 3, from_scratch: true, train: {epochs: 2}}"
    whole = run(tmp_path, stage, "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.stderr
    document = json.loads(whole.stdout)
    rows = [row for row in document["training"] if row["stage"] != "train"]
    names = [f"1-lottery_ticket-{number}-of-4" for number in (1, 2, 3, 4)]
    assert [(row["stage"], row["epoch"]) for row in rows] == [(name, epoch) for name in names for epoch in (1, 2)]
    assert [row["sparsity"] for row in rows[1::2]] == pytest.approx([0, 0.2, 0.36, 0.45], abs=1e-3)
    assert min(row["accuracy"] for row in rows[1::2]) > 0.2  # of the trained network, not of what it was rewound to
    assert [row["step"] for row in document["masks"]] == [20, 40, 60]
    assert document["recipe"]["compress"][0]["round_steps"] == 20

    real, calls = pipeline.accuracy, iter(range(100))

    def fails_in_the_second_epoch_of_the_second_training(*arguments: Any) -> float:
        if next(calls) == 4:
            raise OSError(28, "No space left on device", "checkpoint")
        return real(*arguments)

    monkeypatch.setattr(pipeline, "accuracy", fails_in_the_second_epoch_of_the_second_training)
    stopped = run(tmp_path, stage, "--out", tmp_path / "out")
    assert stopped.exit_code == 1
    monkeypatch.setattr(pipeline, "accuracy", real)
    resumed = run(tmp_path, stage, "--out", tmp_path / "out", "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert "1-lottery_ticket-1-of-4: resumed after epoch 2 of 2" in resumed.stderr
    assert "1-lottery_ticket-2-of-4: resumed after epoch 1 of 2" in resumed.stderr
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "whole" / "model.onnx").read_bytes()


def test_a_frank_wolfe_stage_is_the_baseline_where_nothing_else_is_trained(tmp_path: Path) -> None:
    cut = "{method: one_shot, sparsity: 0.7, skip_last_linear: false, recalibrate: false}"
    stages = f"{{method: frank_wolfe, train: {{epochs: 2}}}}, {cut}"
    result = run(tmp_path, stages, "--out", tmp_path / "out", "--set", "train.epochs=0")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert not [text for text in document["verdict"]["warnings"] if "never trained" in text]
    rates = [row["lr"] for row in document["training"]]
    assert rates == [1.0, pytest.approx(0.1)]  # two thirds of two epochs are one
    (row,) = document["weights"]
    assert row["stage"] == "1-frank_wolfe"
    assert row["one_shot"][0]["accuracy"] == pytest.approx(document["baseline"]["accuracy"])
    (accuracy,) = [cut["accuracy"] for cut in row["one_shot"] if cut["sparsity"] == 0.7]
    assert accuracy == pytest.approx(document["compressed"]["accuracy"])
    assert sum(row["magnitudes"]["shares"]) + row["magnitudes"]["zeros"] == pytest.approx(1)
    assert "Room for cuts" in (tmp_path / "out" / "report.html").read_text()


def test_a_frank_wolfe_stage_is_compared_with_ordinary_training(tmp_path: Path) -> None:
    stages = "{method: frank_wolfe, from_scratch: true, init_iterations: 3, train: {epochs: 1}}"
    result = run(tmp_path, stages, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [row["stage"] for row in document["weights"]] == ["train", "1-frank_wolfe"]
    (note,) = [note for note in document["notes"] if "sfw_init_last_loss" in note]
    assert float(note.rpartition(" ")[2]) > 0


@pytest.mark.parametrize("key", ["lr", "optimizer", "weight_decay", "schedule"])
def test_a_method_that_brings_its_own_optimizer_refuses_that_of_the_stage(tmp_path: Path, key: str) -> None:
    value = {"lr": "0.1", "optimizer": "sgd", "weight_decay": "0", "schedule": "step"}[key]
    result = run(tmp_path, f"{{method: frank_wolfe, train: {{epochs: 1, {key}: {value}}}}}", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: compress.0.train.{key}: frank_wolfe decides it itself; leave it out, and see its own settings\n"
    )


def test_a_frank_wolfe_stage_without_training_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path, "{method: frank_wolfe, train: {epochs: 0}}", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "compress.0.train.epochs: there is no step, and frank_wolfe does nothing but train" in result.stderr


def test_a_start_outside_the_polytopes_stops_the_run_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(pipeline, "fit", never)
    result = run(tmp_path, "{method: frank_wolfe, radius: 1, train: {epochs: 1}}", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "compress.0.radius: with 1 and k_fraction 0.05 features.0.weight starts outside" in result.stderr


def test_a_cops_stage_reports_what_it_found(tmp_path: Path) -> None:
    stage = "{method: at_init, sparsity: 0.8, control: grasp, alpha: 0.9, from_scratch: true, train: {epochs: 1}}"
    result = run(tmp_path, stage, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert any(note.startswith("1-at_init: target_similarity ") for note in document["notes"])
    assert document["recipe"]["compress"][0]["score"] == "snip"


def test_an_interspace_stage_reports_bases_and_the_zeros_of_the_file(tmp_path: Path) -> None:
    stages = (
        "{method: one_shot, sparsity: 0.3, structure: filters, interspace: fine, basis: fitted, train: {epochs: 1}}, "
        "{method: dpf, sparsity: 0.8, interspace: coarse, basis: onb, train: {epochs: 2}}"
    )
    result = run(tmp_path, stages, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    found = dict(note.rsplit(" ", 1) for note in document["notes"] if note.startswith("2-dpf: "))
    assert float(found["2-dpf: interspace_sparsity"]) == pytest.approx(0.8, abs=1e-3)
    assert float(found["2-dpf: basis_parameters"]) == 81
    assert float(found["2-dpf: spatial_sparsity"]) < 0.8
    assert any("of the coefficients are zero, but" in warning for warning in document["verdict"]["warnings"])
    assert document["compressed"]["sparsity"] < 0.8
    assert document["compressed"]["parameters"] < document["baseline"]["parameters"]  # filters are really gone
