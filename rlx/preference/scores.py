"""Scores of responses: what is compared. All operate on candidates on the last axis ``[..., K]``.

Masking is left to :mod:`rlx.preference.compare`, but no score here lets a masked entry spoil the gradient of another.
"""

import numbers

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


def finite(score: Array) -> Array:
    """Infinite scores become the largest number, without gradient.

    >>> print(finite(jnp.array([-jnp.inf, 2.0])))
    [-3.4028235e+38  2.0000000e+00]
    """
    return jnp.clip(score, -jnp.finfo(score.dtype).max, jnp.finfo(score.dtype).max)


LARGEST_EXPONENT = {"float32": 80.0, "float64": 709.7827}
"""What an exponent is capped at; in float32 with room for sums and products of what comes out."""


def alpha_power(logs: Array, alpha: float) -> Array:
    r""":math:`(1 - u^{-\alpha})/\alpha` of :math:`u = e^x`, and x itself at :math:`\alpha = 0`.

    The derivative of the alpha-divergence at the ratio u (AlphaPO: the reward of a probability u). The exponent is
    capped (:data:`LARGEST_EXPONENT`), and so is what is divided by a small alpha; beyond, there is no gradient.

    >>> print(alpha_power(jnp.array([0.0, -jnp.log(2.0)]), 1.0))
    [ 0. -1.]
    """
    logs = numerics.accumulate(logs)
    if isinstance(alpha, numbers.Real) and alpha == 0:
        return logs
    exponent = jnp.minimum(-alpha * logs, LARGEST_EXPONENT[logs.dtype.name])
    # expm1 keeps the digits of small exponents, exp those of the gradient of large ones
    power = -jnp.where(jnp.abs(exponent) < 1, jnp.expm1(exponent), jnp.exp(exponent) - 1) / alpha
    return finite(power)


def log_odds(logs: Array) -> Array:
    r""":math:`\log\frac{p}{1-p}` from :math:`\log p \le 0`; p = 1 counts as the largest number below it.

    >>> print(f"{log_odds(jnp.log(0.75)):.4f}")
    1.0986
    """
    logs = numerics.accumulate(logs)
    logs = jnp.minimum(logs, -jnp.finfo(logs.dtype).tiny)
    likely = logs > -jnp.log(2.0)
    near, far = jnp.where(likely, logs, -1), jnp.where(likely, -1, logs)
    return logs - jnp.where(likely, jnp.log(-jnp.expm1(near)), jnp.log1p(-jnp.exp(far)))
