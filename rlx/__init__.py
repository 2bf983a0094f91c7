"""rlx: policy optimisation in JAX. Losses are pure functions of arrays; what needs more than jax loads on first use.

>>> import rlx
>>> print(f"{rlx.rdpo(jnp.zeros((3, 2)), jnp.zeros((3, 2)), epsilon=0.2):.4f}")
0.6931
"""

import importlib
from typing import Any

from rlx import aggregate, catalog, errors, method, metrics, numerics, signals, types
from rlx.build import build

__version__ = "0.1.0"
__all__ = ["aggregate", "build", "catalog", "errors", "method", "metrics", "numerics", "signals", "types"]

_LAZY = (
    "config",
    "data",
    "evaluation",
    "game",
    "models",
    "ops",
    "policy",
    "preference",
    "report",
    "reward",
    "sweep",
    "train",
)


_MIGRATE = ("from_trl", "from_verl")


def __getattr__(name: str) -> Any:
    if name in _MIGRATE:
        return getattr(importlib.import_module("rlx.migrate"), name)
    if name in _LAZY:
        return importlib.import_module(f"rlx.{name}")
    if name in catalog.CATALOG:
        return catalog.CATALOG[name].call
    hint = errors.close_matches(name, [*catalog.CATALOG, *_LAZY, *_MIGRATE, *__all__])
    raise AttributeError(f"module 'rlx' has no attribute {name!r}.{hint}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, *_MIGRATE, *catalog.CATALOG])
