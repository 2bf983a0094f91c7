"""Listwise losses: candidates on the last axis ``[..., K]``; leading axes are the batch, a unit is a list.

``where [..., K]`` marks the real candidates of ragged lists; a list without any is left out of the mean.
"""

import jax

from rlx import aggregate, numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, pairwise
from rlx.preference.scores import log_ratio
from rlx.types import Array, Reduce, check_positive, check_shapes


def adpo_target(scores: Array, *, beta_r: float = 0.5, where: Array | None = None) -> Array:
    r"""ADPO's target distribution :math:`q = \mathrm{softmax}(s/\beta_r)`, 0 where masked; a constant.

    >>> print(adpo_target(jnp.array([1.0, 1.0, 7.0]), where=jnp.array([True, True, False])))
    [0.5 0.5 0. ]
    """
    check_positive(beta_r=beta_r)
    return jax.lax.stop_gradient(numerics.softmax(numerics.accumulate(scores) / beta_r, where=where))


def adpo_listwise(
    policy_logps: Array,
    reference_logps: Array,
    scores: Array,
    *,
    tau: float = 0.8,
    beta_r: float = 0.5,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Anchored direct preference optimisation of a list: cross-entropy with the softmax of the scores.

    .. math:: \ell = -\sum_i q_i \log\mathrm{softmax}(d/\tau)_i,\quad q = \mathrm{softmax}(s/\beta_r),\quad
       d = \log\frac{\pi(y)}{\pi_{ref}(y)}

    The optimum is :math:`\pi \propto \pi_{ref}\,q^\tau`.

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats).
      reference_logps: ``[..., K]`` the same under the anchor policy; a constant.
      scores: ``[..., K]`` rewards or teacher scores; a constant.
      tau: temperature of the anchored policy, above 0; small is sharp.
      beta_r: temperature of the target, above 0, in units of the scores.
      where: ``[..., K]`` real candidates.
      reduce: how lists become one number; None gives ``[...]``.

    Raises:
      UserError: a temperature is not above 0, or the shapes disagree.

    >>> logps, scores = jnp.array([-1.0, -1.0]), jnp.array([2.0, 0.0])
    >>> print(f"{adpo_listwise(logps, logps, scores):.4f}")
    0.6931

    References:
      *From Probability to Advantage: Unifying Alignment via Anchored Ranking* (ADPO), arXiv:2510.18913.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, scores=scores, where=where)
    check_positive(tau=tau)
    anchored = log_ratio(policy_logps, reference_logps) / tau
    target = adpo_target(scores, beta_r=beta_r, where=where)
    return aggregate.finish(compare.cross_entropy(anchored, target, where), compare.list_where(where), reduce)


def adpo_pairwise(
    policy_logps: Array,
    reference_logps: Array,
    preference_probs: Array,
    *,
    tau: float = 0.8,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""ADPO of a pair: DPO with :math:`\beta = 1/\tau` and the soft label q.

    .. math:: \ell = -q\log\sigma(m/\tau) - (1-q)\log\sigma(-m/\tau)

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the anchor policy; a constant.
      preference_probs: ``[...]`` probability q that the chosen response is better; a constant.
      tau: temperature of the anchored policy, above 0.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: tau is not above 0, the shapes disagree or the last axis is not 2.

    >>> print(f"{adpo_pairwise(jnp.array([-1.0, -2.0]), jnp.array([-1.0, -1.0]), 0.5, tau=1.0):.4f}")
    0.8133

    References:
      *From Probability to Advantage: Unifying Alignment via Anchored Ranking* (ADPO), arXiv:2510.18913.
    """
    check_positive(tau=tau)
    label = labels.soft(preference_probs)
    return pairwise.dpo(policy_logps, reference_logps, beta=1 / tau, label=label, where=where, reduce=reduce)


def listmle(scores: Array, labels: Array, *, where: Array | None = None, reduce: Reduce | None = mean) -> Array:
    r"""ListMLE: negative log-likelihood of the labels' order under a Plackett-Luce model of the scores.

    .. math:: \ell = \sum_k \left(\log\sum_{l\ge k} e^{s_{\pi_l}} - s_{\pi_k}\right),\quad
       \pi = \mathrm{argsort}(-\text{labels})

    Args:
      scores: ``[..., K]`` scores of the model.
      labels: ``[..., K]`` graded relevance, larger is better; ties keep the given order. A constant.
      where: ``[..., K]`` real candidates.
      reduce: how lists become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{listmle(jnp.array([0.0, 0.0, 0.0]), jnp.array([2, 0, 1])):.4f}")
    1.7918

    References:
      Xia et al., *Listwise Approach to Learning to Rank: Theory and Algorithm*, ICML 2008.
    """
    check_shapes(scores=scores, labels=labels, where=where)
    terms, real = compare.plackett_luce(scores, compare.descending(labels, where), where)
    return aggregate.finish(numerics.sum(terms, -1, where=real), compare.list_where(where), reduce)


def listnet(scores: Array, labels: Array, *, where: Array | None = None, reduce: Reduce | None = mean) -> Array:
    r"""ListNet: cross-entropy of the softmax of the scores with the softmax of the labels.

    .. math:: \ell = -\sum_i \mathrm{softmax}(y)_i\log\mathrm{softmax}(s)_i

    Args:
      scores: ``[..., K]`` scores of the model.
      labels: ``[..., K]`` graded relevance; a constant.
      where: ``[..., K]`` real candidates.
      reduce: how lists become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{listnet(jnp.array([0.0, 0.0]), jnp.array([3.0, 1.0])):.4f}")
    0.6931

    References:
      Cao et al., *Learning to Rank: From Pairwise Approach to Listwise Approach*, ICML 2007.
    """
    check_shapes(scores=scores, labels=labels, where=where)
    target = adpo_target(labels, beta_r=1.0, where=where)
    return aggregate.finish(compare.cross_entropy(scores, target, where), compare.list_where(where), reduce)
