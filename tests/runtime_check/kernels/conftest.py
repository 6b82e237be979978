"""Without the compiled library there is nothing to test here."""

from __future__ import annotations

import pytest

from runtime_check import kernels


@pytest.fixture(scope="session", autouse=True)
def _built() -> None:
    status = kernels.status()
    if not status.available:
        pytest.skip(f"sparse kernels: {status.reason}")
