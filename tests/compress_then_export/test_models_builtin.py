from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from compress_then_export.models import ModelError, build, builtin_names, check_input, describe
from compress_then_export.models.resnet_cifar import CifarResNet
from compress_then_export.models.wide_resnet import WideResNet
from compress_then_export.vision import torchvision

FIXED = {"lenet300", "lenet5_caffe", "vgg16"}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("builtin:lenet300", 266_610),
        ("builtin:lenet5_caffe", 431_080),
        ("builtin:resnet20", 269_722),
        ("builtin:resnet32", 464_154),
        ("builtin:resnet56", 853_018),
        ("builtin:wrn28-2", 1_467_610),
        ("builtin:wrn28-10", 36_479_194),
        ("torchvision:resnet50", 25_557_032),
        ("torchvision:mobilenet_v2", 3_504_872),
    ],
)
def test_parameter_counts(source: str, count: int) -> None:
    with torch.device("meta"):
        assert parameters(build(source)) == count


def test_vgg16_counts_follow_table_a3() -> None:
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convolutions = sum(9 * i * o + o + 2 * o for i, o in pairwise(widths))
    linear = 2 * (512 * 512 + 512 + 2 * 512) + 512 * 10 + 10
    with torch.device("meta"):
        model = build("builtin:vgg16")
    assert parameters(model) == convolutions + linear
    assert [type(layer).__name__ for layer in model.classifier] == [
        *("Linear", "BatchNorm1d", "ReLU") * 2,
        "Linear",
    ]


def test_smallcnn_has_four_convolutions_and_a_few_hundred_thousand_weights() -> None:
    model = build("builtin:smallcnn")
    assert 100_000 <= parameters(model) <= 300_000
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 4


@pytest.mark.parametrize("name", [name for name in builtin_names() if name != "wrn28-10"])
def test_natural_input_other_classes_and_channels(name: str) -> None:
    source = f"builtin:{name}"
    info = describe(source)
    assert info.input_shape is not None and info.fixed_size == (name in FIXED)
    check_input(build(source), input_shape=info.input_shape, num_classes=10)
    channels = 4 - info.input_shape[0]
    model = build(source, num_classes=7, in_channels=channels)
    check_input(model, input_shape=(channels, *info.input_shape[1:]), num_classes=7)
    assert describe(source, {"in_channels": channels}).input_shape == (channels, *info.input_shape[1:])


@pytest.mark.parametrize("name", ["resnet20", "wrn28-2", "smallcnn"])
def test_globally_pooled_networks_take_other_sizes(name: str) -> None:
    model = build(f"builtin:{name}", in_channels=1)
    check_input(model, input_shape=(1, 20, 24), num_classes=10)


@pytest.mark.parametrize("name", sorted(FIXED))
def test_fixed_size_networks_refuse_other_sizes_in_one_line(name: str) -> None:
    model = build(f"builtin:{name}")
    channels = describe(f"builtin:{name}").input_shape[0]
    with pytest.raises(ModelError, match=rf"does not take {channels}x64x64 inputs") as caught:
        check_input(model, input_shape=(channels, 64, 64))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lenet300", "lenet5_caffe", "resnet20", "smallcnn", "vgg16", "wrn28-2"])
def test_same_seed_same_weights_and_gradients_reach_every_parameter(name: str) -> None:
    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return build(f"builtin:{name}")

    model, again, other = make(3), make(3), make(4)
    same = [torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)]
    assert all(same)
    different = zip(model.parameters(), other.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in different)
    shape = describe(f"builtin:{name}").input_shape
    model(torch.randn(4, *shape)).logsumexp(dim=1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_resnet20_equals_a_plain_rewriting_with_option_a() -> None:
    model = build("builtin:resnet20").eval()
    x = torch.randn(2, 3, 32, 32)

    def conv_bn(x: torch.Tensor, conv: nn.Conv2d, bn: nn.BatchNorm2d, stride: int = 1) -> torch.Tensor:
        x = torch.conv2d(x, conv.weight, None, stride, 1)
        scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
        return (x - bn.running_mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + bn.bias.view(-1, 1, 1)

    with torch.no_grad():
        h = conv_bn(x, model.conv1, model.bn1).relu()
        for stage, width in ((model.layer1, 16), (model.layer2, 32), (model.layer3, 64)):
            for index, block in enumerate(stage):
                stride = 2 if index == 0 and width > 16 else 1
                residual = conv_bn(h, block.conv1, block.bn1, stride).relu()
                residual = conv_bn(residual, block.conv2, block.bn2)
                if stride == 2:
                    padded = torch.zeros_like(residual)
                    padded[:, width // 4 : width // 4 + width // 2] = h[:, :, ::2, ::2]
                    h = padded
                h = (residual + h).relu()
        expected = h.mean(dim=(2, 3)) @ model.fc.weight.T + model.fc.bias
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("name", ["lenet300", "lenet5_caffe", "resnet20", "smallcnn", "vgg16", "wrn28-2"])
def test_export_with_dynamic_batch(name: str) -> None:
    model = build(f"builtin:{name}").eval()
    shape = describe(f"builtin:{name}").input_shape
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, *shape),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, *shape)
    torch.testing.assert_close(program.module()(x), model(x))


def test_impossible_depth_and_width_name_the_argument() -> None:
    with pytest.raises(ValueError, match="depth=21"):
        CifarResNet(depth=21)
    with pytest.raises(ValueError, match="depth=27"):
        WideResNet(depth=27, widen=2)
    with pytest.raises(ValueError, match="widen=0"):
        WideResNet(widen=0)
    with pytest.raises(ValueError, match="dropout=1"):
        WideResNet(widen=1, dropout=1.0)


def test_every_torchvision_classifier_has_a_natural_input() -> None:
    for name in torchvision.models.list_models(module=torchvision.models):
        channels, height, width = describe(f"torchvision:{name}").input_shape
        assert channels == 3 and height == width >= 224
    assert describe("torchvision:vit_b_16").fixed_size
    assert not describe("torchvision:resnet18").fixed_size
