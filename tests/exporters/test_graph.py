"""The dense graph: the same function as torch's eval mode, without BatchNorm, denormals or side effects."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn
from torch.nn.utils import parametrize

from exporters import ExportError, export
from exporters.graph import build_graph
from exporters.tensors import read_array


def test_batchnorm_is_folded_where_a_layer_precedes_and_survives_elsewhere(
    small_net: nn.Module, images: torch.Tensor, tmp_path: Path, run
) -> None:  # type: ignore[no-untyped-def]
    graph = build_graph(small_net, images).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("BatchNormalization") == 1
    assert {"Conv", "ConvTranspose", "Gemm"} <= set(operators)
    export(small_net, images, tmp_path / "net.onnx", encoding="dense")
    with torch.no_grad():
        expected = small_net(images).numpy()
    np.testing.assert_allclose(run(tmp_path / "net.onnx", images.numpy()), expected, rtol=1e-5, atol=1e-5)


def test_folding_keeps_zeros_zero(sparse_net: nn.Module, images: torch.Tensor) -> None:
    graph = build_graph(sparse_net, images).graph
    stem = next(tensor for tensor in graph.initializer if list(tensor.dims) == [16, 3, 3, 3])
    assert np.count_nonzero(read_array(stem)) == int(torch.count_nonzero(sparse_net.stem.weight))  # type: ignore[union-attr,arg-type]


def test_names_and_batch_axis(small_net: nn.Module, images: torch.Tensor) -> None:
    graph = build_graph(small_net, images[:1]).graph
    assert [value.name for value in graph.input] == ["input"]
    assert [value.name for value in graph.output] == ["output"]
    dimensions = graph.input[0].type.tensor_type.shape.dim
    assert dimensions[0].dim_param == "batch"
    assert [item.dim_value for item in dimensions][1:] == [3, 12, 12]
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    fixed = build_graph(small_net, images, dynamic_batch=False).graph
    assert fixed.input[0].type.tensor_type.shape.dim[0].dim_value == 5


def test_versions_that_runtimes_read(small_net: nn.Module, images: torch.Tensor) -> None:
    model = build_graph(small_net, images)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 21)]
    assert model.ir_version == 10
    assert not model.functions and not model.graph.value_info
    assert not any(node.metadata_props or node.domain for node in model.graph.node)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 8), nn.Linear(6, 8)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.left(a) + self.right(b), self.left(a)


def test_several_inputs_and_outputs_share_the_batch_axis() -> None:
    graph = build_graph(TwoInputs(), (torch.randn(1, 4), torch.randn(1, 6))).graph
    assert [value.name for value in graph.input] == ["a", "b"]
    assert len(graph.output) == 2
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_denormals_and_negative_zeros_become_zero() -> None:
    layer = nn.Linear(32, 32)
    with torch.no_grad():
        layer.weight[0, :4] = torch.tensor([1e-40, -1e-42, -0.0, 1.2e-38])
        layer.bias[:2] = torch.tensor([-1e-39, 0.5])
    graph = build_graph(layer, torch.randn(2, 32)).graph
    arrays = {len(tensor.dims): read_array(tensor).astype(np.float32) for tensor in graph.initializer}
    np.testing.assert_array_equal(arrays[2][0, :3].view(np.uint32), 0)
    assert arrays[2][0, 3] == np.float32(1.2e-38)
    assert arrays[1][0] == 0 and not np.signbit(arrays[1][0])


def test_denormal_biases_made_by_folding_become_zero() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.BatchNorm2d(4)).eval()
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight.fill_(1e-30)
        norm.bias.fill_(1e-41)
    norm.running_mean.fill_(1e-9)  # type: ignore[union-attr]
    for tensor in build_graph(model, torch.randn(2, 2, 4, 4)).graph.initializer:
        array = read_array(tensor)
        assert tensor.data_type == TensorProto.FLOAT
        assert not ((array != 0) & (np.abs(array) < 1.17549435e-38)).any()


def test_export_leaves_the_model_and_the_process_as_they_were(
    small_net: nn.Module, images: torch.Tensor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small_net.train()
    small_net.norm.eval()  # type: ignore[union-attr,operator]
    modes = [module.training for module in small_net.modules()]
    state = {name: value.clone() for name, value in small_net.state_dict().items()}
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    gradients = [parameter.requires_grad for parameter in small_net.parameters()]
    capfd.readouterr()
    export(small_net, images, tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "")
    assert [module.training for module in small_net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in small_net.state_dict().items())
    assert [parameter.requires_grad for parameter in small_net.parameters()] == gradients
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    np.testing.assert_array_equal(np.random.get_state()[1], generators[2])  # type: ignore[index]


def test_dropout_is_off(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).train()
    assert "Dropout" not in [node.op_type for node in build_graph(model, torch.randn(2, 8)).graph.node]


class Flip(nn.Module):
    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return -w


def test_parametrized_models_are_refused_with_the_way_out() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    parametrize.register_parametrization(model[0], "weight", Flip())
    with pytest.raises(ExportError, match=r"module '0' .*compress\.fold\(model\)"):
        build_graph(model, torch.randn(2, 4))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_named(value: float) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[1, 2] = value
    with pytest.raises(ExportError, match=r"'1\.weight' holds NaN or infinite"):
        build_graph(model, torch.randn(2, 4))


def test_broken_statistics_are_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model[1].running_var[0] = float("nan")  # type: ignore[union-attr,index]
    with pytest.raises(ExportError, match=r"'1\.running_var' holds NaN"):
        build_graph(model, torch.randn(2, 3, 4, 4))


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        if y.sum() > 0:  # the line the message has to name
            y = y * 2
        return torch.as_tensor(y)


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1) * torch.arange(2)[:, None]


class NoOnnx(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.airy_ai(x)


def test_untraceable_code_is_located() -> None:
    line = Path(__file__).read_text().splitlines().index("        if y.sum() > 0:  # the line the message has to name")
    with pytest.raises(ExportError) as caught:
        build_graph(nn.Sequential(nn.Linear(4, 4), Branch()), torch.randn(2, 4))
    message = str(caught.value)
    assert f"module '1' at {__file__}:{line + 1}" in message
    assert "\n" not in message and "depends on the values" in message


def test_a_batch_size_fixed_by_the_code_is_explained() -> None:
    with pytest.raises(ExportError, match="dynamic_batch=False"):
        build_graph(FixedBatch(), torch.randn(2, 4))
    assert build_graph(FixedBatch(), torch.randn(2, 4), dynamic_batch=False).graph.output[0].name == "output"


def test_an_operation_without_onnx_form_is_named_and_located() -> None:
    expected = r"module '0' at .*test_graph\.py:\d+: aten\.special_airy_ai has no ONNX form"
    with pytest.raises(ExportError, match=expected):
        build_graph(nn.Sequential(NoOnnx()), torch.randn(2, 4))


def test_inputs_that_do_not_fit_are_explained() -> None:
    with pytest.raises(ExportError, match=r"example_inputs: the model fails on \(float32 \[2, 5\]\) in module '0'"):
        build_graph(nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 5))
    with pytest.raises(ExportError, match="example_inputs: need a tensor"):
        build_graph(nn.Linear(4, 4), ())
    with pytest.raises(ExportError, match="example_inputs: the first axis"):
        build_graph(nn.Linear(4, 4), torch.randn(0, 4))
    with pytest.raises(ExportError, match=r"model: need a torch\.nn\.Module"):
        build_graph("resnet18", torch.randn(1, 4))  # type: ignore[arg-type]


def test_infinite_mask_buffers_are_legitimate() -> None:
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.register_buffer("mask", torch.tensor([0.0, 0.0, float("-inf"), 0.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(super().forward(x) + self.mask, -1)

    onnx.checker.check_model(build_graph(Masked(), torch.randn(2, 4)), full_check=True)
