"""Rows as they stand in files: typed access to their fields, and what is said when one is missing or wrong."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlx.errors import close_matches, one_line

ASSISTANT = "\n\nAssistant:"
TURNS = {"user": "\n\nHuman:", "human": "\n\nHuman:", "assistant": ASSISTANT, "system": "\n\nSystem:"}
_LARGEST = float(np.finfo(np.float32).max)


class BadRow(ValueError):
    """A row that does not fit its format; the reader adds file and line."""


class Row:
    """A row with typed access to its fields: what is missing or of the wrong type is a ``BadRow`` with a remedy."""

    def __init__(self, values: Any, fields: Mapping[str, str], vocab_size: int | None, chat: Any = None):
        if not isinstance(values, dict):
            raise BadRow(f"expected an object with named fields, found {kind_of(values)}.")
        self.values, self.fields, self.vocab_size, self.chat = values, fields, vocab_size, chat

    def name(self, field: str) -> str:
        """The name that ``field`` has in the file."""
        return self.fields.get(field, field)

    def __contains__(self, field: str) -> bool:
        return self.name(field) in self.values

    def get(self, field: str) -> Any:
        """The value of a field that must be there."""
        if field not in self:
            raise BadRow(missing(self, field))
        return self.values[self.name(field)]

    def text(self, field: str, *, empty: bool = False) -> str:
        """A string, not empty unless ``empty``."""
        return self._text(self.name(field), self.get(field), empty)

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of non-empty strings."""
        return tuple(self._text(f"{field}[{i}]", value, False) for i, value in enumerate(self._list(field)))

    def ids(self, field: str, *, empty: bool = False) -> tuple[int, ...]:
        """A list of token ids."""
        return self._ids(self.name(field), self.get(field), empty)

    def id_lists(self, field: str) -> tuple[tuple[int, ...], ...]:
        """A list of lists of token ids."""
        return tuple(self._ids(f"{field}[{i}]", value, False) for i, value in enumerate(self._list(field)))

    def number(self, field: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number within bounds."""
        return self._number(self.name(field), self.get(field), low, high)

    def numbers(self, field: str, count: int) -> tuple[float, ...]:
        """A list of ``count`` finite numbers."""
        values = self._list(field)
        if len(values) != count:
            raise BadRow(f"field {self.name(field)!r} has {len(values)} entries for {count} responses.")
        return tuple(self._number(f"{field}[{i}]", value) for i, value in enumerate(values))

    def array(self, field: str, axes: str, candidates: int) -> np.ndarray:
        """A number, or nested lists of them with the axes of the vocabulary: K is as long as there are responses."""
        try:
            with np.errstate(over="ignore"):  # what single precision cannot hold is not finite below
                found = np.asarray(self.get(field), np.float32)
        except (TypeError, ValueError, OverflowError):
            found = np.asarray(np.nan, np.float32)
        wanted = (
            f"{candidates} numbers, one per response" if axes == "K" else f"numbers with the axes [{', '.join(axes)}]"
        )
        fits = found.ndim == len(axes) and all(
            size == candidates for axis, size in zip(axes, found.shape, strict=True) if axis == "K"
        )
        if not fits or not np.isfinite(found).all():
            raise BadRow(
                f"field {self.name(field)!r} must hold {wanted if axes else 'a finite number'}, "
                f"found {kind_of(self.get(field))}."
            )
        return found

    def messages(self, field: str) -> list[tuple[str, str]]:
        """A list of ``{"role": ..., "content": ...}`` as (role, content)."""
        turns = [self._message(f"{self.name(field)}[{i}]", turn) for i, turn in enumerate(self._list(field))]
        if not turns:
            raise BadRow(f"field {self.name(field)!r} holds no message.")
        return turns

    def _list(self, field: str) -> list:
        value = self.get(field)
        if not isinstance(value, list):
            raise BadRow(f"field {self.name(field)!r} must be a list, found {kind_of(value)}.")
        return value

    def _message(self, name: str, turn: Any) -> tuple[str, str]:
        inner = Row(turn, {}, None) if isinstance(turn, dict) else None
        if inner is None:
            raise BadRow(f"{name} must be an object with 'role' and 'content', found {kind_of(turn)}.")
        role = inner.text("role")
        if role not in TURNS:
            shown = one_line(repr(role), 60)
            raise BadRow(f"{name} has the unknown role {shown}; roles are {list(TURNS)}.{close_matches(role, TURNS)}")
        return role, inner.text("content", empty=True)

    def _text(self, name: str, value: Any, empty: bool) -> str:
        if not isinstance(value, str):
            raise BadRow(f"field {name!r} must be a string, found {kind_of(value)}.")
        if not value and not empty:
            raise BadRow(f"field {name!r} is empty; remove the row or set data.on_bad_row='skip'.")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadRow(f"field {name!r} holds half a surrogate pair, which is no character.") from None
        return value

    def _ids(self, name: str, value: Any, empty: bool) -> tuple[int, ...]:
        if not isinstance(value, list) or any(type(token) is not int for token in value):
            raise BadRow(f"field {name!r} must be a list of token ids, found {kind_of(value)}.")
        if not value and not empty:
            raise BadRow(f"field {name!r} is empty; remove the row or set data.on_bad_row='skip'.")
        size = self.vocab_size
        wrong = [token for token in value if token < 0 or (size is not None and token >= size)]
        if wrong:
            raise BadRow(f"field {name!r} holds the token id {wrong[0]}, outside of the vocabulary of {size}.")
        return tuple(value)

    def _number(self, name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _LARGEST:
            raise BadRow(f"field {name!r} must be a finite number of single precision, found {kind_of(value)}.")
        if not low <= value <= high:
            raise BadRow(f"field {name!r} must lie between {low} and {high}, found {value}.")
        return float(np.float32(value))  # what TFDS stores and batches hold


def missing(row: Row, field: str) -> str:
    """What to say of a field that is not there."""
    present, name = list(row.values), row.name(field)
    return (
        f"no field {name!r} among {one_line(present)}.{close_matches(name, present)} "
        f"Rename the field, or name it with data.fields={{{field!r}: '<name in the file>'}}."
    )


def kind_of(value: Any) -> str:
    """Type and beginning of a value, for messages."""
    try:
        shown = repr(value)
    except ValueError:  # an int with thousands of digits
        shown = "of thousands of digits"
    return f"{type(value).__name__} {one_line(shown if len(shown) <= 40 else shown[:40] + '...')}"
