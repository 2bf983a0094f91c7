"""What a checkpoint holds, leaf by leaf, against what is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from rlx.errors import UserError


def of(tree: Any) -> list[list[Any]]:
    """``[path, shape, type]`` of every leaf, in order."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [[name_of(path), list(leaf.shape), str(leaf.dtype)] for path, leaf in flat]


def name_of(path: tuple) -> str:
    """Where a leaf is in its tree, ``params/policy/embedding``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check(saved: list[list[Any]], wanted: list[list[Any]], path: Path) -> None:
    """Raises a UserError that names the first leaf in which a checkpoint and a state differ."""
    old, new = ({name: (tuple(shape), kind) for name, shape, kind in leaves} for leaves in (saved, wanted))
    for name in [*new, *old]:
        if old.get(name) == new.get(name):
            continue
        there, here = (f"{leaf[1]}{list(leaf[0])}" if leaf else "absent" for leaf in (old.get(name), new.get(name)))
        part = next((what for key, what in _PARTS.items() if name.startswith(key)), "method")
        raise UserError(
            f"checkpoint {path} does not fit this config: {name} is {there} there and {here} here, so the {part} "
            f"differs. Use the config the run was started with, or another --workdir."
        )


_PARTS = {
    "params/policy": "model",
    "policy": "model",
    "opt_state": "optimizer",
    "method_state": "method",
    "params/method": "method",
    "memory": "memory of rollouts",
}
