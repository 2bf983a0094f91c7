"""Examples of calls: statistics of next-token distributions: entropies, covariances, and what they predict."""

from collections.abc import Callable
from typing import Any

EXAMPLES: dict[str, Callable[..., Any]] = {}
