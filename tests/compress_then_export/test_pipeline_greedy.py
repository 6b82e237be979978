"""A stage of greedy imitation through the whole path: thinned, fine-tuned, exported, restored; stopped and resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_checks import run

from compress.greedy.layerwise import Layerwise
from compress.shrink import load_shrunk
from compress_then_export.models import build

STAGE = "{method: greedy_imitation, macs: 0.5, calibration_batches: 2, round_to: 2, train: {epochs: 1, teacher: 0.5}}"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_half_of_the_macs_stopped_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path, STAGE, "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.stderr
    document = json.loads(whole.stdout)
    assert 0.3 < document["compressed"]["macs"] / document["baseline"]["macs"] <= 0.5
    assert document["parity"]["argmax_agreement"] == 1
    (note,) = [note for note in document["notes"] if note.startswith("1-greedy_imitation: macs_left ")]
    assert float(note.rpartition(" ")[2]) == pytest.approx(
        document["compressed"]["macs"] / document["baseline"]["macs"], abs=1e-4
    )
    assert document["recipe"]["compress"][0]["round_to"] == 2
    assert document["recipe"]["compress"][0]["imitation"] == "both"
    model = load_shrunk(build("builtin:smallcnn", args={"width": 8}, num_classes=10, in_channels=1), tmp_path / "whole")
    widths = [module.out_channels for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(width % 2 == 0 for width in widths)
    assert sum(widths) < 8 + 16 + 16 + 32

    original, calls = Layerwise.thin_to, list[str]()

    def stops_at_the_second_group(self: Layerwise, group: Any, *rest: Any) -> Any:
        calls.append(group.name)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", "group")
        return original(self, group, *rest)

    monkeypatch.setattr(Layerwise, "thin_to", stops_at_the_second_group)
    stopped = run(tmp_path, STAGE, "--out", tmp_path / "out")
    assert stopped.exit_code == 1
    assert (tmp_path / "out.partial" / "checkpoints" / "1-greedy_imitation" / "group-000.npz").exists()
    resumed = run(tmp_path, STAGE, "--out", tmp_path / "out", "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert calls[2] == calls[1]
    assert calls[0] not in calls[1:]
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "whole" / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("stage", "code", "message"),
    [
        ("{method: greedy_imitation, macs: 0.001}", 2, "compress.0.macs: 0.001 cannot be met"),
        ("{method: greedy_imitation}", 2, "compress.0.macs: exactly one target must be set"),
        ("{method: greedy_imitation, width: 0.5, exclude: ['*']}", 1, "none of its channel groups can be thinned"),
    ],
)
def test_errors_come_before_training(tmp_path: Path, stage: str, code: int, message: str) -> None:
    result = run(tmp_path, stage, "--out", tmp_path / "out")
    assert result.exit_code == code, result.stderr
    assert message in result.stderr
    assert "epoch" not in result.stderr
