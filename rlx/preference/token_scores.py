"""Parts of losses that read tokens ``[..., K, T]``: shapes, positions, distributions, responses compared.

``where [..., K, T]`` marks response tokens; a response without any scores 0, a pair without any is left out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics, ops
from rlx.preference import compare, scores
from rlx.types import Array, Link, Reduce, check_shapes


def check_token_pairs(method: str, **arrays: Array | None) -> None:
    """:func:`~rlx.types.check_shapes`, and the last axes must be the two candidates of a pair and their tokens.

    >>> check_token_pairs("ld_dpo", logprobs=jnp.zeros((3, 4)))
    Traceback (most recent call last):
    rlx.errors.UserError: logprobs has shape (3, 4): ld_dpo wants [..., 2, T], the chosen response first.
    """
    check_shapes(**arrays)
    name, array = next((name, array) for name, array in arrays.items() if array is not None)
    if jnp.ndim(array) < 2 or array.shape[-2] != 2:
        raise errors.UserError(
            f"{name} has shape {jnp.shape(array)}: {method} wants [..., 2, T], the chosen response first."
        )


def positions(like: Array, where: Array | None) -> Array:
    """Number of a token in its response, from 1, on whichever side the padding is: ``[..., T]`` int.

    >>> print(positions(jnp.zeros(4), jnp.array([False, True, True, True])))
    [0 1 2 3]
    """
    where = jnp.ones(like.shape, bool) if where is None else jnp.broadcast_to(where, like.shape)
    return jnp.cumsum(where, -1)


class Distributions(NamedTuple):
    """Of the tokens ``[..., T]``, 0 where masked.

    Attributes:
      logprobs: under the policy (nats).
      reference_logprobs: under the reference policy, a constant.
      kl: KL of the whole distributions, from the reference to the policy (nats).
    """

    logprobs: Array
    reference_logprobs: Array
    kl: Array


def distributions(
    policy_logits: Array, reference_logits: Array, tokens: Array, *, where: Array | None = None
) -> Distributions:
    """What two policies say of tokens; those that the policy rules out (logit -inf) leave the reference's KL first.

    Args:
      policy_logits: ``[..., T, V]``, position t predicts ``tokens[..., t]``.
      reference_logits: ``[..., T, V]`` the same under the reference policy; a constant.
      tokens: ``[..., T]`` int response tokens.
      where: ``[..., T]`` response tokens.

    Raises:
      UserError: the shapes disagree.

    >>> found = distributions(jnp.zeros((1, 2)), jnp.array([[0.0, -jnp.inf]]), jnp.array([0]))
    >>> print(f"{found.logprobs[0]:.4f} {found.kl[0]:.4f}")
    -0.6931 0.6931
    """
    check_shapes(policy_logits=policy_logits, reference_logits=reference_logits)
    check_shapes(**{"tokens": tokens, "where": where, "the logits without their last axis": policy_logits[..., 0]})
    reference_logits = jax.lax.stop_gradient(reference_logits)
    shared = numerics.clean(reference_logits, ~jnp.isneginf(policy_logits), -jnp.inf)
    policy = ops.token_statistics(policy_logits, tokens, where=where, statistics=("logp", "kl"), other=shared)
    reference = ops.token_statistics(reference_logits, tokens, where=where, statistics=("logp",))
    assert policy.logp is not None and policy.kl is not None and reference.logp is not None  # asked for
    return Distributions(policy.logp, reference.logp, policy.kl)


def weighted_sum(weights: Array, score: Array, where: Array | None) -> Array:
    """``sum_t w_t s_t`` over the tokens of a response: ``[..., T] -> [...]``; masked entries are cleaned first."""
    weights, score = (numerics.clean(numerics.accumulate(x), where) for x in (weights, score))
    return numerics.sum(weights * score, -1, where=where)


def token_count(like: Array, where: Array | None) -> Array:
    """Tokens of a response, ``[..., T] -> [...]``, in the type that sums are taken in."""
    return numerics.count(where, like, -1)


def pair_where(where: Array | None) -> Array | None:
    """Pairs that have any token: ``[..., 2, T] -> [...]``."""
    return None if where is None else where.any((-2, -1))


def compare_responses(
    score: Array, label: float | Array, link: Link, where: Array | None, reduce: Reduce | None
) -> Array:
    """The loss of pairs of responses with scores ``[..., 2]``; ``where [..., 2, T]`` marks their tokens."""
    return compare.margins(scores.margin(score), label, link, pair_where(where), reduce)
