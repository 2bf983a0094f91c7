"""Reads JSON that others wrote: bounded in size and depth, without duplicate keys, and every fault in one line."""

import json
import math
import os
from pathlib import Path
from typing import Any

from rlx.errors import UserError, one_line

MAX_DEPTH = 64


class Malformed(ValueError):
    """What is wrong with a text, in one line, without its place."""


def loads(text: str | bytes, *, depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text.

    ``NaN`` and the infinities are taken, as Python writes them; whoever reads a number checks that it is finite.

    Raises:
      Malformed: not UTF-8, not JSON, a key twice in one object, nested deeper than ``depth``, a number with thousands
        of digits.

    >>> loads('{"a": [1, 2]}')
    {'a': [1, 2]}
    >>> loads('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    rlx.bounds.Malformed: the key 'a' stands twice in one object
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"byte {error.start + 1} is not UTF-8") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise Malformed("the JSON is nested too deeply") from None
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(f"not JSON ({one_line(error)})") from None
    if text.count("[") + text.count("{") > depth and _deeper(value, depth):
        raise Malformed(f"the JSON is nested too deeply: more than {depth} levels")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise Malformed(f"the key {one_line(repr(twice), 60)} stands twice in one object")
    return found


def _deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects stand more than ``depth`` levels deep; level by level, without recursion."""
    level = [value]
    for _ in range(depth):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return any(isinstance(inner, dict | list) for inner in level)


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a file of at most ``limit`` bytes.

    Raises:
      UserError: the file is larger, or cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    if len(content) > limit:
        raise UserError(f"{path} holds more than {limit} bytes, the bound for such a file.")
    return content


def read_object(path: str | os.PathLike[str], limit: int = 2**24) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      UserError: no such file, too large, not JSON, no object; with the name of the file.
    """
    content = read_bytes(path, limit)
    try:
        value = loads(content)
    except Malformed as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds a {type(value).__name__}, not a JSON object.")
    return value


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float that a double can hold; bools are none.

    >>> is_number(1), is_number(True), is_number(10**400), is_number("1")
    (True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isnan(value) or abs(float(value)) >= 0
    except OverflowError:
        return False
