"""Examples of calls: advantage estimators: from rewards of a group, and over the tokens of a response."""

from collections.abc import Callable
from typing import Any

EXAMPLES: dict[str, Callable[..., Any]] = {}
