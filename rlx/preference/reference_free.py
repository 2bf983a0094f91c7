"""Losses of what the policy alone says of a pair: candidates on the last axis ``[..., 2]``, chosen first.

``where [..., 2]`` marks real responses; ``reduce=None`` gives one value per pair ``[...]``, 0 where masked.
"""

from rlx import numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links, scores
from rlx.types import Array, Link, Reduce, check_pairs


def dpo_reference_free(
    policy_logps: Array,
    *,
    beta: float = 0.1,
    epsilon: float = 0.0,
    link: Link = links.logistic,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""DPO with a uniform reference: the margin is that of the policy alone.

    .. math:: \ell = -\log\sigma\left(\beta\log\frac{\pi(y_w)}{\pi(y_l)}\right)

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      beta: scale of the margin.
      epsilon: label smoothing as in :func:`rlx.cdpo`, in [0, 0.5).
      link: loss of a margin (:mod:`rlx.preference.links`).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: epsilon is outside [0, 0.5), or the last axis is not 2.

    >>> print(f"{dpo_reference_free(jnp.array([-1.0, -2.0]), beta=1.0):.4f}")
    0.3133

    References:
      Rafailov et al., *Direct Preference Optimization*, arXiv:2305.18290.
    """
    check_pairs(policy_logps=policy_logps, where=where)
    score = beta * numerics.accumulate(policy_logps)
    return compare.pairs(score, labels.smoothed(epsilon), link, where, reduce)


def simpo(
    policy_logps: Array,
    lengths: Array,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
    epsilon: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Simple preference optimisation: reference-free, length-normalised, with a target margin.

    .. math:: \ell = -\log\sigma\left(\beta\,\frac{\log\pi(y_w)}{|y_w|} - \beta\,\frac{\log\pi(y_l)}{|y_l|}
       - \gamma\right)

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      lengths: ``[..., 2]`` number of response tokens; an empty response divides by 1.
      beta: scale of the average log-probabilities, 2 to 10 in the paper.
      gamma: the target margin itself, not its ratio to beta (0.3 to 1.6 in the paper).
      epsilon: smoothing of the label on the same shifted margin, in [0, 0.5).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: epsilon is outside [0, 0.5), or the shapes disagree.

    >>> print(f"{simpo(jnp.array([-4.0, -4.0]), jnp.array([4, 2]), beta=2.0, gamma=1.0):.4f}")
    0.3133

    References:
      Meng et al., *SimPO: Simple Preference Optimization with a Reference-Free Reward*, arXiv:2405.14734.
    """
    keywords = {"alpha": 0.0, "beta": beta, "gamma": gamma, "epsilon": epsilon}
    return alphapo_reward_shape(policy_logps, lengths, **keywords, where=where, reduce=reduce)


def alphapo_reward_shape(
    policy_logps: Array,
    lengths: Array,
    *,
    alpha: float = 0.25,
    beta: float = 2.5,
    gamma: float = 0.5,
    epsilon: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""AlphaPO: :func:`simpo` with a reward whose shape in the probability is a power.

    .. math:: \ell = -\log\sigma\left(\beta\,(r_w - r_l) - \gamma\right),\quad r = \frac{1 - p^{-\alpha}}{\alpha},\quad
       p = \pi(y)^{1/|y|}

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      lengths: ``[..., 2]`` number of response tokens; an empty response divides by 1.
      alpha: shape of the reward, of either sign; 0 is the logarithm, SimPO.
      beta: scale of the reward.
      gamma: the target margin.
      epsilon: smoothing of the label on the same shifted margin, in [0, 0.5).
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: epsilon is outside [0, 0.5), or the shapes disagree.

    >>> policy, lengths = jnp.log(jnp.array([0.5, 0.25])), jnp.array([1, 1])
    >>> print(f"{alphapo_reward_shape(policy, lengths, alpha=1.0, beta=1.0, gamma=1.0):.4f}")
    0.3133

    References:
      Gupta et al., *AlphaPO: Reward Shape Matters for LLM Alignment*, arXiv:2501.03884.
    """
    check_pairs(policy_logps=policy_logps, lengths=lengths, where=where)
    # masked before the power, where a NaN would reach the gradient
    reward = scores.alpha_power(scores.per_token(numerics.clean(policy_logps, where), lengths), alpha)
    margin = scores.finite(beta * scores.margin(reward)) - gamma
    return compare.margins(margin, labels.smoothed(epsilon), links.logistic, compare.pair_where(where), reduce)
