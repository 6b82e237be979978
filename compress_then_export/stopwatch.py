"""What times networks for methods that want a latency: both exported, and run by onnxruntime in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from exporters import export
from runtime_check import compare


class OnnxStopwatch:
    """Latency of a thinned network's file over that of the whole one's, both dense, batch 1, in strict alternation.

    Args:
        input_shape: of one input, without the batch.
        threads: of onnxruntime.
        seconds: measuring time for both together.
    """

    def __init__(self, input_shape: Sequence[int], *, threads: int = 1, seconds: float = 2.0) -> None:
        self.input_shape, self.threads, self.seconds = tuple(input_shape), threads, seconds
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._whole: nn.Module | None = None

    def __repr__(self) -> str:
        return f"OnnxStopwatch({self.input_shape}, threads={self.threads}, seconds={self.seconds})"

    def __deepcopy__(self, _: object) -> OnnxStopwatch:
        return self

    def __call__(self, thinned: nn.Module, whole: nn.Module) -> float:
        """Median over pairs of timings. The whole network's file is kept until another one is given.

        Raises:
            ExportError: (a ValueError) a network that cannot be exported.
        """
        if self._folder is None or self._whole is not whole:
            self._folder, self._whole = tempfile.TemporaryDirectory(prefix="latency-"), whole
            self._export(whole, "whole")
        found = compare(
            self._file("whole"), self._export(thinned, "thinned"), threads=self.threads, seconds=self.seconds
        )
        return 1 / found.speedup.median

    def _export(self, model: nn.Module, name: str) -> Path:
        export(model, torch.zeros(1, *self.input_shape), self._file(name), encoding="dense", dynamic_batch=False)
        return self._file(name)

    def _file(self, name: str) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / f"{name}.onnx"
