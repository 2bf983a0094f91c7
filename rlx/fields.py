"""Values of a config block against the types that the fields of its dataclass declare."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlx.errors import UserError, one_line

LARGEST = 2**63


def check(kind: type, values: Mapping[str, Any], where: str, *, leave: Any = None) -> None:
    """Makes sure that values have the types of the fields of a dataclass; an int passes for a float.

    Args:
      kind: the dataclass; fields whose type is no plain one take anything.
      values: by field.
      where: the block's name in messages, ``config.sft``.
      leave: fields of this type, or of some of it, are left to the caller.

    Raises:
      UserError: the first value of another type, or a whole number beyond 64 bits.

    >>> import dataclasses
    >>> Block = dataclasses.make_dataclass("Block", [("steps", int), ("names", tuple[str, ...])])
    >>> check(Block, {"steps": "x"}, "config.sft")
    Traceback (most recent call last):
    rlx.errors.UserError: config.sft.steps must be a whole number, not 'x'.
    """
    hints = _hints(kind)
    for name, value in values.items():
        hint = hints.get(name, Any)
        if leave not in (hint, *typing.get_args(hint)) and not _fits(value, hint):
            raise UserError(f"{where}.{name} must be {_told(hint)}, not {shown(value)}.")


def shown(value: Any) -> str:
    """A value for a message: one line, not too long."""
    try:
        return one_line(repr(value), 100)
    except (ValueError, RecursionError):  # an int of thousands of digits, or too deep
        return f"a value of type {type(value).__name__}"


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except NameError:  # a type that is imported for type checkers alone
        return {}


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, own) for own in arguments)
    if origin in (tuple, list, Sequence):
        if isinstance(value, str):  # a lone one, for which the caller has words of its own
            return True
        return isinstance(value, list | tuple) and all(_fits(item, arguments[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return _PLAIN[hint][1](value) if hint in _PLAIN else True


def _told(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_told, arguments))
    if origin in (tuple, list, Sequence):
        return f"a sequence, each item {_told(arguments[0])}"
    if origin in (dict, Mapping):
        return "a block of keys"
    return _PLAIN[hint][0] if hint in _PLAIN else str(hint)


def _whole(value: Any) -> bool:
    return type(value) is int and abs(value) < LARGEST


def _number(value: Any) -> bool:
    return _whole(value) or isinstance(value, float)


_PLAIN: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", _whole),
    float: ("a number", _number),
    str: ("a text", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    type(None): ("None", lambda value: value is None),
}
