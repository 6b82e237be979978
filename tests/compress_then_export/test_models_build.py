from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from compress_then_export.models import ModelError, build, check_input, describe


@pytest.mark.parametrize(
    ("source", "args", "words"),
    [
        ("resnet20", {}, ["did you mean 'builtin:resnet20'"]),
        ("builtin:resnet2", {}, ["'resnet2'", "did you mean 'resnet"]),
        ("builtin:wrn28-0", {}, ["wrn28-0"]),
        ("torchvision:resnet_18", {}, ["did you mean 'resnet18'"]),
        ("torchvision:fasterrcnn_resnet50_fpn", {}, ["unknown torchvision classification model"]),
        ("keras:resnet", {}, ["keras:resnet", "builtin:NAME"]),
        ("builtin:smallcnn", {"widht": 3}, ["args.widht", "did you mean 'width'"]),
        ("builtin:smallcnn", {"width": "wide"}, ["width='wide'"]),
        ("builtin:wrn28-2", {"dropout": 2}, ["dropout=2"]),
        ("builtin:resnet20", {"depth": 32}, ["args.depth", "part of the name"]),
        ("builtin:resnet20", {"num_classes": 0}, ["args.num_classes", "at least 1"]),
        ("torchvision:resnet18", {"num_clases": 3}, ["args.num_clases", "did you mean 'num_classes'"]),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, ["args.weights", "model.weights"]),
        ("python:json", {}, ["python:package.module:factory"]),
        ("python:no_such_package.models:make", {}, ["no module 'no_such_package'"]),
        ("python:json:laods", {}, ["no 'laods'", "did you mean 'loads'"]),
        ("python:sys:path", {}, ["'path' is a list"]),
        ("python:collections:OrderedDict", {}, ["returned a OrderedDict", "torch.nn.Module"]),
    ],
)
def test_errors_are_one_line_and_name_the_way_out(source: str, args: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        build(source, args=args)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_source_and_args_of_wrong_types() -> None:
    with pytest.raises(ModelError, match="must be text"):
        build(7)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="args must map"):
        build("builtin:resnet20", args=[1])  # type: ignore[arg-type]


def test_args_that_contradict_the_data() -> None:
    with pytest.raises(ModelError, match=r"args.num_classes=4 contradicts the data, which has 10"):
        build("builtin:resnet20", args={"num_classes": 4}, num_classes=10)
    assert build("builtin:resnet20", args={"num_classes": 4}, num_classes=4).fc.out_features == 4


def test_torchvision_takes_classes_and_refuses_grey_images() -> None:
    assert build("torchvision:resnet18", num_classes=5, in_channels=3).fc.out_features == 5
    with pytest.raises(ModelError, match="3-channel images but the data has 1"):
        build("torchvision:resnet18", in_channels=1)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_off(name: str, recwarn: pytest.WarningsRecorder) -> None:
    with torch.device("meta"):
        model = build(f"torchvision:{name}", args={"init_weights": False}, num_classes=4)
    assert model.aux_logits is False and model.fc.out_features == 4
    assert not [warning for warning in recwarn if "init_weights" in str(warning.message)]


def test_vit_of_another_image_size() -> None:
    args = {"image_size": 32}
    info = describe("torchvision:vit_b_16", args)
    assert info.input_shape == (3, 32, 32) and info.fixed_size
    with torch.device("meta"):
        model = build("torchvision:vit_b_16", args=args, num_classes=3)
    assert model.image_size == 32


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "their_models.py").write_text(
        "from torch import nn\n"
        "class Flat(nn.Sequential):\n"
        "    input_shape = (1, 4, 4)\n"
        "    def __init__(self, num_classes=2, hidden=8):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(16, hidden), nn.Linear(hidden, num_classes))\n"
        "def without_classes():\n    return Flat(3)\n"
        "def broken():\n    raise RuntimeError('first line\\nsecond line')\n"
        "def strange():\n    return None\n"
        "strange.input_shape = 'big'\n"
    )
    (tmp_path / "their_broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "their_models", raising=False)
    return "python:their_models:"


def test_python_factory_beside_the_current_folder(package: str) -> None:
    model = build(package + "Flat", args={"hidden": 5}, num_classes=6, in_channels=1)
    assert model[1].out_features == 5 and model[2].out_features == 6
    assert describe(package + "Flat").input_shape == (1, 4, 4)
    assert build(package + "without_classes", num_classes=9)[2].out_features == 3
    assert describe(package + "without_classes").input_shape is None


def test_python_factory_that_fails(package: str) -> None:
    with pytest.raises(ModelError, match=r"cannot be built: first line$"):
        build(package + "broken")
    with pytest.raises(ModelError, match=r"no argument 'hiden'.*did you mean 'hidden'"):
        build(package + "Flat", args={"hiden": 5})
    with pytest.raises(ModelError, match="attribute input_shape must be"):
        describe(package + "strange")
    with pytest.raises(ModelError, match="needs the module 'a_module_that_is_not_there'"):
        build("python:their_broken:make")


def test_check_input_restores_modes_and_names_both_class_counts() -> None:
    model = build("builtin:smallcnn", num_classes=7)
    model.features[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_input(model, input_shape=(1, 28, 28), num_classes=7)
    assert model.training and model.features[0].training and not model.features[1].training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ModelError, match="7 outputs but the data has 10 classes"):
        check_input(model, input_shape=(1, 28, 28), num_classes=10)
    with pytest.raises(ModelError, match="does not take 3x28x28 inputs"):
        check_input(model, input_shape=(3, 28, 28))
    assert model.training


def test_check_input_refuses_other_outputs() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    with pytest.raises(ModelError, match="returns a tuple"):
        check_input(Pair(), input_shape=(1, 4, 4))
    with pytest.raises(ModelError, match=r"returns shape \(2, 1, 4, 4\)"):
        check_input(nn.Identity(), input_shape=(1, 4, 4))
