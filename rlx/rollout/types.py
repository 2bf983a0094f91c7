"""What a sampler is asked for and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from rlx.errors import UserError

Temperature = float | Callable[[jax.Array], jax.Array]
"""A number, or a function ``entropy [N] -> temperature [N]`` of the policy's entropy (nats) at each token."""


class Sampling(NamedTuple):
    """How responses are drawn; hashable.

    The temperature applies first, then ``top_k``, then ``top_p`` to what is left, then ``min_p``.

    Attributes:
        max_new_tokens: M, the most tokens of a response.
        temperature: divides the logits; 0 takes the most probable token. See :data:`Temperature`; a function must be
            the same object at every call, or the sampler is compiled again.
        top_k: keep the k most probable tokens, ties by index.
        top_p: keep the fewest most probable tokens that hold this mass, ties by index.
        min_p: keep tokens of at least this share of the largest probability.
        stop: sequences of token ids that end a response; they are part of it, as EOS is.
        eos_id: the token that ends a response, or several; None: no token does.
        pad_id: stands after the end of a response.
    """

    max_new_tokens: int
    temperature: Temperature = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    stop: tuple[tuple[int, ...], ...] = ()
    eos_id: int | tuple[int, ...] | None = None
    pad_id: int = 0


def check(sampling: Sampling, vocab_size: int) -> None:
    """Makes sure that a sampler can do what it is asked for.

    Raises:
        UserError: a field that is out of its range.

    >>> check(Sampling(8, top_p=1.5), 100)
    Traceback (most recent call last):
    rlx.errors.UserError: top_p is a probability mass and must be in (0, 1], got 1.5.
    """
    s = sampling
    if not _whole(s.max_new_tokens) or s.max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be a whole number of at least 1, got {s.max_new_tokens!r}.")
    if not callable(s.temperature) and not 0 <= s.temperature < float("inf"):
        raise UserError(f"temperature must be a finite number of at least 0, got {s.temperature!r}.")
    if s.top_k is not None and (not _whole(s.top_k) or s.top_k < 1):
        raise UserError(f"top_k is a number of tokens and must be at least 1, got {s.top_k!r}.")
    if s.top_p is not None and not 0 < s.top_p <= 1:
        raise UserError(f"top_p is a probability mass and must be in (0, 1], got {s.top_p!r}.")
    if s.min_p is not None and not 0 <= s.min_p <= 1:
        raise UserError(f"min_p is a share of the largest probability and must be in [0, 1], got {s.min_p!r}.")
    for name, ids in (("eos_id", eos_ids(s.eos_id)), *(("stop", ids) for ids in s.stop)):
        if name == "stop" and not ids:
            raise UserError("stop holds an empty sequence of token ids, which every response ends with: leave it out.")
        outside = [i for i in ids if not 0 <= i < vocab_size]
        if outside:
            raise UserError(f"{name} names token {outside[0]}, the vocabulary ends at {vocab_size - 1}.")


def eos_ids(eos_id: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """The tokens that end a response.

    >>> eos_ids(None), eos_ids(2), eos_ids((2, 5))
    ((), (2,), (2, 5))
    """
    return () if eos_id is None else (eos_id,) if isinstance(eos_id, int) else tuple(eos_id)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class Rollout(NamedTuple):
    """K responses to each of P prompts, at most M tokens each; everything is 0 or False after the end of a response.

    Attributes:
        tokens: int32 ``[P, K, M]``, EOS included, ``pad_id`` after it.
        where: bool ``[P, K, M]``, the tokens of the response.
        lengths: int32 ``[P, K]``.
        finished: bool ``[P, K]``, ended by EOS or a stop sequence.
        logprobs: float32 ``[P, K, M]``, of the policy at temperature 1.
        rollout_logprobs: float32 ``[P, K, M]``, of the distribution that was drawn from.
        entropy: float32 ``[P, K, M]``, of the policy at temperature 1, nats.
    """

    tokens: jax.Array
    where: jax.Array
    lengths: jax.Array
    finished: jax.Array
    logprobs: jax.Array
    rollout_logprobs: jax.Array
    entropy: jax.Array


class Engine(Protocol):
    """Draws responses: the sampler of rlx (:func:`rlx.rollout.sampler.engine`), or an inference server."""

    def __call__(self, params: Any, prompt_tokens: Any, prompt_valid: Any, *, group: int, key: jax.Array) -> Rollout:
        """``group`` responses to every prompt ``[P, L]``, padded on the left."""
        ...
