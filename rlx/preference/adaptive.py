"""What ADPO adapts to a group: advantages smoothed by a kernel, and a temperature that follows entropy and reward.

Responses of a prompt stand on the axis K, tokens on the last axis T. All results are constants.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr

from rlx import numerics
from rlx.types import Array, check_positive, check_shapes


def adpo_kde_advantage(
    rewards: Array, *, bandwidth: float = 1.0, bound: float = 1e-4, where: Array | None = None
) -> Array:
    r"""Logit of the smoothed distribution function of a group's rewards: bounded, whatever an outlier does.

    .. math:: A_j = \mathrm{logit}\,F(r_j),\quad F(r) = \frac{1}{K}\sum_k\Phi\left(\frac{r - r_k}{h}\right),\quad
       h = 1.06\,b\,\sigma_r\,K^{-1/5}

    with F clipped to [bound, 1 - bound] and the unbiased :math:`\sigma_r`, 1 where it is below 1e-6. As target of ADPO:
    ``softmax(A / beta_r)``.

    Args:
      rewards: ``[..., K]`` one reward per response.
      bandwidth: factor b of the rule of thumb, above 0.
      bound: least distance of F from 0 and 1; :math:`|A| \le \log(1/bound - 1)`.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]``: broadcasts over the tokens ``[..., K, T]``. Masked responses have 0.

    Raises:
      UserError: bandwidth is not above 0, or the shapes disagree.

    >>> print(" ".join(f"{a:.3f}" for a in adpo_kde_advantage(jnp.array([1.0, 1.0, 100.0]))[:, 0]))
    -0.662 -0.662 1.512

    References:
      *Anchored Direct Preference Optimization* (versions 1 and 2), arXiv:2510.18913; formula of the official code.
    """
    check_shapes(rewards=rewards, where=where)
    check_positive(bandwidth=bandwidth)
    rewards = jax.lax.stop_gradient(numerics.clean(numerics.accumulate(rewards), where))
    spread = numerics.std(rewards, -1, ddof=1, where=where, keepdims=True)
    members = jnp.maximum(numerics.count(where, rewards, -1, keepdims=True), 1)
    h = bandwidth * 1.06 * jnp.where(spread < 1e-6, 1, spread) * members**-0.2 + 1e-8
    below = ndtr((rewards[..., :, None] - rewards[..., None, :]) / h[..., None])
    share = numerics.mean(below, -1, where=None if where is None else where[..., None, :])
    share = jnp.clip(share, bound, 1 - bound)
    return numerics.clean(jnp.log(share) - jnp.log1p(-share), where)[..., None]


def adpo_adaptive_tau(
    entropy: Array,
    rewards: Array,
    *,
    vocab_size: int,
    tau: float = 1.0,
    alpha: float = 0.5,
    beta: float = 1.0,
    tau_min: float = 0.1,
    tau_max: float = 5.0,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""ADPO's temperature of a prompt: it grows with uncertainty, and where the policy is sure and poorly rewarded.

    .. math:: \tau_x = \mathrm{clip}\left(\tau\,(1 + \alpha\bar H + \beta(1 - \bar H)(1 - \bar R)),
       \tau_{min}, \tau_{max}\right)

    with :math:`\bar H` the mean token entropy of the prompt over :math:`\log V`, clipped to [0, 1], and :math:`\bar R`
    its mean reward, min-max normalised over the batch (0.5 where all prompts have the same).

    Args:
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats).
      rewards: ``[..., K]`` reward of a response.
      vocab_size: V, at least 2.
      tau: base temperature, above 0.
      alpha: weight of the entropy.
      beta: weight of poor rewards under a sure policy.
      tau_min: least temperature.
      tau_max: largest temperature.
      where: ``[..., K, T]`` real tokens.
      axis_name: mapped axes that the batch is spread over.

    Returns:
      ``[...]``; as ``tau=`` of :func:`rlx.adpo_listwise` it is ``result[..., None]``.

    Raises:
      UserError: tau or ``vocab_size - 1`` is not above 0, or the shapes disagree.

    >>> print(adpo_adaptive_tau(jnp.zeros((2, 1, 1)), jnp.array([[1.0], [0.0]]), vocab_size=8))
    [1. 2.]

    References:
      *From Probability to Advantage: Unifying Alignment via Anchored Ranking* (ADPO), arXiv:2510.18913.
    """
    check_shapes(**{"entropy": entropy, "where": where})
    check_shapes(**{"rewards": rewards, "the entropy without its last axis": entropy[..., 0]})
    check_positive(**{"tau": tau, "vocab_size - 1": vocab_size - 1})
    real = jnp.ones(rewards.shape, bool) if where is None else where.any(-1)
    uncertain = numerics.mean(jax.lax.stop_gradient(entropy), (-2, -1), where=where) / jnp.log(float(vocab_size))
    uncertain = jnp.clip(uncertain, 0, 1)
    reward = numerics.mean(jax.lax.stop_gradient(rewards), -1, where=real)
    low, high = extremes(reward, where=real.any(-1), axis_name=axis_name)
    wide = high - low > 1e-6
    rewarded = jnp.where(wide, (reward - low) / jnp.where(wide, high - low, 1), 0.5)
    return jnp.clip(tau * (1 + alpha * uncertain + beta * (1 - uncertain) * (1 - rewarded)), tau_min, tau_max)


def extremes(x: Array, *, where: Array, axis_name: numerics.AxisName = None) -> tuple[Array, Array]:
    """Least and largest selected entry over all shards; (0, 0) of nothing.

    >>> print(*extremes(jnp.array([3.0, 9.0, 1.0]), where=jnp.array([True, False, True])))
    1.0 3.0
    """
    everything, selected = (numerics.gather(y.ravel(), axis_name) for y in (x, where))
    low = numerics.clean(everything, selected, jnp.inf).min()
    high = numerics.clean(everything, selected, -jnp.inf).max()
    return numerics.clean(low, selected.any()), numerics.clean(high, selected.any())
