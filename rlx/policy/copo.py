"""Consistency-aware policy optimisation: prompts compared with each other, blended with groups by their agreement.

Responses to a prompt stand on the axis K; ``answers [..., K]`` numbers the final answer of a response. All but the loss
are constants.
"""

import jax
import jax.numpy as jnp

from rlx import aggregate, errors, numerics
from rlx.policy.advantages import grpo_advantage
from rlx.policy.answers import answer_entropy, normalised_entropy
from rlx.policy.clipped import ppo_clip_loss
from rlx.policy.conditional import members
from rlx.policy.weights import constant
from rlx.types import Array, Reduce, check_shapes


def consistency_reward(
    rewards: Array, answers: Array, *, entropy_coefficient: bool = True, where: Array | None = None
) -> Array:
    r"""COPO's reward of a prompt, ``[..., 1]``: :math:`R = \bar r\,(1 - \lambda H),\ \lambda = (1 - 1/n)/\log n`.

    Args:
      rewards: ``[..., K]`` one reward per response.
      answers: ``[..., K]`` int; H is their entropy.
      entropy_coefficient: False leaves the mean reward alone.
      where: ``[..., K]`` real responses.

    >>> print(consistency_reward(jnp.array([1.0, 1.0]), jnp.array([1, 2])))
    [0.5]
    """
    average = numerics.mean(constant(rewards, where), -1, where=where, keepdims=True)
    if not entropy_coefficient:
        return average
    n = jnp.maximum(numerics.count(where, constant(rewards), -1, keepdims=True), 1)
    return average * (1 - (1 - 1 / n) * normalised_entropy(answers, where))


