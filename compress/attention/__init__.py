"""Attention whose heads are channels: opened out of torch's and torchvision's, then cut like any other layer."""

from compress.attention.opening import closed_attention, open_attention, opened, opened_copy
from compress.attention.plain import PlainAttention
from compress.attention.protocol import OpenAttention
from compress.attention.windowed import WindowAttention

__all__ = [
    "OpenAttention",
    "PlainAttention",
    "WindowAttention",
    "closed_attention",
    "open_attention",
    "opened",
    "opened_copy",
]
