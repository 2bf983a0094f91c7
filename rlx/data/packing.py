"""Packs sequences of uneven length into rows of one static size: first-fit decreasing, on the host."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlx.errors import UserError


class Packed(NamedTuple):
    """Rows that hold several sequences.

    Attributes:
        tokens: int32 ``[R, C]``; 0 where there is none.
        segments: int32 ``[R, C]``: the sequences of a row count from 1, 0 where there is no token.
        index: int32 ``[B, ..., T]``, like the tokens that were packed: where each went, a place in the flat rows of its
            group; 0 for padding. ``rlx.models.packing.unpack`` reads it.
    """

    tokens: np.ndarray
    segments: np.ndarray
    index: np.ndarray

    @property
    def fill(self) -> float:
        """Share of the places that hold a token."""
        return float((self.segments > 0).mean())


class Places(NamedTuple):
    """Where sequences went, int32 ``[N]`` each: the row, the first place in it, the number in the row from 1 on."""

    rows: np.ndarray
    starts: np.ndarray
    segments: np.ndarray


def first_fit(lengths: np.ndarray, capacity: int, max_segments: int | None = None) -> Places:
    """A place for each sequence: the longest first, each into the first row with room.

    At most 11/9 of the least possible number of rows (plus one) without ``max_segments``; equal lengths keep their
    order, so the same lengths give the same rows.

    Args:
        lengths: int ``[N]``; a sequence of length 0 takes no place.
        capacity: tokens of a row.
        max_segments: sequences of a row at most; None: no bound.

    Returns:
        The places; a sequence of length 0 has row, start and number 0.

    Raises:
        UserError: a sequence is longer than a row.

    >>> print(*first_fit(np.array([2, 5, 3, 0, 4]), 7))
    [0 0 1 0 1] [5 0 4 0 0] [2 1 2 0 1]
    """
    lengths = np.asarray(lengths)
    if lengths.size and lengths.max() > capacity:
        worst = int(lengths.argmax())
        raise UserError(f"sequence {worst} has {lengths[worst]} tokens, a packed row holds {capacity}: raise capacity")
    places = Places(*np.zeros((3, len(lengths)), np.int32))
    used, held = np.zeros((2, len(lengths)), np.int32)  # by row; no more rows than sequences
    limit = len(lengths) if max_segments is None else max_segments
    for i in np.argsort(-lengths, kind="stable"):
        if not lengths[i]:
            break
        row = np.argmax((used + lengths[i] <= capacity) & (held < limit))
        places.rows[i], places.starts[i] = row, used[row]
        used[row] += lengths[i]
        held[row] += 1
        places.segments[i] = held[row]
    return places


def pack(
    tokens: np.ndarray,
    valid: np.ndarray,
    *,
    capacity: int | None = None,
    rows: int | None = None,
    multiple: int = 1,
    max_segments: int | None = None,
    groups: int = 1,
) -> Packed:
    """Packs the real tokens of a batch.

    Args:
        tokens: int32 ``[B, ..., T]``; each row of ``T`` is a sequence, padded wherever.
        valid: bool ``[B, ..., T]``, the real tokens.
        capacity: tokens of a packed row, ``T`` by default.
        rows: R, how many rows there will be, the same for every batch; None: as many as are needed, and ``jit``
            compiles again for each new number.
        multiple: without ``rows``, the rows of a group are filled up to a multiple of this, but to no more than the
            group has sequences: fewer shapes to compile.
        max_segments: sequences of a row at most.
        groups: packs each of so many equal parts of the batch into rows of its own (one per shard of the batch).

    Raises:
        UserError: a sequence is longer than a row, there are too few rows, a number is below 1, or batch and rows do
            not divide into ``groups``.

    >>> packed = pack(np.array([[0, 5, 6], [7, 0, 0]]), np.array([[False, True, True], [True, False, False]]))
    >>> print(packed.tokens, packed.segments, packed.index.tolist())
    [[5 6 7]] [[1 1 2]] [[0, 0, 1], [2, 0, 0]]
    """
    tokens, valid = np.asarray(tokens), np.asarray(valid)
    size = tokens.shape[-1] if capacity is None else capacity
    numbers = {"capacity": size, "rows": rows, "multiple": multiple, "max_segments": max_segments, "groups": groups}
    _check(tokens, valid, numbers)
    parts = valid.reshape(groups, -1, tokens.shape[-1])
    places = [first_fit(part.sum(-1), size, max_segments) for part in parts]
    needed = max(int(place.rows.max(initial=0)) + 1 for place in places)
    each = min(-(-needed // multiple) * multiple, len(parts[0])) if rows is None else rows // groups
    if needed > each:
        raise UserError(f"rows={rows} are too few: this batch needs {needed * groups} rows of {size} tokens")
    row, start, segment = (np.stack(x)[..., None] for x in zip(*places, strict=True))
    index = np.where(parts, row * size + start + np.cumsum(parts, -1) - 1, 0).astype(np.int32)
    flat, at = np.zeros((2, groups, each * size), np.int32), (np.nonzero(parts)[0], index[parts])
    flat[0][at] = tokens.reshape(parts.shape)[parts]
    flat[1][at] = np.broadcast_to(segment, parts.shape)[parts]
    packed, segments = flat.reshape(2, groups * each, size)
    return Packed(packed, segments, index.reshape(tokens.shape))


def _check(tokens: np.ndarray, valid: np.ndarray, numbers: dict[str, int | None]) -> None:
    if tokens.shape != valid.shape or tokens.ndim < 2:
        raise UserError(f"tokens {tokens.shape} and valid {valid.shape} must have one shape [batch, ..., time]")
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    groups = numbers["groups"] or 1
    for name, size in {"batch": len(tokens), "rows": numbers["rows"]}.items():
        if size is not None and size % groups:
            raise UserError(f"{name} ({size}) must be a multiple of groups={groups}")
