"""Blocks of a config as dataclasses, and what is checked of their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rlx import fields as types_of
from rlx.errors import UserError, close_matches


def block_of(kind: type, values: Mapping[str, Any], name: str) -> Any:
    """A dataclass from a block: its fields are the keys that the block may have."""
    full = f"config.{name}" if name else "config"
    if not isinstance(values, Mapping):
        raise UserError(f"{full} must be a block of keys, not {values!r}.")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise UserError(
                f"{full} has an unknown key {key!r}.{close_matches(key, fields)} Keys: {', '.join(fields)}."
            )
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and key not in values:
            raise UserError(f"{full} lacks the key {key!r}.")
    types_of.check(kind, values, full, leave=int)  # whole numbers have bounds of their own: `integers`
    return kind(**values)


def choice(name: str, value: str, options: tuple[str, ...]) -> None:
    """Makes sure that the value of a key is one of its options."""
    if value not in options:
        raise UserError(
            f"config.{name}: unknown {value!r}.{close_matches(value, options)} Known: {', '.join(options)}."
        )


def integers(name: str, block: Any, lowest: Mapping[str, int]) -> None:
    """Makes sure that attributes of a block are whole numbers of at least the lowest."""
    for key, low in lowest.items():
        value = getattr(block, key)
        if type(value) is not int or value < low:
            raise UserError(f"{name}.{key} must be a whole number of at least {low}, not {value!r}.")
