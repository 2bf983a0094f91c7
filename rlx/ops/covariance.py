"""Covariance of token log-probabilities and advantages over a batch."""

from __future__ import annotations

import jax

from rlx import numerics


def token_covariance(
    logprobs: jax.Array,
    advantages: jax.Array,
    *,
    where: jax.Array | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> jax.Array:
    r"""Contribution of each token to the covariance of log-probability and advantage.

    .. math:: C_t = (\log\pi_t - \overline{\log\pi})\,(A_t - \bar A)

    with means over all selected tokens of the batch.

    Args:
        logprobs: ``[...]``.
        advantages: broadcastable to ``logprobs``.
        where: bool ``[...]``; masked tokens give 0 and count in no mean.
        axis_name: mapped axes over which the batch is split.

    >>> print(token_covariance(jnp.array([-1.0, -3.0]), jnp.array([1.0, -1.0])))
    [1. 1.]

    References:
        Cui et al., *The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models*, arXiv:2505.22617.
    """
    advantages = jax.numpy.broadcast_to(advantages, logprobs.shape)
    means = [numerics.mean(x, where=where, axis_name=axis_name) for x in (logprobs, advantages)]
    return numerics.clean((logprobs - means[0]) * (advantages - means[1]), where)
