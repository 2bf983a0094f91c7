"""Adapters: statistics of next-token distributions: entropies, covariances, and what they predict."""

from collections.abc import Callable
from typing import Any

ADAPTERS: dict[str, Callable[..., Any]] = {}
