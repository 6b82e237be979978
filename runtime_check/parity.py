"""Parity: does the file that ships compute what torch computed?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime_check.errors import CheckError
from runtime_check.feeds import classify

_TINY = float(np.finfo(np.float32).tiny)
# A sample whose outputs are all next to zero is measured against a thousandth of the largest output.
_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far two sets of outputs [N, classes] are apart; the differences are None where NaN turns up."""

    max_abs_diff: float | None
    max_rel_diff: float | None
    argmax_agreement: float
    samples: int

    def to_json(self) -> dict[str, Any]:
        """The `parity` object of report.json."""
        return asdict(self)


def compare_outputs(outputs: NDArray[Any], golden: NDArray[Any]) -> Parity:
    """Compare outputs [N, classes] with the golden ones.

    max_abs_diff is the largest |a − b| of all. max_rel_diff is the largest over the samples of
    max|a − b| / max|golden|, both maxima over the classes of one sample, the divisor at least 1e-3 of the
    largest golden output of all. argmax_agreement is the share of samples with the same top class; a sample
    with NaN agrees with nothing. Infinity is a difference too, unless both hold it at the same place.

    Raises:
        CheckError: when the shapes differ.
    """
    if outputs.shape != golden.shape or outputs.ndim != 2:
        raise CheckError(
            f"the model's outputs have shape {list(outputs.shape)}, the golden outputs {list(golden.shape)}"
        )
    a, b = np.asarray(outputs, dtype=np.float64), np.asarray(golden, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where(a == b, 0.0, np.abs(a - b))
    whole = ~(np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1))
    agreement = float((whole & (a.argmax(axis=1) == b.argmax(axis=1))).mean())
    if not np.isfinite(difference).all():
        return Parity(max_abs_diff=None, max_rel_diff=None, argmax_agreement=agreement, samples=len(a))
    size = np.where(np.isfinite(b), np.abs(b), 0.0).max(axis=1)
    scale = np.maximum(size, max(_FLOOR * float(size.max()), _TINY))
    return Parity(
        max_abs_diff=float(difference.max()),
        max_rel_diff=float((difference.max(axis=1) / scale).max()),
        argmax_agreement=agreement,
        samples=len(a),
    )


def check_parity(
    session: ort.InferenceSession, inputs: NDArray[Any], golden: NDArray[Any], name: str = "model.onnx"
) -> Parity:
    """Run a session on `inputs` [N, ...] in batches and compare with the golden outputs [N, classes]."""
    return compare_outputs(classify(session, inputs, name), golden)
