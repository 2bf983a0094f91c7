"""Advantages of responses that depend on more than rewards: how likely, how certain or how long a response is.

Responses to a prompt stand on the axis K, tokens on the last axis ``[..., K, T]``. Arrays of tokens come first, and
``where [..., K, T]`` marks real tokens; a response is a member of its group if ``group_where [..., K]`` says so, by
default if it has a real token. All are constants, 0 where masked.
"""

import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy.advantages import grpo_advantage
from rlx.policy.weights import constant
from rlx.preference import ranking
from rlx.types import Array, check_shapes


def members(responses: Array, where: Array | None, group_where: Array | None) -> Array:
    """Real members of the groups, ``[..., K]`` bool like ``responses``: those named, or those with a real token.

    >>> print(members(jnp.zeros(2), jnp.array([[True, False, False], [False] * 3]), None))
    [ True False]
    """
    if group_where is not None:
        return jnp.asarray(group_where, bool)
    return jnp.broadcast_to(True if where is None else jnp.asarray(where).any(-1), jnp.shape(responses))


def unlikeliness_advantage(
    old_logprobs: Array,
    rewards: Array,
    group_where: Array | None = None,
    *,
    beta: float = 0.25,
    epsilon: float = 1e-6,
    where: Array | None = None,
) -> Array:
    r"""GRPO of rewards that are lowered for likely responses, so that unlikely solutions are learnt too.

    .. math:: A = \mathrm{GRPO}(r'),\quad r'_i = r_i\left(1 - \beta\,\frac{\mathrm{rank}_i}{n}\right)

    with rank 0 the response of least mean log-probability. A reward of 0 stays 0.

    Args:
      old_logprobs: ``[..., K, T]`` token log-probabilities under the policy that sampled (nats).
      rewards: ``[..., K]`` one reward per response.
      group_where: ``[..., K]`` real responses; None: those with a real token.
      beta: the penalty; the authors train with 0.25, and two epochs per batch.
      epsilon: added to the unbiased standard deviation.
      where: ``[..., K, T]`` real tokens.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: the shapes disagree.

    >>> args = jnp.array([[-1.0], [-2.0], [-3.0]]), jnp.array([1.0, 1.0, 0.0])
    >>> print(unlikeliness_advantage(*args, beta=0.0)[:, 0])
    [ 0.57734925  0.57734925 -1.1546986 ]

    References:
      He et al., *Rewarding the Unlikely: Lifting GRPO Beyond Distribution Sharpening*, arXiv:2506.02355.
    """
    check_shapes(old_logprobs=old_logprobs, where=where, **{"rewards[..., None]": jnp.asarray(rewards)[..., None]})
    real = members(rewards, where, group_where)
    rank = ranking.rank(-numerics.mean(constant(old_logprobs, where), -1, where=where), real) - 1
    share = numerics.safe_divide(rank, real.sum(-1, keepdims=True))
    return grpo_advantage(constant(rewards, real) * (1 - beta * share), epsilon=epsilon, where=real)


_METRICS = ("entropy", "length")


