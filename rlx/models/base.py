"""What the rest of rlx knows of a model: pure functions over a pytree of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

Params = Any


def capped(scores: jax.Array, softcap: float | None) -> jax.Array:
    """``softcap * tanh(scores / softcap)``, the scores themselves where ``softcap`` is None or 0.

    >>> print(capped(jnp.array([0.0, 1e9]), 50.0))
    [ 0. 50.]
    """
    return softcap * jnp.tanh(scores / softcap) if softcap else scores


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
    token and returns the same triple. ``fork(cache, group)``, of a cache that no step has extended, gives the cache of
    ``group`` continuations of every row, prompt by prompt (None: the prompt is evaluated for each of them).
    ``unrolled(params)`` gives the same model and parameters with stacked layers apart: a loop over tokens that takes
    them from the stack itself is slower to compile (None: nothing is stacked).
    """

    prefill: Callable[..., tuple[Any, jax.Array, jax.Array]]
    step: Callable[..., tuple[Any, jax.Array, jax.Array]]
    fork: Callable[[Any, int], Any] | None = None
    unrolled: Callable[[Params], tuple[Model, Params]] | None = None


class SharedPolicy(Protocol):
    """Maps groups of responses to hidden states, each prompt evaluated once for all of its responses."""

    def __call__(
        self,
        params: Params,
        prompts: jax.Array,
        prompt_valid: jax.Array | None,
        responses: jax.Array,
        response_valid: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Prompts ``[P, L]`` padded on the left, responses ``[P, K, M]`` -> hidden ``[P, K, 1 + M, D]`` from the last
        prompt token on, unembedding ``[D, V]``."""
        ...


class PackedPolicy(Protocol):
    """Maps rows that hold several sequences to hidden states; no token sees another sequence than its own."""

    def __call__(self, params: Params, tokens: jax.Array, segments: jax.Array) -> tuple[jax.Array, jax.Array]:
        """``tokens``, ``segments`` int32 ``[N, T]`` (0: no token) -> hidden ``[N, T, D]``, unembedding ``[D, V]``."""
        ...


class Model(NamedTuple):
    """A policy and what the trainer needs to make, shard and read its parameters.

    ``init(seed)`` builds the parameters on the host; where ``shapes()`` says what they will be, as
    ``jax.ShapeDtypeStruct`` (None: nothing is known before ``init``), ``init(seed, shardings)`` puts each into its
    place as soon as it is drawn, so that the host holds one at a time and no device more than its part.
    ``partition(params)`` gives a ``PartitionSpec`` for each leaf over the axes of the mesh (:mod:`rlx.models.axes`;
    None: replicate), ``head(params, hidden [..., D]) -> [...]`` is the scalar value or reward head (None: the model has
    none), ``decode`` the cached path of the sampler (None: the sampler calls ``apply`` on the whole sequence for each
    token), ``shared`` and ``packed`` are the forms of ``apply`` that compute less when responses share a prompt or are
    of uneven length (None: there is only ``apply``).
    ``trainable(params)`` is a tree of bool like ``params`` (arrays or shapes), True where training moves a leaf (None:
    everywhere); what it does not move has neither gradient nor optimiser state (:mod:`rlx.models.moving`).
    ``lora`` describes the adapters (:class:`rlx.models.lora.Lora`), None: there are none.
    Logits are ``capped(hidden @ unembedding, softcap)`` (None: not capped). ``pretrained(seed, shardings)`` is called
    as ``init`` is and reads weights from files straight to where they belong; ``seed`` is of what files lack (None:
    runs start from ``init``).
    """

    init: Callable[..., Params]
    apply: Policy
    partition: Callable[[Params], Any] | None
    head: Callable[[Params, jax.Array], jax.Array] | None
    vocab_size: int
    hidden_size: int
    decode: Decode | None = None
    shared: SharedPolicy | None = None
    packed: PackedPolicy | None = None
    shapes: Callable[[], Params] | None = None
    trainable: Callable[[Params], Any] | None = None
    softcap: float | None = None
    pretrained: Callable[..., Params] | None = None
    lora: Any = None

    def blank(self) -> Params:
        """Parameters, of which the shapes and types count."""
        return self.init(0) if self.shapes is None else self.shapes()
