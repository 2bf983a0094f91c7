"""A few static shapes for prompts of every length, so that few programs are compiled. Host side: numpy alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlx.errors import UserError


def lengths(limit: int, smallest: int = 16) -> tuple[int, ...]:
    """Doubling lengths from ``smallest`` up to ``limit``, which is the last.

    >>> lengths(100)
    (16, 32, 64, 100)
    """
    found = [smallest]
    while found[-1] < limit:
        found.append(2 * found[-1])
    return tuple(min(size, limit) for size in found)


def bucket(size: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds ``size``.

    Raises:
        UserError: none does.

    >>> bucket(17, (16, 32, 64))
    32
    """
    fitting = [bound for bound in buckets if bound >= size]
    if not fitting:
        raise UserError(f"no bucket holds {size}: the largest of {', '.join(map(str, sorted(buckets)))} is too small.")
    return min(fitting)


def pad_prompts(
    prompts: Sequence[Sequence[int]], buckets: Sequence[int], *, rows: Sequence[int] | None = None, pad_id: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and which are real, ``[P, L]``, padded on the left to a bucket.

    Args:
        prompts: token ids of each prompt, BOS included.
        buckets: allowed values of L.
        rows: allowed values of P: rows without any token follow the prompts. None: as many rows as prompts.
        pad_id: stands where no token is.

    Raises:
        UserError: a prompt is empty or longer than the largest bucket.

    >>> tokens, valid = pad_prompts([[1, 7], [1, 8, 9]], (4, 8))
    >>> print(tokens.tolist(), valid.sum(-1))
    [[0, 0, 1, 7], [0, 1, 8, 9]] [2 3]
    """
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise UserError(f"prompt {i} has no token: give it at least BOS.")
    length = bucket(max(map(len, prompts), default=1), buckets)
    count = len(prompts) if rows is None else bucket(len(prompts), rows)
    tokens, valid = np.full((count, length), pad_id, np.int32), np.zeros((count, length), bool)
    for i, prompt in enumerate(prompts):
        tokens[i, length - len(prompt) :], valid[i, length - len(prompt) :] = prompt, True
    return tokens, valid


def crop(tokens: np.ndarray, valid: np.ndarray, buckets: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts ``[P, L]`` without the columns on the left that are padding in every row, cut or padded to a bucket.

    Raises:
        UserError: the longest prompt exceeds the largest bucket.

    >>> tokens = np.array([[0, 0, 0, 5], [0, 0, 6, 7]])
    >>> print(*(x.tolist() for x in crop(tokens, tokens > 0, (2, 4))))
    [[0, 5], [6, 7]] [[False, True], [True, True]]
    """
    tokens, valid = np.asarray(tokens), np.asarray(valid)
    used = np.flatnonzero(valid.any(0))
    have = tokens.shape[1]
    length = bucket(have - int(used[0]) if len(used) else 1, buckets)
    if length <= have:
        return tokens[:, have - length :], valid[:, have - length :]
    room = ((0, 0), (length - have, 0))
    return np.pad(tokens, room), np.pad(valid, room)
