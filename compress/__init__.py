"""Compression of trained PyTorch networks: masks, budgets, methods, training, shrinking.

Every method is one policy on one formula, W = Φ(m ⊙ β + (1 − m) ⊙ W₀) (``compress.subspace``), and ends
in a plain model again through :func:`fold`. This package knows nothing of ONNX.
"""

from compress.interspace_conv import to_two_step
from compress.prunable import PrunableWeight, prunable_weights
from compress.sparsity import LayerSparsity, SparsityReport, sparsity_report
from compress.subspace import Subspace, attach, dense_weights, fold

__all__ = [
    "LayerSparsity",
    "PrunableWeight",
    "SparsityReport",
    "Subspace",
    "attach",
    "dense_weights",
    "fold",
    "prunable_weights",
    "sparsity_report",
    "to_two_step",
]
