"""Advantages of groups that also look at the whole batch, or draw: GPG, REINFORCE++-baseline, RED-Drop.

Responses to a prompt stand on the last axis ``[..., K]``, ``where`` marks real ones, and results are ``[..., K, 1]``:
constants that broadcast over tokens, 0 where masked. With ``axis_name`` (pmap, shard_map) the batch is that of all
shards.
"""

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy import centres, select
from rlx.policy.advantages import group_normalize, grpo_advantage
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def gpg_advantage(
    rewards: Array,
    *,
    f_norm: float = 1.0,
    valid: str = "prompts",
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Group policy gradient: :math:`A_i = \alpha (r_i - \bar r)/F`, scaled up for what teaches nothing.

    Args:
      rewards: ``[..., K]`` one reward per response.
      f_norm: F.
      valid: alpha is ``prompts``: the number of prompts over that of those with an advantage other than 0 (the paper);
        ``rewards``: the number of responses over that of those with a reward other than 0 (verl). At most the number.
      where: ``[..., K]`` real responses. One without a group keeps its reward.
      axis_name: mapped axes that alpha is global over.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: unknown ``valid``, or the shapes disagree.

    >>> print(gpg_advantage(jnp.array([[1.0, 0.0], [1.0, 1.0]]))[..., 0])
    [[ 1. -1.]
     [ 0.  0.]]

    References:
      Chu et al., *GPG: A Simple and Strong Reinforcement Learning Baseline for Model Reasoning*, arXiv:2504.02546.
    """
    if valid not in ("prompts", "rewards"):
        raise errors.UserError(
            f"valid must be 'prompts' or 'rewards', got {valid!r}.{errors.close_matches(valid, ('prompts', 'rewards'))}"
        )
    centred = group_normalize(rewards, scale=False, where=where)
    real, useful = jnp.broadcast_to(True if where is None else where, centred.shape), constant(rewards, where) != 0
    if valid == "prompts":
        real, useful = real.any(-1), (centred != 0).any(-1)
    total, taught = (numerics.count(mask, mask, axis_name=axis_name) for mask in (real, useful))
    return (centred * (total / jnp.maximum(taught, 1)).astype(centred.dtype) / f_norm)[..., None]


def reinforce_plus_plus_baseline_advantage(
    rewards: Array,
    lengths: Array,
    *,
    epsilon: float = 1e-8,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""REINFORCE++-baseline: :math:`r_i - \bar r` of the group, whitened over all tokens of the batch.

    .. math:: A_i = \frac{a_i - m}{\sqrt{v + \epsilon}},\quad a_i = r_i - \bar r,\quad
       m = \frac1n\sum_i l_i a_i,\quad v = \frac{1}{n-1}\sum_i l_i (a_i - m)^2,\quad n = \sum_i l_i

    Every token of a response has its advantage, so that long responses weigh more in mean and variance.

    Args:
      rewards: ``[..., K]`` one reward per response.
      lengths: ``[..., K]`` l, the tokens of a response that are trained on.
      epsilon: added to the unbiased variance.
      where: ``[..., K]`` real responses. One without a group has its reward as a.
      axis_name: mapped axes that mean and variance are global over.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: the shapes disagree.

    >>> args = jnp.array([[1.0, 0.0], [4.0, 4.0]]), jnp.array([[1, 1], [1, 1]])
    >>> print(reinforce_plus_plus_baseline_advantage(*args)[0, :, 0])
    [ 1.2247448 -1.2247448]

    References:
      Hu et al., *REINFORCE++*, arXiv:2501.03262.
    """
    check_shapes(rewards=rewards, lengths=lengths, where=where)
    relative = group_normalize(rewards, scale=False, where=where)
    tokens = numerics.clean(jnp.asarray(lengths).astype(relative.dtype), where)

    def total(x: Array) -> Array:
        return numerics.sum(tokens * x, axis_name=axis_name)

    n = total(jnp.ones_like(relative))
    relative = relative - numerics.safe_divide(total(relative), n)
    variance = numerics.safe_divide(total(jnp.square(relative)), jnp.maximum(n - 1, 0))
    return numerics.clean(relative * jax.lax.rsqrt(variance + epsilon), where)[..., None]


def surplus(rewards: Array, where: Array | None = None) -> tuple[Array, Array]:
    """Negatives of a group (rewards below its mean) ``[..., K]``, and how many more they are than positives ``[...]``.

    >>> print(*surplus(jnp.array([1.0, 0.0, 0.0, 0.0])))
    [False  True  True  True] 2
    """
    rewards = constant(rewards, where)
    real = jnp.broadcast_to(True if where is None else where, rewards.shape)
    negative = real & (rewards < centres.mean(rewards, where))
    return negative, jnp.maximum(2 * negative.sum(-1) - real.sum(-1), 0)


def red_drop_keep(
    rewards: Array, *, key: Array | None = None, where: Array | None = None, axis_name: numerics.AxisName = None
) -> Array:
    """RED-Drop's selection: as many negatives of a group (rewards below the mean) as positives, drawn uniformly.

    Args:
      rewards: ``[..., K]`` one reward per response.
      key: for the draw; the same on every shard.
      where: ``[..., K]`` real responses.
      axis_name: mapped axes: a draw does not depend on how the batch is spread over them.

    Returns:
      ``[..., K]`` bool, False where masked.

    Raises:
      UserError: there is no key.

    >>> print(int(red_drop_keep(jnp.array([1.0, 0.0, 0.0, 0.0]), key=jax.random.key(0)).sum()))
    2
    """
    if key is None:
        raise errors.UserError(
            "RED-Drop draws responses at random: pass key=jax.random.key(seed), or a mask as keep=red_drop_keep(...)."
        )
    negative, excess = surplus(rewards, where)
    draws = jnp.where(negative, select.uniform(key, negative, axis_name=axis_name), 1)
    dropped = negative & (draws.argsort(-1).argsort(-1) < excess[..., None])
    return ~dropped if where is None else where & ~dropped


def red_drop_advantage(
    rewards: Array,
    *,
    scale: bool = False,
    ddof: int = 0,
    epsilon: float = 1e-6,
    keep: Array | None = None,
    key: Array | None = None,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""RED-Drop: drops as many negatives as there are more of them than positives, then is relative to what is left.

    Args:
      rewards: ``[..., K]`` one reward per response; a negative's is below the mean of its group.
      scale: divide by the standard deviation.
      ddof: 0 for the population's standard deviation.
      epsilon: added to it.
      keep: ``[..., K]`` the responses that stay; None draws them (:func:`red_drop_keep`).
      key: for that draw.
      where: ``[..., K]`` real responses.
      axis_name: mapped axes: a draw does not depend on how the batch is spread over them.

    Returns:
      ``[..., K, 1]``. Dropped and masked responses have 0; one that is left alone keeps its reward.

    Raises:
      UserError: there is neither ``keep`` nor ``key``, or the shapes disagree.

    >>> kept = jnp.array([True, False, True])
    >>> print(red_drop_advantage(jnp.array([1.0, 0.0, 0.0]), keep=kept)[:, 0])
    [ 0.5  0.  -0.5]

    References:
      Yao et al., *Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm*, arXiv:2509.24203.
    """
    check_shapes(rewards=rewards, keep=keep, where=where)
    kept = red_drop_keep(rewards, key=key, where=where, axis_name=axis_name) if keep is None else keep
    kept = kept if where is None else kept & where
    return grpo_advantage(rewards, scale=scale, ddof=ddof, epsilon=epsilon, where=kept)
