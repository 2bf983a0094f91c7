"""Examples of calls: nested groups: segments, turns, anchor states, trees; and evolution strategies."""

from collections.abc import Callable
from typing import Any

EXAMPLES: dict[str, Callable[..., Any]] = {}
