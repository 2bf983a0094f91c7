"""Inputs of solvers and host functions, which take no batch: a module per family declares ``EXAMPLES``.

``EXAMPLES: dict[str, Example]``: method -> ``example(rng) -> (args, keywords)`` of a call that must succeed.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np

Example = Callable[[np.random.Generator], tuple[tuple[Any, ...], dict[str, Any]]]

MODULES = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
EXAMPLES: dict[str, Example] = {name: example for module in MODULES for name, example in module.EXAMPLES.items()}
