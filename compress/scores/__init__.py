"""How important is a weight? Plain functions of a model, its prunable weights and batches of data.

Every score returns one tensor a weight, shaped like the weight, larger is more important, and leaves the model as it
was: gradients, hooks, modes, BatchNorm statistics and random state. :mod:`compress.sampling` chooses the batches.
"""

from compress.scores.connection import gradient, snip, usnip
from compress.scores.flow import synflow
from compress.scores.gradient_signal import grasp
from compress.scores.magnitude import magnitude
from compress.scores.registry import SCORES, Score, check_score, score_called
from compress.scores.uniform import random

__all__ = [
    "SCORES", "Score", "check_score", "gradient", "grasp", "magnitude", "random", "score_called", "snip", "synflow",
    "usnip",
]  # fmt: skip
