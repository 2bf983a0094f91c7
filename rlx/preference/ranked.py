"""Losses of ranked responses: candidates on the last axis ``[..., K]``, a unit is a list.

``where [..., K]`` marks real candidates. A list with fewer than two of them has nothing to rank and leaves the mean.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.aggregate import mean, total
from rlx.preference import compare, links, named, ranking
from rlx.preference.scores import log_ratio, per_token
from rlx.types import Array, Reduce, check_shapes


def several(like: Array, where: Array | None) -> Array:
    """Lists with at least two real candidates: ``[..., K] -> [...]`` bool."""
    return numerics.count(where, like, -1) > 1


def dpo_pl(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    top_k: int | None = None,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""DPO under the Plackett-Luce model: the likelihood of a whole ranking, best first.

    .. math:: \ell = \sum_k \log\sum_{j\ge k} e^{\beta d_j} - \beta d_k,\quad d = \log\frac{\pi(y)}{\pi_{ref}(y)}

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats), best response first.
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      beta: strength of the KL regularisation.
      top_k: only the first so many selections count; 1 is best against the rest, None all.
      where: ``[..., K]`` real candidates.
      reduce: how lists become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{dpo_pl(jnp.zeros(3), jnp.zeros(3)):.4f} {dpo_pl(jnp.zeros(3), jnp.zeros(3), top_k=1):.4f}")
    1.7918 1.0986

    References:
      Rafailov et al., *Direct Preference Optimization*, arXiv:2305.18290, appendix A.3.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    reward = beta * log_ratio(policy_logps, reference_logps)
    given = jnp.zeros(reward.shape)  # ties keep the order in which the responses stand
    terms, real = compare.plackett_luce(reward, compare.descending(given, where), where)
    counted = real if top_k is None else real & (jnp.arange(real.shape[-1]) < top_k)
    return aggregate.finish(numerics.sum(terms, -1, where=counted), several(reward, where), reduce)


def pro_stages(
    scores: Array, rewards: Array, *, epsilon: float = 1e-10, where: Array | None = None
) -> tuple[Array, Array]:
    r"""PRO's contrasts: each response against those ranked below it, sharper the further their rewards are apart.

    .. math:: \ell_k = \log\left(\epsilon + \sum_{i\ge k} e^{s_i T_k^i}\right) - s_k T_k^k,\quad
       T_k^i = R_k - R_i,\quad T_k^k = \max_{i>k} T_k^i

    Args:
      scores: ``[..., K]`` scores, best response first.
      rewards: ``[..., K]`` rewards R; a constant.
      epsilon: of the official code, inside the logarithm.
      where: ``[..., K]`` real candidates.

    Returns:
      The losses of the stages and which of them are real, both ``[..., K]``: all responses but the last.

    >>> print(pro_stages(jnp.zeros(3), jnp.array([2.0, 1.0, 0.0]))[0])
    [1.0986123 0.6931472 0.       ]
    """
    scores, rewards = (numerics.clean(numerics.accumulate(x), where) for x in (scores, rewards))
    real = jnp.broadcast_to(True if where is None else where, scores.shape)
    itself = jnp.eye(scores.shape[-1], dtype=bool)
    below = jnp.triu(~itself) & real[..., :, None] & real[..., None, :]
    gaps = ranking.differences(jax.lax.stop_gradient(rewards))
    staged = real & below.any(-1)
    largest = numerics.clean(numerics.clean(gaps, below, -jnp.inf).max(-1), staged)
    sharpened = scores[..., None, :] * jnp.where(itself, largest[..., None], gaps)
    field = jnp.logaddexp(numerics.clean(numerics.logsumexp(sharpened, where=below | itself), staged), jnp.log(epsilon))
    return numerics.clean(field - scores * largest, staged), staged


def pro(
    policy_logps: Array,
    lengths: Array,
    rewards: Array,
    *,
    sft_weight: float = 0.05,
    epsilon: float = 1e-10,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Preference ranking optimisation: contrasts of every response with those below it, and fine-tuning on the best.

    .. math:: \ell = \sum_{k<K} \ell_k(s) - w\,(K-1)^2\,\log\pi(y_1),\quad s = \log\pi(y) / |y|

    with :math:`\ell_k` of :func:`pro_stages`: the gap of rewards is the inverse temperature. No reference policy.

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats), best response first.
      lengths: ``[..., K]`` response tokens.
      rewards: ``[..., K]`` rewards of the responses; a constant.
      sft_weight: weight w of the fine-tuning term.
      epsilon: added inside the logarithm of a contrast.
      where: ``[..., K]`` real candidates.
      reduce: how lists become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree.

    >>> logps, rewards = jnp.array([-2.0, -2.0]), jnp.array([1.0, 0.0])
    >>> print(f"{pro(logps, jnp.array([2, 2]), rewards):.4f}")
    0.7931

    References:
      Song et al., *Preference Ranking Optimization for Human Alignment*, arXiv:2306.17492.
    """
    check_shapes(policy_logps=policy_logps, lengths=lengths, rewards=rewards, where=where)
    stages, staged = pro_stages(per_token(policy_logps, lengths), rewards, epsilon=epsilon, where=where)
    real = jnp.broadcast_to(True if where is None else where, stages.shape)
    best = numerics.sum(policy_logps, -1, where=real & (jnp.cumsum(real, -1) == 1))
    steps = numerics.count(staged, stages, -1)
    loss = numerics.sum(stages, -1, where=staged) - sft_weight * jnp.square(steps) * best
    return aggregate.finish(loss, several(stages, where), reduce)


