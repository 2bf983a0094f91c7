"""Preferences of a reward model that knows what it does not know: labels smoothed by its uncertainty.

An ensemble (draws of dropout) stands on the last axis ``[..., E]``; pairs are ``[..., 2]``, chosen first.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from rlx import numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, pairwise
from rlx.types import Array, Reduce


def information_gain(ensemble_probs: Array) -> Array:
    r"""BALD: how much the members of an ensemble disagree, in nats, ``[..., E] -> [...]``; a constant.

    .. math:: H\left(\tfrac1E\sum_e p_e\right) - \tfrac1E\sum_e H(p_e),\quad H(p) = -p\log p - (1-p)\log(1-p)

    >>> print(f"{information_gain(jnp.array([0.0, 1.0])):.4f} {information_gain(jnp.array([0.8, 0.8])):.4f}")
    0.6931 0.0000
    """
    p = jax.lax.stop_gradient(numerics.accumulate(ensemble_probs))
    entropy = lambda p: entr(p) + entr(1 - p)  # noqa: E731
    return entropy(p.mean(-1)) - entropy(p).mean(-1)


def sampling_probs(
    ensemble_probs: Array, *, mu: float = 1.0, where: Array | None = None, axis_name: numerics.AxisName = None
) -> Array:
    r"""UPO's distribution over the pairs of a data set, here of a batch: :math:`P_j \propto (1 - \mathrm{BALD}_j)^\mu`.

    ``ensemble_probs [..., E]`` and ``where [..., 2]`` of the pairs ``[...]``; a constant, 0 where masked.

    >>> print(sampling_probs(jnp.array([[0.5, 0.5], [0.5, 0.5]])))
    [0.5 0.5]
    """
    valid = compare.pair_where(where)
    certain = jnp.power(1 - information_gain(ensemble_probs), mu)
    return numerics.clean(numerics.safe_divide(certain, numerics.sum(certain, where=valid, axis_name=axis_name)), valid)


def smoothing(
    ensemble_probs: Array, *, mu: float = 1.0, where: Array | None = None, axis_name: numerics.AxisName = None
) -> Array:
    r"""UPO's label smoothing as printed, :math:`\alpha_j = 1/(P_j + 1)` with P of :func:`sampling_probs`; a constant.

    As P is at most 1 it is at least one half: the reversed preference weighs as much as the stated one, or more.

    >>> print(smoothing(jnp.array([[0.5, 0.5]])))
    [0.5]
    """
    return 1 / (sampling_probs(ensemble_probs, mu=mu, where=where, axis_name=axis_name) + 1)


def upo(
    policy_logps: Array,
    reference_logps: Array,
    ensemble_probs: Array,
    *,
    beta: float = 0.1,
    mu: float = 1.0,
    alpha: float | Array | None = None,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Uncertainty-enhanced preference optimisation: DPO smoothed by how unsure the estimator of a pair is.

    .. math:: \ell = -(1-\alpha)\log\sigma(\beta m) - \alpha\log\sigma(-\beta m)

    The printed formula of alpha (:func:`smoothing`) never falls below one half; to learn the stated preferences, hand
    over one that does.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the policy of the previous iteration; a constant.
      ensemble_probs: ``[..., E]`` probability that the pair is labelled rightly, under E draws of dropout.
      beta: strength of the KL regularisation.
      mu: exponent of the certainty.
      alpha: the smoothing, a number or ``[...]``; None is :func:`smoothing` of this batch.
      where: ``[..., 2]`` real responses.
      axis_name: mapped axes that the sampling distribution is global over.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis of a pair is not 2.

    >>> policy, probs = jnp.array([[-1.0, -2.0]]), jnp.array([[0.9, 0.8]])
    >>> print(f"{upo(policy, jnp.zeros((1, 2)), probs, beta=1.0):.4f}")
    0.8133

    References:
      Wang et al., *Uncertainty-Enhanced Preference Optimization* (self-evolutionary LLMs), arXiv:2409.11212.
    """
    if alpha is None:
        alpha = smoothing(ensemble_probs, mu=mu, where=where, axis_name=axis_name)
    label = labels.soft(1 - alpha)
    return pairwise.dpo(policy_logps, reference_logps, beta=beta, label=label, where=where, reduce=reduce)
