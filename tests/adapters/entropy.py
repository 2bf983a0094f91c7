"""Adapters: methods that control the entropy: selections, weights, regularisers, controllers."""

from collections.abc import Callable
from typing import Any

ADAPTERS: dict[str, Callable[..., Any]] = {}
