"""The builtin networks by name, and what each of them wants as input."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from compress_then_export.models.lenet5_caffe import LeNet5Caffe
from compress_then_export.models.lenet300 import LeNet300
from compress_then_export.models.resnet_cifar import CifarResNet
from compress_then_export.models.small_cnn import SmallCNN
from compress_then_export.models.vgg16 import VGG16
from compress_then_export.models.wide_resnet import WideResNet


@dataclass(frozen=True, kw_only=True)
class Builtin:
    """One builtin network.

    Attributes:
        factory: the module class; takes num_classes and in_channels besides its own keyword arguments.
        settings: keyword arguments that belong to the name (the depth in resnet20); not the user's to change.
        input_shape: natural input as (channels, height, width) in pixels.
        fixed_size: whether height and width are part of the architecture (a flattened feature map).
        summary: one line for people.
    """

    factory: Callable[..., nn.Module]
    settings: dict[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, int, int]
    fixed_size: bool
    summary: str


def _resnet(depth: int) -> Builtin:
    return Builtin(
        factory=CifarResNet,
        settings={"depth": depth},
        input_shape=(3, 32, 32),
        fixed_size=False,
        summary=f"ResNet-{depth} for 32x32 images, option-A shortcuts",
    )


def _wide_resnet(widen: int) -> Builtin:
    return Builtin(
        factory=WideResNet,
        settings={"depth": 28, "widen": widen},
        input_shape=(3, 32, 32),
        fixed_size=False,
        summary=f"WideResNet-28-{widen} for 32x32 images, pre-activation",
    )


_NAMED: dict[str, Builtin] = {
    "lenet300": Builtin(
        factory=LeNet300, input_shape=(1, 28, 28), fixed_size=True, summary="LeNet-300-100, a perceptron"
    ),
    "lenet5_caffe": Builtin(
        factory=LeNet5Caffe, input_shape=(1, 28, 28), fixed_size=True, summary="LeNet-5 as in Caffe"
    ),
    "resnet20": _resnet(20),
    "resnet32": _resnet(32),
    "resnet56": _resnet(56),
    "smallcnn": Builtin(
        factory=SmallCNN, input_shape=(1, 28, 28), fixed_size=False, summary="four conv layers, for the demo"
    ),
    "vgg16": Builtin(
        factory=VGG16,
        input_shape=(3, 32, 32),
        fixed_size=True,
        summary="VGG-16 for 32x32 images with BatchNorm, three linear layers",
    ),
    "wrn28-2": _wide_resnet(2),
    "wrn28-10": _wide_resnet(10),
}


def builtin_names() -> tuple[str, ...]:
    """Return the names after ``builtin:``; besides these, wrn28-k exists for every k from 1 to 99."""
    return tuple(_NAMED)


def find_builtin(name: str) -> Builtin | None:
    """Return the builtin of that name, or None."""
    wide = re.fullmatch(r"wrn28-([1-9][0-9]?)", name)
    return _wide_resnet(int(wide[1])) if wide else _NAMED.get(name)
