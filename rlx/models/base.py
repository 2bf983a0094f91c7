"""What the rest of rlx knows of a model: pure functions over a pytree of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

Params = Any


class Policy(Protocol):
    """Maps tokens to hidden states and the matrix that turns them into logits."""

    def __call__(
        self, params: Params, tokens: jax.Array, valid: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """``tokens`` int32 ``[N, T]``, ``valid`` bool ``[N, T]`` -> hidden ``[N, T, D]``, unembedding ``[D, V]``."""
        ...


class Decode(NamedTuple):
    """Incremental evaluation with a cache, for sampling.

    ``prefill(params, tokens [N, P], valid [N, P], capacity)`` -> ``(cache, hidden [N, D], unembedding [D, V])`` of
    the last position; the cache has room for ``capacity`` tokens. ``step(params, cache, token [N])`` appends one
    token and returns the same triple.
    """

    prefill: Callable[..., tuple[Any, jax.Array, jax.Array]]
    step: Callable[..., tuple[Any, jax.Array, jax.Array]]


class Model(NamedTuple):
    """A policy and what the trainer needs to make, shard and read its parameters.

    ``init(seed)`` builds the parameters on the host, ``partition(params)`` gives a ``PartitionSpec`` for each leaf
    over the mesh axes ``'fsdp'`` and ``'model'`` (None: replicate), ``head(params, hidden [..., D]) -> [...]`` is the
    scalar value or reward head (None: the model has none), ``decode`` the cached path of the sampler (None: the
    sampler calls ``apply`` on the whole sequence for each token).
    """

    init: Callable[[int], Params]
    apply: Policy
    partition: Callable[[Params], Any] | None
    head: Callable[[Params, jax.Array], jax.Array] | None
    vocab_size: int
    hidden_size: int
    decode: Decode | None = None
