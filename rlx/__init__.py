"""rlx: policy optimisation in JAX. Losses are pure functions of arrays; everything else loads on first use.

>>> import rlx
>>> print(f"{rlx.rdpo(jnp.zeros((3, 2)), jnp.zeros((3, 2)), epsilon=0.2):.4f}")
0.6931
"""

import importlib
from typing import Any

import jax  # noqa: F401  the one dependency that is loaded at once
import numpy as np  # noqa: F401

__version__ = "0.1.0"

_MODULES = frozenset(
    "aggregate catalog config data errors method metrics models numerics ops policy preference report reward signals "
    "sweep train types".split()
)


def __getattr__(name: str) -> Any:
    if name == "build":
        return importlib.import_module("rlx.build").build
    if name in _MODULES:
        return importlib.import_module(f"rlx.{name}")
    from rlx import catalog, errors

    if name in catalog.CATALOG:
        return catalog.CATALOG[name].function
    raise AttributeError(
        f"module 'rlx' has no attribute {name!r}.{errors.close_matches(name, ['build', *catalog.CATALOG, *_MODULES])}"
    )


def __dir__() -> list[str]:
    from rlx import catalog

    return sorted([*globals(), "build", *_MODULES, *catalog.CATALOG])
