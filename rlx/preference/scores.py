"""Scores of responses: what is compared. All operate on candidates on the last axis ``[..., K]``."""

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.types import Array


def log_ratio(policy_logps: Array, reference_logps: Array) -> Array:
    r""":math:`d = \log\pi(y) - \log\pi_{ref}(y)`; the reference is a constant."""
    return numerics.accumulate(policy_logps) - jax.lax.stop_gradient(numerics.accumulate(reference_logps))


def per_token(score: Array, lengths: Array) -> Array:
    """A score divided by the number of response tokens; an empty response divides by 1."""
    return numerics.accumulate(score) / jnp.maximum(jax.lax.stop_gradient(lengths), 1)


def margin(score: Array) -> Array:
    """Chosen minus rejected: ``[..., 2] -> [...]``."""
    return score[..., 0] - score[..., 1]
