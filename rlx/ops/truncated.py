"""Entropies of the most probable tokens alone: a nucleus (top-p) or the top k. The vocabulary is the last axis.

A selection is a boolean constant ``[..., V]`` without gradient; the entropy is that of the policy restricted to it and
renormalised, which is the softmax with all other logits at -inf.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.ops.entropies import token_entropy
from rlx.ops.probabilities import Distribution, distribution

RULES = ("crossing", "strict", "at_least_one")
"""What a nucleus does with the token that crosses its mass.

``crossing`` is the usual one: the smallest set whose mass reaches p. ``strict`` (SIREN) leaves out the token that
crosses p: nothing is kept where the first alone reaches it. ``at_least_one`` keeps the first token in any case.
"""


def _most_probable(d: Distribution, weight: jax.Array, budget: float, rule: str = "crossing") -> jax.Array:
    """The most probable tokens, ties by index, before ``budget`` of ``weight`` is used up; the row is not sorted."""
    from rlx_kernels import core, most_probable

    z = jnp.where(d.possible, jax.lax.stop_gradient(d.logp), -jnp.inf)
    vocab = z.shape[-1]
    columns = jnp.arange(vocab)
    edge = most_probable.most_probable(z, columns, vocab, jax.lax.stop_gradient(weight), budget, rule)
    return most_probable.is_kept(z, columns, core.Kept(*edge, *edge))


def nucleus(
    logits: jax.Array, *, top_p: float = 0.8, rule: str = "crossing", where: jax.Array | None = None
) -> jax.Array:
    """The most probable tokens that hold the mass ``top_p``: bool ``[..., V]``, False in masked rows.

    Args:
        logits: ``[..., V]``.
        top_p: mass, in (0, 1].
        rule: what happens to the token that crosses it (:data:`RULES`).
        where: bool ``[...]`` real tokens.

    Raises:
        UserError: ``top_p`` is outside (0, 1], or the rule is unknown.

    >>> logits = jnp.log(jnp.array([0.5, 0.375, 0.125]))
    >>> print(nucleus(logits, top_p=0.75), nucleus(logits, top_p=0.75, rule="strict"))
    [ True  True False] [ True False False]
    """
    if not 0 < top_p <= 1:
        raise errors.UserError(f"top_p is a probability mass and must be in (0, 1], got {top_p}.")
    if rule not in RULES:
        hint = errors.close_matches(rule, RULES)
        raise errors.UserError(f"Unknown rule {rule!r} of a nucleus.{hint} Known: {', '.join(RULES)}.")
    d = distribution(jax.lax.stop_gradient(logits), where=where)
    keep = _most_probable(d, d.p, top_p, rule)
    return keep if where is None else keep & where[..., None]


def top_p_entropy(
    logits: jax.Array, *, top_p: float = 0.8, rule: str = "crossing", where: jax.Array | None = None
) -> jax.Array:
    r"""Entropy of the policy within its nucleus N: :math:`-\sum_{v\in N} q_v\log q_v,\; q_v = p_v / \sum_{u\in N} p_u`.

    Args:
        logits: ``[..., V]``.
        top_p: mass of the nucleus, in (0, 1].
        rule: ``crossing``, or SIREN's ``strict`` (:data:`RULES`): an empty nucleus has entropy 0 and no gradient.
        where: bool ``[...]`` real tokens.

    Returns:
        ``[...]`` nats, 0 where masked.

    Raises:
        UserError: ``top_p`` is outside (0, 1], or the rule is unknown.

    >>> logits = jnp.log(jnp.array([0.45, 0.45, 0.1]))
    >>> print(f"{top_p_entropy(logits):.4f} {top_p_entropy(logits, rule='strict'):.4f}")
    0.6931 0.0000

    References:
        *Rethinking Entropy Regularization in Large Reasoning Models* (SIREN), arXiv:2509.25133.
    """
    keep = nucleus(logits, top_p=top_p, rule=rule, where=where)
    return token_entropy(jnp.where(keep, logits, -jnp.inf), where=where)


def top_k_entropy(
    logits: jax.Array, *, top_k: int = 20, tail: bool = False, where: jax.Array | None = None
) -> jax.Array:
    r"""Entropy from the k most probable tokens, ties by index.

    .. math:: -\sum_{v \le k} q_v \log q_v,\; q_v = \frac{p_v}{\sum_{u\le k} p_u} \qquad\text{or, with the tail,}\qquad
       -\sum_{v \le k} p_v \log p_v - t \log t,\; t = 1 - \sum_{v \le k} p_v

    Args:
        logits: ``[..., V]``.
        top_k: k; all tokens where there are fewer.
        tail: count the other tokens as one (ARES) instead of leaving them out: a lower bound of the entropy.
        where: bool ``[...]`` real tokens.

    Returns:
        ``[...]`` nats, 0 where masked.

    Raises:
        UserError: ``top_k`` is below 1.

    >>> logits = jnp.log(jnp.array([0.5, 0.25, 0.125, 0.125]))
    >>> print(f"{top_k_entropy(logits, top_k=1):.4f} {top_k_entropy(logits, top_k=1, tail=True):.4f}")
    0.0000 0.6931

    References:
        *ARES: Multimodal Adaptive Reasoning via Difficulty-Aware Token-Level Entropy Shaping*, arXiv:2510.08457.
    """
    if top_k < 1:
        raise errors.UserError(f"top_k is a number of tokens and must be at least 1, got {top_k}.")
    d = distribution(logits, where=where)
    keep = _most_probable(d, d.possible.astype(d.p.dtype), top_k)
    if not tail:
        return token_entropy(jnp.where(keep, logits, -jnp.inf), where=where)
    rest = jnp.where(keep, 0, d.p).sum(-1)
    inside = jnp.where(keep, d.p * d.logp, 0).sum(-1)
    bucket = jnp.where(rest > 0, rest * jnp.log(jnp.where(rest > 0, rest, 1)), 0)
    return numerics.clean(-inside - bucket, where)
