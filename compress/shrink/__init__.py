"""Really remove the channels that pruning left without effect. `docs/shrink.md` explains how."""

from compress.shrink.apply import apply_plan
from compress.shrink.plan import ChannelCut, HeadCut, LayerCut, PlanError, ShrinkPlan
from compress.shrink.search import shrink
from compress.shrink.storage import load_shrunk, save_shrunk

__all__ = [
    "ChannelCut",
    "HeadCut",
    "LayerCut",
    "PlanError",
    "ShrinkPlan",
    "apply_plan",
    "load_shrunk",
    "save_shrunk",
    "shrink",
]
