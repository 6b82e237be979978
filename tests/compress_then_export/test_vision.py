from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from compress_then_export import vision
from compress_then_export.vision import torchvision


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_models_datasets_and_transforms_are_reachable() -> None:
    assert torchvision.models.resnet18 is not None
    assert torchvision.datasets.MNIST is not None
    image = torch.zeros(3, 8, 8)
    assert torchvision.transforms.v2.Pad(1)(image).shape == (3, 10, 10)


def test_loading_again_returns_the_same_module() -> None:
    assert vision.load_torchvision() is torchvision
    assert sys.modules["torchvision"] is torchvision


def test_plain_import_afterwards_and_after_a_failed_import() -> None:
    code = (
        "try:\n    import torchvision\nexcept RuntimeError:\n    pass\n"
        "from compress_then_export.vision import torchvision as ours\n"
        "import torchvision\nfrom torchvision.transforms import v2\n"
        "assert torchvision is ours\n"
        "import gc, torch; gc.collect()\n"
        "assert torch.ops.torchvision.nms is not None\n"
        "assert torchvision.models.resnet18(num_classes=3)(torch.zeros(2, 3, 32, 32)).shape == (2, 3)\n"
    )
    done = _python(code)
    assert done.returncode == 0, done.stderr


def test_existing_operators_are_left_alone() -> None:
    code = (
        "import torch\n"
        "lib = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "for n in ('nms', 'qnms'):\n"
        "    if f'torchvision::{n}' not in torch._C._dispatch_get_all_op_names():\n"
        "        lib.define(n + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "import torchvision as before\n"
        "from compress_then_export import vision\n"
        "assert vision.torchvision is before and vision._LIBRARIES == []\n"
    )
    done = _python(code)
    assert done.returncode == 0, done.stderr


def test_other_import_failures_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(vision, "_import", broken)
    with pytest.raises(RuntimeError, match="something else"):
        vision.load_torchvision()