def canon(
    entropy: Array,
    rewards: Array,
    group_where: Array | None = None,
    *,
    metric: str = "entropy",
    mu: float | None = 1.0,
    alpha: float = 1.0,
    max_length: float = 8192,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Conditional advantage estimation: a group is cut in two halves by a metric, and each is compared with both.

    .. math:: A_i = \frac{1}{L}\Big(\mu\,(r'_i - \mathrm{mean}_{\text{other half}}\,r')
       + (1-\mu)(r_i - \mathrm{mean}_{\text{own half}}\,r)\Big)

    with :math:`r' = \alpha r` in the low half of the entropy, or in the high half of the length, and r in the other.
    The low half holds the :math:`\lfloor n/2\rfloor` smallest, ties by position.

    Args:
      entropy: ``[..., K, T]`` entropy of the policy at a token (nats).
      rewards: ``[..., K]`` one reward per response.
      group_where: ``[..., K]`` real responses; None: those with a real token. One without a group keeps its reward.
      metric: ``entropy``, its mean over the tokens, or ``length``, the number of tokens.
      mu: weight of the other half; 1 is CANON-Inter, 0 CANON-Intra; None is the mean reward of the batch, so that
        training goes from one to the other.
      alpha: weight of the rewards of one half against the other.
      max_length: L; sum over the tokens of a response, as in Dr. GRPO.
      where: ``[..., K, T]`` real tokens.
      axis_name: mapped axes that the mean reward is global over.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: unknown ``metric``, or the shapes disagree.

    >>> args = jnp.array([[1.0], [2.0]]), jnp.array([1.0, 0.0])
    >>> print(canon(*args, max_length=1)[:, 0])
    [ 1. -1.]

    References:
      *Conditional Advantage Estimation for Reinforcement Learning in Large Reasoning Models*, arXiv:2509.23962.
    """
    check_shapes(entropy=entropy, where=where, **{"rewards[..., None]": jnp.asarray(rewards)[..., None]})
    if metric not in _METRICS:
        hint = errors.close_matches(metric, _METRICS)
        raise errors.UserError(f"metric must be 'entropy' or 'length', got {metric!r}.{hint}")
    real, h = members(rewards, where, group_where), constant(entropy, where)
    r, n = constant(rewards, real), real.sum(-1, keepdims=True)
    key = numerics.mean(h, -1, where=where) if metric == "entropy" else numerics.count(where, h, -1)
    low = ranking.rank(-key, real) <= n // 2
    weighed = jnp.where(low == (metric == "entropy"), alpha, 1) * r

    def halves(x: Array) -> tuple[Array, Array]:
        seen = (real & (n > 1) & half for half in (low, ~low))
        below, above = (numerics.mean(x, -1, where=half, keepdims=True) for half in seen)
        return jnp.where(low, below, above), jnp.where(low, above, below)

    inter, intra = weighed - halves(weighed)[1], r - halves(r)[0]
    share = numerics.mean(r, where=real, axis_name=axis_name) if mu is None else mu
    return numerics.clean((share * inter + (1 - share) * intra) / max_length, real)[..., None]


def policy_specific_hardness_weighting(
    correct: Array, *, alpha: float = -0.256, offset: float = 1.256, where: Array | None = None
) -> Array:
    r"""Centred verdicts, weighed by how hard the policy finds the question: :math:`A_i = (R_i - \mu)(\alpha\mu + d)`.

    R is 1 for a correct and -1 for a wrong response, and mu their mean over the group, so that the weight runs from
    1.512 where all are wrong to 1 where all are right. The authors sum over the tokens and responses of a prompt.

    Args:
      correct: ``[..., K]`` 1 or 0.
      alpha: slope of the weight.
      offset: d, the weight at mu = 0.
      where: ``[..., K]`` real responses. One without a group has 0.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: the shapes disagree.

    >>> print(policy_specific_hardness_weighting(jnp.array([1.0, 0.0]))[:, 0])
    [ 1.256 -1.256]

    References:
      Wu et al., *Confucius3-Math*, arXiv:2506.18330.
    """
    weight = hardness_weight(correct, alpha=alpha, offset=offset, where=where)
    outcome = 2 * constant(correct, where) - 1
    return weight[..., None] * grpo_advantage(outcome, scale=False, singleton="zero", where=where)


def hardness_weight(
    correct: Array, *, alpha: float = -0.256, offset: float = 1.256, where: Array | None = None
) -> Array:
    r"""The weight :math:`\alpha\mu + d` of :func:`policy_specific_hardness_weighting`, ``[..., 1]``.

    >>> print(hardness_weight(jnp.array([1.0, 1.0])))
    [1.]
    """
    check_shapes(correct=correct, where=where)
    return alpha * numerics.mean(2 * constant(correct, where) - 1, -1, where=where, keepdims=True) + offset


def certainty_scale(entropy: Array, group_where: Array | None = None, *, where: Array | None = None) -> Array:
    r"""How certain a response is, against its group: :math:`1 + (\bar H - H_i)/\bar H`, ``[..., K, 1]``.

    H is the mean entropy of the tokens of a response. Below 0 where it is more than twice the mean of the group; 1 if
    that is 0.

    >>> print(certainty_scale(jnp.array([[1.0], [3.0]]))[:, 0])
    [1.5 0.5]
    """
    real = members(entropy[..., 0], where, group_where)
    own = numerics.mean(constant(entropy, where), -1, where=where)
    average = numerics.mean(own, -1, where=real, keepdims=True)
    return (1 + numerics.safe_divide(average - own, average))[..., None]


def ettrl_advantage(
    advantages: Array, entropy: Array, group_where: Array | None = None, *, where: Array | None = None
) -> Array:
    r"""Advantages scaled up for certain responses and down for uncertain ones (ETTRL's Adv-Res).

    .. math:: A'_i = A_i\left(1 + \frac{\bar H - H_i}{\bar H}\right)

    with H the mean token entropy of a response and its mean over the group. Beyond twice that the sign turns.

    Args:
      advantages: ``[..., K, T]`` or ``[..., K, 1]``.
      entropy: ``[..., K, T]`` entropy of the policy at a token (nats).
      group_where: ``[..., K]`` real responses; None: those with a real token.
      where: ``[..., K, T]`` real tokens.

    Returns:
      ``[..., K, T]`` (``[..., K, 1]`` for such advantages without ``where``), 0 where masked.

    Raises:
      UserError: the shapes disagree.

    >>> print(ettrl_advantage(jnp.ones((2, 1)), jnp.array([[1.0], [3.0]]))[:, 0])
    [1.5 0.5]

    References:
      *ETTRL: Balancing Exploration and Exploitation in LLM Test-Time Reinforcement Learning via Entropy Mechanism*,
      arXiv:2508.11356.
    """
    check_shapes(entropy=entropy, advantages=advantages, where=where)
    return constant(advantages, where) * numerics.clean(certainty_scale(entropy, group_where, where=where), where)


def clip_advantage(advantages: Array, *, beta: float = 1.0, where: Array | None = None) -> Array:
    r"""Advantages cut off at :math:`\pm\beta` (ETTRL's Adv-Clip, the alternative to :func:`ettrl_advantage`).

    Args:
      advantages: ``[..., K, T]`` or ``[..., K, 1]``.
      beta: the bound; the paper's is not known.
      where: ``[..., K, T]`` real tokens.

    Returns:
      ``[..., K, T]``, 0 where masked.

    Raises:
      UserError: the shapes disagree.

    >>> print(clip_advantage(jnp.array([-3.0, 0.5]), beta=1.0))
    [-1.   0.5]
    """
    check_shapes(advantages=advantages, where=where)
    return jnp.clip(constant(advantages, where), -beta, beta)
