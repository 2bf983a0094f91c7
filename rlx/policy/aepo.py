"""Two methods called AEPO that hold the entropy: agentic (gradients kept beyond the clip) and arbitrary (REINFORCE).

Tokens stand on the last axis ``[..., K, T]``; leading axes are the batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx import aggregate, errors, numerics
from rlx.policy import ratios, surrogates
from rlx.policy.entropy_advantages import aepo_advantage
from rlx.policy.weights import weigh
from rlx.types import Array, Reduce, Surrogate, check_shapes


def balanced_clip(low: float, high: float, *, dual: float | None = None) -> Surrogate:
    r"""PPO's clip whose upper bound passes the gradient on: :math:`\max(-A r, -A \min(\max(r, 1-l), b))`.

    .. math:: b = \frac{1+h}{\mathrm{sg}[r]}\,r

    has the value 1 + h and the slope of a ratio of 1 + h, so that a likely token with A > 0 keeps being trained.

    >>> surrogate = balanced_clip(0.2, 0.25)
    >>> print(jax.value_and_grad(lambda d: surrogate(jnp.exp(d), 1.0, d))(1.0))
    (Array(-1.25, dtype=float32, weak_type=True), Array(-1.25, dtype=float32, weak_type=True))
    """
    surrogates.check_dual(dual)

    def surrogate(ratio: Array, advantages: Array, logprobs: Array | None = None) -> Array:
        bound = (1 + high) / jax.lax.stop_gradient(ratio) * ratio
        clipped = jnp.where(ratio > 1 + high, bound, ratios.clamp(ratio, 1 - low, jnp.inf))
        worst = jnp.maximum(-advantages * ratio, -advantages * clipped)
        return worst if dual is None else jnp.where(advantages < 0, jnp.minimum(worst, -advantages * dual), worst)

    return surrogate


def aepo_agentic(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    entropy: Array,
    weights: Array | None = None,
    *,
    weight: float = 0.2,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
    shaped: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Agentic entropy-balanced policy optimisation: advantages scaled by entropy, gradients kept beyond the clip.

    .. math:: \ell_t = \max(-A'_t r_t,\; -A'_t\,\mathrm{clip}(r_t, 1-l, \tfrac{1+h}{\mathrm{sg}[r_t]} r_t)),\quad
       A'_t = A_t\left(1 + a\,\frac{H_t - \bar H}{\sigma_H}\right)

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats); a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights; constants. None is 1.
      weight: a; 0 leaves the advantages alone.
      clip_low: l: below it a token with A < 0 has no gradient.
      clip_high: h: above it a token with A > 0 has the gradient of a ratio of 1 + h.
      dual_clip: c > 1; where A' < 0 the loss is at most :math:`-A' c`. None: none.
      shaped: ``[..., K, T]`` A'; None computes them (:func:`rlx.policy.entropy_advantages.aepo_advantage`).
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.
      axis_name: mapped axes mean and deviation of the entropy are global over.

    Raises:
      UserError: the shapes disagree, or ``dual_clip`` is not above 1.

    >>> arrays = jnp.array([[0.0, -1.0]]), jnp.array([[-1.0, -1.0]]), jnp.array([[1.0]]), jnp.ones((1, 2))
    >>> print(aepo_agentic(*arrays, reduce=None))
    [[-1.28 -1.  ]]

    References:
      Dong et al., *Agentic Entropy-Balanced Policy Optimization*, arXiv:2510.14545.
    """
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, weights=weights, where=where)
    if shaped is None:
        shaped = aepo_advantage(advantages, entropy, weight=weight, where=where, axis_name=axis_name)
    r = ratios.token(logprobs, old_logprobs, bound=ratios.OVERFLOW, where=where)
    loss = balanced_clip(clip_low, clip_high, dual=dual_clip)(r, jax.lax.stop_gradient(shaped), logprobs)
    return aggregate.finish(weigh(loss, weights, where), where, reduce)


class Tempered(NamedTuple):
    """The temperature of the extra rollouts, and which of them take the first places in the batch."""

    temperature: float
    rows: np.ndarray


def aepo_arbitrary(
    advantages: np.ndarray,
    entropy: float,
    *,
    target: float = 0.5,
    high: float = 1.2,
    low: float = 0.8,
    number: int = 60,
    threshold: float = 0.05,
) -> Tempered:
    r"""Arbitrary entropy policy optimisation: which tempered rollouts join the batch, to be reinforced.

    .. math:: \nabla J = \nabla J_{GRPO} + \alpha\,\mathbb{E}_{y\sim\pi^{T}}[\nabla\log\pi(y)\,R(y)],\quad
       T = T_{high} \text{ if } H \le H^* \text{ else } T_{low}

    In practice: the first k good tempered rollouts, with advantage 1, replace the first k rows of the batch, and one
    clipped loss runs over all (:func:`replace_rows`, ``ppo_clip_loss`` with ``dual_clip=3``).

    Args:
      advantages: ``[N]`` group advantages of the tempered rollouts.
      entropy: H, mean of :math:`-\log\pi` over the tokens of the previous update (0 at the start).
      target: :math:`H^*`.
      high: temperature that raises the entropy.
      low: temperature that lowers it.
      number: k at most; half of it above the target.
      threshold: a rollout is good above this advantage.

    Returns:
      ``Tempered(temperature, rows)``. No good rollout: no rows, and the batch stays as it is (the released code fails).

    Raises:
      UserError: the advantages are not one per rollout.

    >>> aepo_arbitrary(np.array([-1.0, 0.5, 0.7]), 0.9)
    Tempered(temperature=0.8, rows=array([1]))

    References:
      *Arbitrary Entropy Policy Optimization*, arXiv:2510.08141.
    """
    advantages = np.asarray(advantages)
    if advantages.ndim != 1:
        raise errors.UserError(f"advantages must be [N], one per tempered rollout, got shape {advantages.shape}.")
    below = bool(entropy <= target)
    good = np.flatnonzero(advantages > threshold)
    k = min(number, len(good))
    return Tempered(high if below else low, good[: k if below else k // 2])


def replace_rows(
    batch: dict[str, np.ndarray], tempered: dict[str, np.ndarray], rows: np.ndarray
) -> dict[str, np.ndarray]:
    """The batch with its first rows replaced by ``rows`` of the tempered rollouts, whose advantages become 1.

    Args:
      batch: arrays with the rows on the leading axis.
      tempered: the same names (``advantages`` aside), as the sampling policy at temperature 1 scores them.
      rows: of ``tempered``, at most as many as the batch has.

    Raises:
      UserError: more rows than the batch has.

    >>> replace_rows({"advantages": np.array([3.0, 2.0])}, {}, np.array([1]))["advantages"]
    array([1., 2.])
    """
    size = len(batch["advantages"])
    if len(rows) > size:
        raise errors.UserError(f"{len(rows)} tempered rows do not fit into a batch of {size}: lower number.")
    ones = np.ones((len(rows), *np.shape(batch["advantages"])[1:]), np.asarray(batch["advantages"]).dtype)
    chosen = {name: ones if name == "advantages" else np.asarray(tempered[name])[rows] for name in batch}
    return {name: np.concatenate([chosen[name], np.asarray(batch[name])[len(rows) :]]) for name in batch}
