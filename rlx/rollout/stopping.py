"""When a response ends."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rlx.rollout.types import eos_ids


def ended(
    drawn: jax.Array, i: jax.Array, *, eos_id: int | tuple[int, ...] | None = None, stop: Sequence[Sequence[int]] = ()
) -> jax.Array:
    """Whether the responses end with token i: bool ``[N]``.

    Args:
        drawn: int32 ``[M, N]``, tokens of the responses up to i.
        i: int32, the token that was drawn last.
        eos_id: the token that ends a response, or several.
        stop: sequences of token ids that end a response. They are looked for among the response's tokens alone: one
            that begins in the prompt does not count.

    >>> drawn = jnp.array([[1, 5], [2, 1], [3, 2]])
    >>> print(ended(drawn, jnp.array(2), stop=((1, 2),)), ended(drawn, jnp.array(2), eos_id=(3, 4)))
    [False  True] [ True False]
    """
    found = jnp.zeros(drawn.shape[1], bool)
    for token in eos_ids(eos_id):
        found |= drawn[i] == token
    for ids in stop:
        size = len(ids)
        if size <= len(drawn):
            tail = jax.lax.dynamic_slice_in_dim(drawn, i + 1 - size, size)
            found |= (tail == np.array(ids, drawn.dtype)[:, None]).all(0) & (i + 1 >= size)
    return found
