"""Examples of calls: methods that control the entropy: selections, weights, regularisers, controllers."""

from collections.abc import Callable
from typing import Any

EXAMPLES: dict[str, Callable[..., Any]] = {}
