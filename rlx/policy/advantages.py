"""Advantages of responses relative to their group: rewards to advantages, without gradient.

Responses to a prompt stand on the last axis ``[..., K]``; leading axes are the batch. Ragged groups are padded and
marked by ``where``; masked entries get advantage 0 and enter no statistic. All of them are :func:`group_normalize` with
other arguments, and return ``[..., K, 1]``, which broadcasts over tokens.
"""

import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy import centres
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes

_SINGLETON = ("raw", "zero")


def group_normalize(
    rewards: Array,
    *,
    centre: centres.Centre = centres.mean,
    scale: bool = True,
    ddof: int = 1,
    epsilon: float = 1e-6,
    singleton: str = "raw",
    where: Array | None = None,
) -> Array:
    r"""Rewards relative to their group: :math:`(r_i - c_i) / (\sigma_r + \epsilon)`.

    Members of a group whose rewards are all equal get 0 for every centre that is an average.

    Args:
      rewards: ``[..., K]`` rewards of the responses to a prompt.
      centre: the baseline c, a function of rewards and ``where`` (:mod:`rlx.policy.centres`).
      scale: False leaves the difference unscaled.
      ddof: 1 for the unbiased standard deviation, 0 for the population's.
      epsilon: added to the standard deviation (not the variance); with 0, a group without spread has 0.
      singleton: a group with one member has no baseline: ``raw`` takes mean 0 and deviation 1, so that its reward stays
        (verl); ``zero`` gives 0.
      where: ``[..., K]`` real members.

    Returns:
      ``[..., K]``, 0 where masked.

    Raises:
      UserError: unknown ``singleton``, or the shapes disagree.

    >>> print(group_normalize(jnp.array([1.0, 0.0, jnp.nan]), epsilon=0.0, where=jnp.array([True, True, False])))
    [ 0.70710677 -0.70710677  0.        ]
    """
    check_shapes(rewards=rewards, where=where)
    if singleton not in _SINGLETON:
        hint = errors.close_matches(singleton, _SINGLETON)
        raise errors.UserError(f"singleton must be 'raw' or 'zero', got {singleton!r}.{hint}")
    rewards = constant(rewards, where)
    several = numerics.count(where, rewards, -1, keepdims=True) > 1
    spread = numerics.std(rewards, -1, where=where, ddof=ddof, keepdims=True) if scale else 1.0
    alone = rewards if singleton == "raw" else jnp.zeros_like(rewards)
    relative = jnp.where(several, rewards - centre(rewards, where), alone)
    return numerics.clean(numerics.safe_divide(relative, jnp.where(several, spread, 1.0) + epsilon * scale), where)


def grpo_advantage(
    rewards: Array,
    *,
    centre: centres.Centre = centres.mean,
    scale: bool = True,
    ddof: int = 1,
    epsilon: float = 1e-6,
    singleton: str = "raw",
    where: Array | None = None,
) -> Array:
    r"""Group-relative advantage: GRPO, and with other arguments Dr. GRPO, RLOO and REC.

    .. math:: A_i = \frac{r_i - \bar r}{\sigma_r + \epsilon}\ \text{(GRPO)},\quad A_i = r_i - \bar r\ \text{(Dr. GRPO)},
       \quad A_i = r_i - \frac{1}{n-1}\sum_{j\ne i} r_j = \frac{n}{n-1}(r_i - \bar r)\ \text{(RLOO)}

    Args:
      rewards: ``[..., K]`` one reward per response, the responses to a prompt on the last axis.
      centre: the baseline, a function of rewards and ``where`` (:mod:`rlx.policy.centres`).
      scale: divide by the standard deviation.
      ddof: 1 for the unbiased standard deviation (verl, TRL), 0 for the population's (REC).
      epsilon: added to the standard deviation (verl 1e-6, TRL 1e-4).
      singleton: advantage of a response without a group: ``raw`` keeps its reward over 1 + epsilon (verl); ``zero``.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]``: broadcasts over the tokens ``[..., K, T]``. Masked responses have 0.

    Raises:
      UserError: unknown ``singleton``, or the shapes disagree.

    >>> print(grpo_advantage(jnp.array([1.0, 0.0]), scale=False)[:, 0])
    [ 0.5 -0.5]

    References:
      Shao et al., *DeepSeekMath*, arXiv:2402.03300; Liu et al., *Understanding R1-Zero-Like Training* (Dr. GRPO),
      arXiv:2503.20783; Ahmadian et al., *Back to Basics* (RLOO), arXiv:2402.14740; Yao et al., *Group-Relative
      REINFORCE Is Secretly an Off-Policy Algorithm* (REC), arXiv:2509.24203.
    """
    options = {"ddof": ddof, "epsilon": epsilon, "singleton": singleton, "where": where}
    return group_normalize(rewards, centre=centre, scale=scale, **options)[..., None]


def asymre_advantage(
    rewards: Array, *, shift: float = -0.1, singleton: str = "raw", where: Array | None = None
) -> Array:
    r"""Asymmetric REINFORCE: :math:`A_i = r_i - (\bar r + \delta)`, so that good responses count more than bad ones.

    With shift 0 it is Dr. GRPO's. The loss beside it has neither ratio nor clip.

    Args:
      rewards: ``[..., K]`` one reward per response.
      shift: the shift of the baseline, below 0.
      singleton: as in :func:`grpo_advantage`; a response without a group is not shifted.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: unknown ``singleton``, or the shapes disagree.

    >>> print(asymre_advantage(jnp.array([1.0, 0.0]), shift=-0.5)[:, 0])
    [1. 0.]

    References:
      Arnal et al., *Asymmetric REINFORCE for Off-Policy Reinforcement Learning*, arXiv:2506.20520.
    """
    return grpo_advantage(rewards, centre=centres.shifted(shift), scale=False, singleton=singleton, where=where)


