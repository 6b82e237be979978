"""A stage of greedy imitation through the whole path: thinned, fine-tuned, exported, restored; stopped and resumed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pipeline_checks import run

from compress.attention import PlainAttention
from compress.greedy.layerwise import Layerwise
from compress.shrink import load_shrunk
from compress_then_export.cli import main
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
        ("{method: greedy_imitation, width: 0.5, exclude: ['*']}", 2, "compress.0.exclude: none of its channel"),
    ],
)
def test_errors_come_before_training(tmp_path: Path, stage: str, code: int, message: str) -> None:
    result = run(tmp_path, stage, "--out", tmp_path / "out")
    assert result.exit_code == code, result.stderr
    assert message in result.stderr
    assert "epoch" not in result.stderr


VIT = """
import torch
from compress_then_export.vision import torchvision

def make(num_classes=10, in_channels=1):
    model = torchvision.models.VisionTransformer(
        image_size=8, patch_size=2, num_layers=2, num_heads=4, hidden_dim=16, mlp_dim=32, num_classes=num_classes
    )
    model.conv_proj = torch.nn.Conv2d(in_channels, 16, 2, 2)
    return model
"""
VIT_RECIPE = """
model: {source: "python:their_vit:make"}
data: {source: digits, train_size: 320, test_size: 60}
train: {epochs: 1, batch_size: 32, lr: 0.05, seed: 3}
compress: [{method: greedy_imitation, width: 0.5, calibration_batches: 2, imitation: local}]
check: {max_drop: 100, seconds: 0.1}
"""


def test_heads_of_a_vision_transformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_vit.py").write_text(VIT)
    (tmp_path / "recipe.yaml").write_text(VIT_RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    command = ["run", str(tmp_path / "recipe.yaml"), "--json", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["parity"]["max_rel_diff"] < 1e-4
    assert 0.5 < document["compressed"]["macs"] / document["baseline"]["macs"] < 0.6  # patches and classes stay whole
    model = load_shrunk(build("python:their_vit:make"), tmp_path / "out").eval()
    assert [module.heads for module in model.modules() if isinstance(module, PlainAttention)] == [2, 2]
    golden = np.load(tmp_path / "out" / "golden.npz")
    with torch.no_grad():
        found = model(torch.from_numpy(golden["inputs"]))
    assert np.allclose(found.numpy(), golden["outputs"], atol=1e-5)
