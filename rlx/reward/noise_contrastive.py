"""Noise-contrastive alignment: lists of responses ``[..., K]`` with explicit rewards; pairs are the K = 2 case.

``where [..., K]`` marks the real responses of ragged lists; a list without any is left out of the mean.
"""

from rlx import aggregate, numerics
from rlx.aggregate import mean
from rlx.preference import compare, links, listwise
from rlx.preference.scores import log_ratio
from rlx.types import Array, Reduce, check_positive, check_shapes


def contrast(rewards: Array, target: Array, where: Array | None = None) -> Array:
    r"""Target against noise, ``[..., K] -> [...]``:

    .. math:: -\sum_i q_i\log\sigma(r_i) - \frac1K\sum_i\log\sigma(-r_i)
    """
    rewards = numerics.clean(rewards, where)
    attracted = numerics.sum(target * links.logistic(rewards), -1, where=where)
    return attracted + numerics.mean(links.logistic(-rewards), -1, where=where)


def nca(
    policy_logps: Array,
    reference_logps: Array,
    scores: Array,
    *,
    beta: float = 0.01,
    alpha: float = 1.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Noise-contrastive alignment of lists: it fixes the absolute likelihood, not only the order.

    .. math:: \ell = -\sum_i q_i\log\sigma(r_i) - \frac1K\sum_i\log\sigma(-r_i),\quad
       q = \mathrm{softmax}(s/\alpha),\quad r = \beta\log\frac{\pi(y)}{\pi_{ref}(y)}

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats).
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      scores: ``[..., K]`` explicit rewards; a constant.
      beta: scale of the implicit reward.
      alpha: temperature of the target, above 0, in units of the scores.
      where: ``[..., K]`` real responses.
      reduce: how lists become one number; None gives ``[...]``.

    Raises:
      UserError: alpha is not above 0, or the shapes disagree.

    >>> logps = jnp.array([-1.0, -1.0])
    >>> print(f"{nca(logps, logps, jnp.array([1.0, 0.0])):.4f}")
    1.3863

    References:
      Chen et al., *Noise Contrastive Alignment of Language Models with Explicit Rewards*, arXiv:2402.05369.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, scores=scores, where=where)
    target = listwise.adpo_target(scores, beta_r=alpha, where=where)
    rewards = beta * log_ratio(policy_logps, reference_logps)
    return aggregate.finish(contrast(rewards, target, where), compare.list_where(where), reduce)


def infonca(
    policy_logps: Array,
    reference_logps: Array,
    scores: Array,
    *,
    beta: float = 0.01,
    alpha: float = 1.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""InfoNCA: cross-entropy between the softmax of the scores and that of the implicit rewards.

    .. math:: \ell = -\sum_i \mathrm{softmax}(s/\alpha)_i \log\mathrm{softmax}(\beta d)_i,\quad
       d = \log\frac{\pi(y)}{\pi_{ref}(y)}

    It is :func:`~rlx.preference.listwise.adpo_listwise` with :math:`\tau = 1/\beta`, and DPO on a hard pair.

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats).
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      scores: ``[..., K]`` explicit rewards; a constant.
      beta: scale of the implicit reward, above 0.
      alpha: temperature of the target, above 0, in units of the scores.
      where: ``[..., K]`` real responses.
      reduce: how lists become one number; None gives ``[...]``.

    Raises:
      UserError: beta or alpha is not above 0, or the shapes disagree.

    >>> logps = jnp.array([-1.0, -1.0])
    >>> print(f"{infonca(logps, logps, jnp.array([1.0, 0.0])):.4f}")
    0.6931

    References:
      Chen et al., *Noise Contrastive Alignment of Language Models with Explicit Rewards*, arXiv:2402.05369.
    """
    check_positive(beta=beta)
    keywords = {"tau": 1 / beta, "beta_r": alpha, "where": where, "reduce": reduce}
    return listwise.adpo_listwise(policy_logps, reference_logps, scores, **keywords)