def opmd_advantage(
    rewards: Array, *, tau: float | None = None, singleton: str = "raw", where: Array | None = None
) -> Array:
    r"""Advantage of online policy mirror descent: :math:`A_i = r_i - \tau\log\frac1n\sum_j e^{r_j/\tau}`.

    Args:
      rewards: ``[..., K]`` one reward per response.
      tau: temperature of the soft maximum; None is its limit for large tau, the mean, which the authors train with.
      singleton: as in :func:`grpo_advantage`.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: tau is not above 0, unknown ``singleton``, or the shapes disagree.

    >>> print(f"{opmd_advantage(jnp.array([1.0, 0.0]), tau=1.0)[0, 0]:.4f}")
    0.3799

    References:
      Yao et al., *Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm*, arXiv:2509.24203.
    """
    centre = centres.mean if tau is None else centres.log_mean_exp(tau)
    return grpo_advantage(rewards, centre=centre, scale=False, singleton=singleton, where=where)


def opo_advantage(rewards: Array, lengths: Array, *, singleton: str = "raw", where: Array | None = None) -> Array:
    r"""On-policy optimal baseline: :math:`A_i = r_i - \sum_j l_j r_j / \sum_j l_j`, l the length of a response.

    Args:
      rewards: ``[..., K]`` one reward per response.
      lengths: ``[..., K]`` response tokens.
      singleton: as in :func:`grpo_advantage`.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: unknown ``singleton``, or the shapes disagree.

    >>> print(opo_advantage(jnp.array([1.0, 0.0]), jnp.array([1, 3]))[:, 0])
    [ 0.75 -0.25]

    References:
      Hao et al., *On-Policy RL with Optimal Reward Baseline*, arXiv:2505.23585.
    """
    check_shapes(rewards=rewards, lengths=lengths, where=where)
    return grpo_advantage(rewards, centre=centres.weighted(lengths), scale=False, singleton=singleton, where=where)


def passk_advantage(
    rewards: Array, *, scale: bool = True, ddof: int = 1, epsilon: float = 1e-6, where: Array | None = None
) -> Array:
    r"""Advantage of the best of k: :math:`(r_{(1)} - r_{(2)}) / (\sigma_r + \epsilon)` for the best response, else 0.

    A tie for the best gives 0 to all; so does a group of one, which has no second.

    Args:
      rewards: ``[..., K]`` one reward per response.
      scale: divide by the standard deviation.
      ddof: 1 for the unbiased standard deviation.
      epsilon: added to the standard deviation.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: the shapes disagree.

    >>> print(passk_advantage(jnp.array([1.0, 3.0, 0.0]), scale=False)[:, 0])
    [0. 2. 0.]

    References:
      Tang et al., *Optimizing Language Models for Inference Time Objectives using RL*, arXiv:2503.19595.
    """
    options = {"ddof": ddof, "epsilon": epsilon, "singleton": "zero", "where": where}
    return jnp.maximum(grpo_advantage(rewards, centre=centres.second_best, scale=scale, **options), 0)


def ngrpo_advantage(
    rewards: Array,
    *,
    max_reward: float = 1.0,
    num_virtual: int = 1,
    epsilon: float = 1e-6,
    where: Array | None = None,
) -> Array:
    r"""Negative-enhanced GRPO: n virtual responses of the largest reward join every group's mean and deviation.

    .. math:: A_i = \frac{r_i - \mathrm{mean}(r \cup \{r_{max}\}^n)}{\mathrm{std}(r \cup \{r_{max}\}^n) + \epsilon}

    So a group that is all wrong pushes down instead of teaching nothing. Groups that are all right have 0.

    Args:
      rewards: ``[..., K]`` one reward per response.
      max_reward: the largest reward there is.
      num_virtual: n; 0 is GRPO.
      epsilon: added to the unbiased standard deviation.
      where: ``[..., K]`` real responses. A response without a group keeps its reward; no virtual one joins it.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: the shapes disagree.

    >>> print(ngrpo_advantage(jnp.array([0.0, 0.0, 0.0]), epsilon=0.0)[:, 0])
    [-0.5 -0.5 -0.5]

    References:
      Nan et al., *NGRPO: Negative-enhanced Group Relative Policy Optimization*, arXiv:2509.18851.
    """
    check_shapes(rewards=rewards, where=where)
    rewards = constant(rewards, where)
    virtual = jnp.full((*rewards.shape[:-1], num_virtual), max_reward, rewards.dtype)
    real = jnp.broadcast_to(True if where is None else where, rewards.shape)
    joins = jnp.broadcast_to(real.sum(-1, keepdims=True) > 1, virtual.shape)
    joined, seen = (jnp.concatenate(pair, -1) for pair in ((rewards, virtual), (real, joins)))
    return grpo_advantage(joined, epsilon=epsilon, where=seen)[..., : rewards.shape[-1], :]
