"""What the tests of data sources share."""

from typing import Any

import numpy as np
import pytest

from compress_then_export.data import DataError, open_data


def refused(source: str, *words: str, options: dict[str, Any] | None = None, **keys: Any) -> None:
    """Opening fails in one line with these words."""
    with pytest.raises(DataError) as caught:
        open_data({"source": source, **keys}, **(options or {}))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def random_bytes(seed: int, *shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
