"""From a plain torch module to a clean dense ONNX model: the first half of an export."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version

import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn.utils import parametrize

from exporters.batchnorm import fold_batchnorm
from exporters.cleaning import flush_tiny, name_ends, refuse_broken_weights, strip_noise
from exporters.errors import ExportError
from exporters.tracing import OPSET, trace

_LOG = logging.getLogger(__name__)


def build_graph(
    model: nn.Module, example_inputs: Tensor | Sequence[Tensor], *, dynamic_batch: bool = True
) -> ModelProto:
    """Return ``model`` in eval mode as an ONNX model of plain float32 initializers.

    BatchNorm is folded into the layer before it, denormal weights and biases are zero, zeros are +0.0, a single
    input is called "input", a single output "output", a dynamic batch axis "batch". The model itself, its
    training flags and the random generators stay as they are.

    Args:
        model: A plain module; one that still carries parametrizations has to be folded first.
        example_inputs: One tensor, or the tensors of the forward pass in order; they only give shapes and types.
        dynamic_batch: Let the batch size vary; otherwise it is that of the example.

    Raises:
        ExportError: the model or the inputs cannot be exported; the message names the reason.
    """
    inputs = check_inputs(example_inputs, dynamic_batch=dynamic_batch)
    check_model(model)
    proto = trace(model, inputs, dynamic_batch=dynamic_batch)
    opset = {item.domain: item.version for item in proto.opset_import}
    if opset.get("", 0) < OPSET:
        raise ExportError(f"model: torch wrote operator set {opset.get('', 0)}, needed is {OPSET}; update torch")
    strip_noise(proto)
    name_ends(proto.graph, dynamic_batch=dynamic_batch)
    folded = fold_batchnorm(proto.graph)
    refuse_broken_weights(proto.graph)
    flushed = flush_tiny(proto.graph)
    _LOG.debug("folded %d BatchNorm nodes that torch left, flushed %d denormals", folded, flushed)
    proto.producer_name = "compress-then-export"
    proto.producer_version = version("compress-then-export")
    proto.graph.name = type(model).__name__
    return proto


def check_inputs(example_inputs: Tensor | Sequence[Tensor], *, dynamic_batch: bool) -> tuple[Tensor, ...]:
    """Return the example inputs as a tuple, or raise ExportError when they are not tensors with a batch axis."""
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    if not inputs or not all(isinstance(item, Tensor) for item in inputs):
        raise ExportError("example_inputs: need a tensor or a non-empty tuple of tensors")
    if dynamic_batch and (inputs[0].dim() == 0 or inputs[0].shape[0] == 0):
        raise ExportError("example_inputs: the first axis is the batch and must not be empty or missing")
    return inputs


def check_model(model: nn.Module) -> None:
    """Raise ExportError when ``model`` is not a plain module with finite weights."""
    if not isinstance(model, nn.Module):
        raise ExportError(f"model: need a torch.nn.Module, not {type(model).__name__}")
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            raise ExportError(
                f"model: module {name or 'the model itself'!r} still carries a parametrization; "
                "call compress.fold(model) first"
            )
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise ExportError(f"model: parameter {name!r} holds NaN or infinite values; retrain or repair it")
    for name, buffer in model.named_buffers():
        # Infinite buffers are legitimate: attention masks hold -inf.
        if buffer.is_floating_point() and bool(torch.isnan(buffer).any()):
            raise ExportError(f"model: buffer {name!r} holds NaN; retrain or repair it")
