"""Scores of responses: what is compared. All operate on candidates on the last axis ``[..., K]``.

Masking is left to :mod:`rlx.preference.compare`, but no score here lets a masked entry spoil the gradient of another.
"""

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.types import Array


def log_ratio(policy_logps: Array, reference_logps: Array) -> Array:
    r""":math:`d = \log\pi(y) - \log\pi_{ref}(y)`; the reference is a constant."""
    return numerics.accumulate(policy_logps) - jax.lax.stop_gradient(numerics.accumulate(reference_logps))


def token_count(lengths: Array) -> Array:
    """Response tokens as a constant divisor; an empty response divides by 1."""
    lengths = jax.lax.stop_gradient(lengths)
    return jnp.where(lengths > 1, lengths, 1)


def per_token(score: Array, lengths: Array) -> Array:
    """A score divided by the number of response tokens; an empty response divides by 1.

    >>> print(per_token(jnp.array([-4.0, -3.0]), jnp.array([2, 0])))
    [-2. -3.]
    """
    return numerics.accumulate(score) / token_count(lengths)


def weighted_entropy(policy_logps: Array, lengths: Array) -> Array:
    r""":math:`w\,(\log\pi(y) + 1)` with :math:`w = 1/|y|`: the reward for which the policy is optimal.

    It is, up to a constant of the prompt and the factor :math:`\beta`, the reward that a maximiser of
    :math:`E_\pi[r] + \beta H_w(\pi)` with :math:`H_w = -\sum_y w\,\pi\log\pi` must have seen.
    """
    return per_token(numerics.accumulate(policy_logps) + 1, lengths)


def margin(score: Array) -> Array:
    """Chosen minus rejected: ``[..., 2] -> [...]``."""
    return score[..., 0] - score[..., 1]
