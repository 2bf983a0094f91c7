"""Adapters: nested groups: segments, turns, anchor states, trees; and evolution strategies."""

from collections.abc import Callable
from typing import Any

ADAPTERS: dict[str, Callable[..., Any]] = {}