def copo_global_advantage(
    rewards: Array,
    answers: Array,
    *,
    entropy_coefficient: bool = True,
    epsilon: float = 1e-6,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""COPO's advantage of a whole prompt against the other prompts of the batch, the same for all its responses.

    .. math:: A_q = \frac{R_q - \mathrm{mean}\,R}{\mathrm{std}\,R + \epsilon}

    with R the :func:`consistency_reward`. A batch with one prompt has 0.

    Args:
      rewards: ``[..., K]`` one reward per response.
      answers: ``[..., K]`` int: equal for equal answers.
      entropy_coefficient: whether disagreement lowers the reward of a prompt.
      epsilon: added to the unbiased standard deviation.
      where: ``[..., K]`` real responses; a prompt without any does not count.
      axis_name: mapped axes that mean and deviation are global over.

    Returns:
      ``[..., K, 1]``. Masked responses have 0.

    Raises:
      UserError: the shapes disagree.

    >>> print(copo_global_advantage(jnp.array([[1.0], [0.0]]), jnp.array([[1], [1]]), epsilon=0.0)[:, 0, 0])
    [ 0.70710677 -0.70710677]

    References:
      Han et al., *COPO: Consistency-Aware Policy Optimization*, arXiv:2508.04138.
    """
    check_shapes(rewards=rewards, answers=answers, where=where)
    real = jnp.broadcast_to(True if where is None else where, jnp.shape(rewards))
    own = consistency_reward(rewards, answers, entropy_coefficient=entropy_coefficient, where=where)
    options = {"where": real.any(-1, keepdims=True), "axis_name": axis_name}
    centred = own - numerics.mean(own, **options)
    scaled = numerics.safe_divide(centred, numerics.std(own, ddof=1, **options) + epsilon)
    return numerics.clean(jnp.broadcast_to(scaled, real.shape), real)[..., None]


_BLENDS = ("soft", "soft_forced", "forced", "soft_zero", "zero", "global")


def copo_weight(
    rewards: Array,
    answers: Array,
    *,
    k: float = 1.0,
    b: float = 1.0,
    blend: str = "soft_forced",
    where: Array | None = None,
) -> Array:
    r"""COPO's weight of the local advantage of a response against the global one: :math:`\sigma(k(H - b))`.

    Args:
      rewards: ``[..., K]`` one reward per response.
      answers: ``[..., K]`` int: H is their entropy, in bits.
      k: steepness.
      b: entropy of an even blend (bits); the authors' is not known.
      blend: ``soft`` is the weight above; ``soft_forced`` is 0 instead where the local advantage is 0, so that groups
        without contrast learn from the global one alone; ``forced`` only tells these two cases apart (1 or 0);
        ``soft_zero`` and ``zero`` look at the reward instead of the advantage; ``global`` is 0.
      where: ``[..., K]`` real responses.

    Returns:
      ``[..., K, 1]``, 0 where masked.

    Raises:
      UserError: unknown ``blend``, or the shapes disagree.

    >>> print(copo_weight(jnp.array([1.0, 0.0]), jnp.array([1, 2]))[:, 0])
    [0.5 0.5]
    """
    check_shapes(rewards=rewards, answers=answers, where=where)
    if blend not in _BLENDS:
        raise errors.UserError(
            f"blend must be one of {', '.join(_BLENDS)}, got {blend!r}.{errors.close_matches(blend, _BLENDS)}"
        )
    bits = answer_entropy(answers, where=where) / jnp.log(2)
    soft = jax.nn.sigmoid(k * (bits - b)) if blend.startswith("soft") else 1.0
    contrast = grpo_advantage(rewards, where=where)[..., 0] if blend.endswith("forced") else constant(rewards, where)
    gate = {"soft": True, "global": False}.get(blend, contrast != 0)
    return numerics.clean(jnp.broadcast_to(jnp.where(gate, soft, 0.0), contrast.shape), where)[..., None]


def global_of_tokens(
    rewards: Array,
    answers: Array,
    group_where: Array | None = None,
    *,
    entropy_coefficient: bool = True,
    epsilon: float = 1e-6,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    """:func:`copo_global_advantage` with the mask of tokens ``[..., K, T]`` that a batch has."""
    real = members(rewards, where, group_where)
    options = {"entropy_coefficient": entropy_coefficient, "epsilon": epsilon, "axis_name": axis_name}
    return copo_global_advantage(rewards, answers, **options, where=real)


def copo(
    logprobs: Array,
    old_logprobs: Array,
    rewards: Array,
    answers: Array,
    group_where: Array | None = None,
    *,
    k: float = 1.0,
    b: float = 1.0,
    blend: str = "soft_forced",
    entropy_coefficient: bool = True,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
    epsilon: float = 1e-6,
    global_advantages: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""Consistency-aware policy optimisation: PPO's loss of local and of global advantages, blended by agreement.

    .. math:: \ell_t = w_i\,\ell_t(A^{\text{local}}_i) + (1 - w_i)\,\ell_t(A^{\text{global}}_q)

    Where answers agree a group has little contrast, and the prompt as a whole is compared with the other prompts.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      rewards: ``[..., K]`` one reward per response.
      answers: ``[..., K]`` int: equal for equal answers.
      group_where: ``[..., K]`` real responses; None: those with a real token.
      k: steepness of the weight (:func:`copo_weight`).
      b: entropy of an even blend (bits).
      blend: how the weight is made.
      entropy_coefficient: whether disagreement lowers the reward of a prompt.
      clip_low: of the ratio, as in :func:`~rlx.policy.clipped.ppo_clip_loss`.
      clip_high: the same.
      dual_clip: the same.
      epsilon: added to both standard deviations.
      global_advantages: ``[..., K, 1]`` those of :func:`copo_global_advantage`; None: of the prompts given.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: unknown ``blend``, or the shapes disagree.

    >>> logprobs = jnp.log(jnp.array([[[0.5], [0.5]], [[0.5], [0.5]]]))
    >>> args = jnp.array([[1.0, 1.0], [0.0, 0.0]]), jnp.array([[1, 1], [2, 1]])
    >>> print(copo(logprobs, logprobs, *args, reduce=None)[..., 0])
    [[-0.70710576 -0.70710576]
     [ 0.70710576  0.70710576]]

    References:
      Han et al., *COPO: Consistency-Aware Policy Optimization*, arXiv:2508.04138.
    """
    real = members(rewards, where, group_where)
    if global_advantages is None:
        options = {"entropy_coefficient": entropy_coefficient, "epsilon": epsilon, "where": real}
        global_advantages = copo_global_advantage(rewards, answers, **options)
    weight = copo_weight(rewards, answers, k=k, b=b, blend=blend, where=real)
    bounds = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip, "where": where, "reduce": None}
    local = grpo_advantage(rewards, epsilon=epsilon, where=real)
    own = ppo_clip_loss(logprobs, old_logprobs, local, weight, **bounds)
    others = ppo_clip_loss(logprobs, old_logprobs, global_advantages, 1 - weight, **bounds)
    return aggregate.finish(own + others, where, reduce)
