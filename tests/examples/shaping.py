"""Examples of calls: reward shaping, and what is sampled, kept and how often: budgets, filters, votes."""

from collections.abc import Callable
from typing import Any

EXAMPLES: dict[str, Callable[..., Any]] = {}
