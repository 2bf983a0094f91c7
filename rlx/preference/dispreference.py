"""Learning from what is disliked alone: samples of the policy against a human negative, candidates on the last axis."""

from rlx import errors, numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links, scores
from rlx.types import Array, Reduce, check_shapes


def dispreference_logit(
    policy_logps: Array,
    reference_logps: Array,
    *,
    alpha: float = 0.1,
    beta: float = 0.1,
    where: Array | None = None,
) -> Array:
    r"""Mean log-ratio of the self-samples against that of the negative: ``[..., K] -> [...]``.

    .. math:: z = \frac{\beta}{K-1}\sum_{i<K} d_i - \alpha\,d_K

    >>> print(dispreference_logit(jnp.array([1.0, 3.0, -1.0]), jnp.zeros(3), alpha=1.0, beta=1.0))
    3.0
    """
    d = numerics.clean(scores.log_ratio(policy_logps, reference_logps), where)
    own = None if where is None else where[..., :-1]
    return beta * numerics.mean(d[..., :-1], -1, where=own) - alpha * d[..., -1]


def d2o(
    policy_logps: Array,
    reference_logps: Array,
    *,
    alpha: float = 0.1,
    beta: float = 0.1,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Distributional dispreference optimisation: the policy's own samples, on average, against a human negative.

    .. math:: \ell = -\log\sigma\left(\frac{\beta}{K-1}\sum_{i<K}\log\frac{\pi(y_i)}{\pi_{ref}^-(y_i)}
       - \alpha\log\frac{\pi(y_K)}{\pi_{ref}^+(y_K)}\right)

    No human positive is needed. With one sample and alpha = beta it is :func:`rlx.dpo`.

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats): self-samples (11 in the paper), the human
        negative last.
      reference_logps: ``[..., K]`` the same under the references, which may differ: that of the samples and that of the
        negative; constants.
      alpha: weight of the negative.
      beta: weight of the samples.
      where: ``[..., K]`` real responses; a list counts with its negative and at least one sample.
      reduce: how lists become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree, or there are fewer than two candidates.

    >>> print(f"{d2o(jnp.array([-1.0, -1.0, -2.0]), jnp.array([-1.0, -1.0, -1.0]), alpha=1.0):.4f}")
    0.3133

    References:
      Duan et al., *Negating Negatives: Alignment with Human Negative Samples via Distributional Dispreference
      Optimization*, arXiv:2403.03419.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    if policy_logps.ndim < 1 or policy_logps.shape[-1] < 2:
        raise errors.UserError(
            f"policy_logps has shape {policy_logps.shape}: d2o wants samples and a negative, K >= 2."
        )
    valid = None if where is None else where[..., :-1].any(-1) & where[..., -1]
    logit = dispreference_logit(policy_logps, reference_logps, alpha=alpha, beta=beta, where=where)
    return compare.margins(logit, labels.hard, links.logistic, valid, reduce)
