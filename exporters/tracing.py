"""torch.onnx.export, quiet and without side effects: a module in, an untouched ONNX model out."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn

from exporters.errors import ExportError
from exporters.explanation import explain_conversion, explain_forward, explain_trace

OPSET = 21
"""The first operator set with UINT4; read by onnxruntime 1.23 and OpenVINO 2025."""


def trace(model: nn.Module, inputs: Sequence[Tensor], *, dynamic_batch: bool) -> ModelProto:
    """Return ``model`` as an ONNX model of one self-contained graph, traced in eval mode.

    The model's training flags and every random generator are left as they were; nothing is printed.

    Args:
        model: A plain module.
        inputs: Example inputs; their first axis is the batch when ``dynamic_batch``.
        dynamic_batch: Let the first axis of all inputs that share the first input's batch size vary.

    Raises:
        ExportError: torch cannot trace the model, or cannot write it as ONNX; the message says where.
    """
    examples, dynamic_shapes = _batched(inputs) if dynamic_batch else (tuple(inputs), None)
    with _quiet(), _eval_mode(model), _random_state_kept(), torch.no_grad():
        try:
            model(*examples)
        except Exception as error:
            raise ExportError(explain_forward(model, examples, error)) from error
        try:
            program = torch.export.export(model, examples, dynamic_shapes=dynamic_shapes, strict=False)
        except Exception as error:
            raise ExportError(explain_trace(model, error)) from error
        try:
            exported = torch.onnx.export(
                program, (), dynamo=True, external_data=False, opset_version=OPSET, verbose=False, optimize=True
            )
        except Exception as error:
            raise ExportError(explain_conversion(program, error)) from error
    if exported is None:
        raise ExportError("model: torch.onnx.export returned nothing")
    proto = exported.model_proto
    assert isinstance(proto, ModelProto)
    return proto


def _batched(inputs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[dict[int, object] | None, ...]]:
    """Return inputs of batch 2 or more, since torch.export makes a constant of a batch of 1, and their axes."""
    size = inputs[0].shape[0]
    shares = [tensor.dim() >= 1 and tensor.shape[0] == size for tensor in inputs]
    if size == 1:
        inputs = [torch.cat([x, x]) if share else x for x, share in zip(inputs, shares, strict=True)]
    batch = torch.export.Dim("batch", min=1)
    axes: tuple[dict[int, object] | None, ...] = tuple({0: batch} if share else None for share in shares)
    return tuple(inputs), axes


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress lines, deprecation warnings and log records of the exporter to ourselves."""
    sink = io.StringIO()
    disabled = logging.root.manager.disable
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # torch's loggers have levels and handlers of their own, so only the global switch silences them all.
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)


@contextlib.contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch every module to eval mode and give each its own flag back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
