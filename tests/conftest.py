"""What tests share: the folder of vectors, the folder of real data, float64, and a tiny run."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.tiny_run import finished, tiny

__all__ = ["finished", "tiny"]


@pytest.fixture(scope="session")
def vectors(pytestconfig: pytest.Config) -> Path:
    """The folder of conformance vectors."""
    return pytestconfig.getoption("--vectors")


@pytest.fixture(scope="session")
def data_dir() -> Path | None:
    """The folder of real data sets (``RLX_DATA_DIR``), or None: the test then makes its own tiny data."""
    folder = os.environ.get("RLX_DATA_DIR")
    return Path(folder) if folder else None


@pytest.fixture
def float64() -> Callable[..., Any]:
    """Calls a function with 64-bit types enabled: ``float64(f, x, keyword=y)``."""

    def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return call
