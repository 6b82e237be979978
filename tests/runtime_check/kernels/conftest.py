"""Without the compiled library there is nothing to test here; a library that onnxruntime refuses fails the tests."""

from __future__ import annotations

import pytest

from runtime_check import CheckError, kernels


@pytest.fixture(scope="session", autouse=True)
def _built() -> None:
    try:
        kernels.get_library_path()
    except CheckError as error:
        pytest.skip(str(error))
    assert kernels.status().available, kernels.status()
