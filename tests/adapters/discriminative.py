"""Adapters: discriminative and mixed policy losses, value losses, and corrections of the rollout's policy."""

from collections.abc import Callable
from typing import Any

ADAPTERS: dict[str, Callable[..., Any]] = {}
