"""Adapters: reward shaping, and what is sampled, kept and how often: budgets, filters, votes."""

from collections.abc import Callable
from typing import Any

ADAPTERS: dict[str, Callable[..., Any]] = {}
