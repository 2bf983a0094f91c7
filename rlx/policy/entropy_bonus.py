"""Regularisers on the mean entropy of the tokens, for any policy loss: a bonus, a target, a band, a controller.

Tokens stand on the last axis ``[..., K, T]``; leading axes are the batch. A regulariser is a loss of its own, to be
added to a policy loss with the same reduction.
"""

import jax.numpy as jnp

from rlx import aggregate, errors, numerics, signals
from rlx.method import Constants, Method, PyTree, stateless, take
from rlx.numerics import AxisName
from rlx.policy import ratios
from rlx.policy.clipped import ppo_clip_loss
from rlx.policy.weights import constant
from rlx.types import Array, Batch, Reduce, check_shapes


def entropy_bonus_pg(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    entropy: Array,
    weights: Array | None = None,
    *,
    coefficient: float | Array = 0.001,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""PPO with an entropy bonus: :math:`\ell_t = \ell^{PPO}_t - c\,H_t`, differentiated through the entropy.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats).
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights of the policy term; constants. None is 1.
      coefficient: c, per nat.
      clip_low: of PPO.
      clip_high: of PPO.
      dual_clip: of PPO; None: none.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number, of both terms; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree, or ``dual_clip`` is not above 1.

    >>> zeros = jnp.zeros((1, 2))
    >>> print(f"{entropy_bonus_pg(zeros, zeros, zeros, zeros + 2.0, coefficient=0.1):.1f}")
    -0.2

    References:
      Schulman et al., *Proximal Policy Optimization Algorithms*, arXiv:1707.06347; Williams and Peng, 1991.
    """
    check_shapes(logprobs=logprobs, entropy=entropy)
    bounds = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    policy = ppo_clip_loss(logprobs, old_logprobs, advantages, weights, **bounds, where=where, reduce=None)
    return aggregate.finish(policy - coefficient * numerics.clean(numerics.accumulate(entropy), where), where, reduce)


def adaptive_entropy_bonus_method(
    *,
    rule: str = "step_clipped",
    target: float = 0.2,
    rate: float = 1e-4,
    initial: float = 0.0,
    minimum: float = 0.0,
    maximum: float = 0.005,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    axis_name: AxisName = None,
) -> Method:
    """:func:`entropy_bonus_pg` with a coefficient that holds the mean token entropy of the batch at a target.

    The entropy is measured before the update of the step, over all tokens of the batch. Defaults are the run scripts of
    Skywork-OR1.

    Args:
      rule: a controller (:data:`rlx.signals.ENTROPY_CONTROLLERS`).
      target: entropy (nats).
      rate: step of the coefficient, or its learning rate.
      initial: first coefficient.
      minimum: smallest coefficient, of the rules that have one.
      maximum: largest coefficient, of the rules that have one.
      clip_low: of PPO.
      clip_high: of PPO.
      dual_clip: of PPO; None: none.
      axis_name: mapped axes the batch is spread over.

    Raises:
      UserError: unknown rule.

    >>> adaptive_entropy_bonus_method().needs
    ('logprobs', 'old_logprobs', 'advantages', 'entropy')

    References:
      He et al., *Skywork Open Reasoner 1 Technical Report*, arXiv:2505.22312.
    """
    limits = {"target": target, "rate": rate, "initial": initial, "minimum": minimum, "maximum": maximum}
    controller = signals.entropy_controller(rule, **limits)
    bounds = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    lifted = stateless(entropy_bonus_pg, keywords=bounds, axis_name=axis_name)

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        entropy = constant(take(batch, "entropy", lifted.name))
        measured = numerics.mean(entropy, where=batch.get("where"), axis_name=axis_name)
        coefficient, new = controller.update(measured, state["controller"])
        return Constants({"coefficient": coefficient}, {}), {"controller": new}

    return lifted._replace(
        init=lambda key, shapes: ({}, {"controller": controller.init()}),
        prepare=prepare,
        prepare_needs=("entropy",),
        coupling="batch",
        hyperparameters={"rule": rule, **limits, **bounds},
    )


def band_side(
    entropy: Array, *, low: float = 0.2, high: float = 1.0, where: Array | None = None, axis_name: AxisName = None
) -> Array:
    """Where the mean entropy of the batch lies: 1 above the band, -1 below it, 0 inside.

    >>> print(band_side(jnp.array([1.0, 3.0]), low=0.5, high=1.5))
    1.0
    """
    mean = numerics.mean(constant(entropy, where), where=where, axis_name=axis_name)
    return jnp.where(mean > high, 1.0, jnp.where(mean < low, -1.0, 0.0)).astype(mean.dtype)


def entropy_band(
    entropy: Array,
    *,
    low: float = 0.2,
    high: float = 1.0,
    coefficient: float = 0.001,
    side: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
    axis_name: AxisName = None,
) -> Array:
    r"""Keeps the mean token entropy in a band: :math:`c\,[(\bar H - h)_+ + (l - \bar H)_+]`.

    Tokens carry :math:`c\,s\,(H_t - b)` with the side s of the batch's mean and the bound b it has crossed, which
    add up to the value and its gradient.

    Args:
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats).
      low: l.
      high: h.
      coefficient: c.
      side: 1, 0 or -1, a constant; None takes that of these tokens (:func:`band_side`).
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.
      axis_name: mapped axes the mean is global over.

    Raises:
      UserError: low is above high, or the shapes disagree.

    >>> print(entropy_band(jnp.array([1.0, 3.0]), high=1.5, coefficient=1.0))
    0.5
    """
    check_shapes(entropy=entropy, where=where)
    if low > high:
        raise errors.UserError(f"low is the lower bound of the entropy: {low} is above high, {high}.")
    if side is None:
        side = band_side(entropy, low=low, high=high, where=where, axis_name=axis_name)
    distance = numerics.clean(numerics.accumulate(entropy), where) - jnp.where(side > 0, high, low)
    return aggregate.finish(coefficient * side * distance, where, reduce)


def targeted_entropy_regularization(
    entropy: Array,
    *,
    target: float = 0.55,
    coefficient: float = 0.001,
    side: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
    axis_name: AxisName = None,
) -> Array:
    r"""Pulls the mean token entropy to a target from both sides: :math:`c\,|\bar H - H^*|`, gradient 0 at the target.

    Args:
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats).
      target: :math:`H^*`.
      coefficient: c.
      side: 1 above the target, -1 below, a constant; None takes that of these tokens.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.
      axis_name: mapped axes the mean is global over.

    Raises:
      UserError: the shapes disagree.

    >>> print(targeted_entropy_regularization(jnp.array([0.0, 0.5]), target=0.5, coefficient=1.0))
    0.25

    References:
      *Confucius3-Math Technical Report*, arXiv:2506.18330, section 6.1.
    """
    options = {"side": side, "where": where, "reduce": reduce, "axis_name": axis_name}
    return entropy_band(entropy, low=target, high=target, coefficient=coefficient, **options)


def target_side(
    entropy: Array, *, target: float = 0.55, where: Array | None = None, axis_name: AxisName = None
) -> Array:
    """:func:`band_side` of a band that is a point."""
    return band_side(entropy, low=target, high=target, where=where, axis_name=axis_name)


def tsallis_bonus(
    renyi2: Array,
    *,
    coefficient: float = 0.001,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""Bonus for Tsallis entropy of order 2: :math:`-c\,S_2 = -c\,(1 - \sum p^2)`, bounded by 1.

    Args:
      renyi2: ``[..., K, T]`` :math:`-\log\sum p^2` of the policy at the token (nats).
      coefficient: c.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{tsallis_bonus(jnp.log(jnp.array([2.0, 4.0])), coefficient=1.0):.3f}")
    -0.625

    References:
      Lee et al., *Tsallis Reinforcement Learning: A Unified Framework for Maximum Entropy RL*, arXiv:1902.00137.
    """
    check_shapes(renyi2=renyi2, where=where)
    # rounding may leave a certain token's entropy below 0
    positive = ratios.clamp(numerics.clean(numerics.accumulate(renyi2), where), 0.0, jnp.inf)
    return aggregate.finish(coefficient * jnp.expm1(-positive), where, reduce)
