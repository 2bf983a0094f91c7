"""From the vector files to the functions of rlx: the adapters of all modules in this folder, by method name.

A module declares ``ADAPTERS: dict[str, Adapter]`` and, where a method needs it,

* ``GRADIENT_OF``: method -> the output whose gradient the file gives, ``"loss"`` otherwise;
* ``TOLERANCES``: method or ``"method/array"`` -> (relative, absolute floor, the reason);
* ``JUDGED``: ``"method/array"`` -> ``judge(outputs, expected)``, for what the file says not to compare by equality;
* ``INSTEAD_OF_NAN``: method or ``"method/array"`` -> the value wanted where the reference gives NaN.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import jax

Adapter = Callable[[dict[str, Any], dict[str, jax.Array]], dict[str, jax.Array]]


def _merge(name: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for module in MODULES:
        for key, value in getattr(module, name, {}).items():
            if key in merged:
                raise ValueError(f"{module.__name__}.{name} declares {key!r} a second time.")
            merged[key] = value
    return merged


MODULES = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
ADAPTERS: dict[str, Adapter] = _merge("ADAPTERS")
GRADIENT_OF: dict[str, str] = _merge("GRADIENT_OF")
TOLERANCES: dict[str, tuple[float, float, str]] = _merge("TOLERANCES")
INSTEAD_OF_NAN: dict[str, float] = _merge("INSTEAD_OF_NAN")
JUDGED: dict[str, Callable[[dict[str, Any], Any], bool]] = _merge("JUDGED")