def dcg_weight(labels: Array, ranks: Array) -> Array:
    r""":math:`(2^y - 1) / \log_2(1 + r)`.

    >>> print(dcg_weight(jnp.array([2.0, 1.0]), jnp.array([1, 3])))
    [3.  0.5]
    """
    return ranking.gain(labels) * ranking.discount(ranks)


def rank_weight(labels: Array, ranks: Array) -> Array:
    r""":math:`1 / \log_2(1 + r)`, whatever the relevance."""
    return ranking.discount(ranks)


def inverse_rank_weight(labels: Array, ranks: Array) -> Array:
    r""":math:`(2^y - 1) / r`.

    >>> print(inverse_rank_weight(jnp.array([2.0, 1.0]), jnp.array([1, 2])))
    [3.  0.5]
    """
    return numerics.safe_divide(ranking.gain(labels), numerics.accumulate(ranks))


PositionWeight = Callable[[Array, Array], Array]
"""``(labels, ranks) -> weights of the items [..., K]``."""

POSITION_WEIGHTS: dict[str, PositionWeight] = {
    "dcg": dcg_weight,
    "rank": rank_weight,
    "inverse_rank": inverse_rank_weight,
}


def irpo(
    policy_logps: Array,
    reference_logps: Array,
    labels: Array,
    ranks: Array | None = None,
    *,
    beta: float = 1.0,
    weighting: str | PositionWeight = "dcg",
    diagonal: float = -jnp.inf,
    where: Array | None = None,
    reduce: Reduce | None = total,
) -> Array:
    r"""In-context ranking preference optimisation: every item against all others, weighted like the terms of DCG.

    .. math:: \ell = -\frac{1}{K}\sum_i w_i\log\sigma\left(-\log\frac{1}{K-1}\sum_{j\ne i} e^{\beta(r_j - r_i)}\right),
       \quad r = \log\frac{\pi(y)}{\pi_{ref}(y)},\quad w = \frac{2^y - 1}{\log_2(1 + \text{rank})}

    Args:
      policy_logps: ``[..., K]`` summed log-probabilities of the items of one answer (nats).
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      labels: ``[..., K]`` graded relevance y; items with 0 have no loss of their own under ``dcg``.
      ranks: ``[..., K]`` rank of the items in the target list, from 1; None ranks by the labels.
      beta: strength of the KL regularisation.
      weighting: ``dcg``, ``rank`` (:math:`1/\log_2(1+\text{rank})`), ``inverse_rank`` (:math:`(2^y-1)/\text{rank}`) or
        your own.
      diagonal: added to :math:`r_i - r_i` before beta. The official code has -100, which shows at small beta.
      where: ``[..., K]`` real items.
      reduce: how lists become one number, the sum by default as in the official code; None gives ``[...]``.

    Raises:
      UserError: unknown weighting, or the shapes disagree.

    >>> print(f"{irpo(jnp.zeros(2), jnp.zeros(2), jnp.array([1.0, 0.0])):.4f}")
    0.3466

    References:
      *In-context Ranking Preference Optimization*, arXiv:2504.15477 (the official code calls the loss rdpo).
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, labels=labels, ranks=ranks, where=where)
    weigh = named.by_name(weighting, POSITION_WEIGHTS, "weighting")
    reward = numerics.clean(log_ratio(policy_logps, reference_logps), where)
    ranks = ranking.rank(labels, where) if ranks is None else numerics.clean(ranks, where, 1)
    weights = jax.lax.stop_gradient(weigh(numerics.clean(labels, where), ranks))
    ahead = -ranking.differences(reward) + jnp.where(jnp.eye(reward.shape[-1], dtype=bool), diagonal, 0)
    others = jnp.maximum(numerics.count(where, reward, -1, keepdims=True) - 1, 1)
    field = numerics.logsumexp(beta * ahead, where=None if where is None else where[..., None, :]) - jnp.log(others)
    losses = weights * links.logistic(-numerics.clean(field, where))
    return aggregate.finish(numerics.mean(losses, -1, where=where), several(reward, where), reduce)
