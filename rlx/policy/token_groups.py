"""Advantages of tokens relative to the group: rewards of steps, and the baseline of every position.

Responses of a prompt stand on the axis K, tokens on the last axis ``[..., K, T]``; leading axes are the batch. All are
constants, 0 where masked.
"""

import jax.numpy as jnp

from rlx import numerics
from rlx.policy import centres
from rlx.policy.advantages import group_normalize
from rlx.policy.returns import reward_to_go
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def grpo_process_advantage(
    token_rewards: Array,
    step_ends: Array,
    *,
    epsilon: float = 1e-6,
    singleton: str = "raw",
    where: Array | None = None,
) -> Array:
    r"""GRPO with process supervision: rewards of steps, normalised over all steps of the group, summed from a token on.

    .. math:: A_t = \sum_{j:\,e_j \ge t} \frac{r_{e_j} - \bar r}{\sigma_r + \epsilon}

    with e the last tokens of the steps of a response, and mean and unbiased deviation over all steps of all responses
    to the prompt.

    Args:
      token_rewards: ``[..., K, T]``; the reward of a step is read at its last token.
      step_ends: ``[..., K, S]`` int, index on the token axis of the last token of each step; negative entries are none.
      epsilon: added to the deviation.
      singleton: of a group with one step in all, as in :func:`~rlx.policy.advantages.grpo_advantage`.
      where: ``[..., K, T]`` real tokens.

    Returns:
      ``[..., K, T]``, 0 where masked.

    Raises:
      UserError: unknown ``singleton``, or the shapes disagree.

    >>> print(grpo_process_advantage(jnp.array([[0.0, 1.0, 3.0]]), jnp.array([[1, 2]]), epsilon=0.0))
    [[0.         0.         0.70710677]]

    References:
      Shao et al., *DeepSeekMath*, arXiv:2402.03300, section 4.1.3.
    """
    check_shapes(token_rewards=token_rewards, where=where, **{"step_ends[..., :1]": jnp.asarray(step_ends)[..., :1]})
    rewards = constant(token_rewards, where)
    ends = (jnp.arange(rewards.shape[-1]) == jnp.asarray(step_ends)[..., None]).any(-2)
    ends = ends if where is None else ends & where
    flat = (*rewards.shape[:-2], -1)
    options = {"epsilon": epsilon, "singleton": singleton, "where": ends.reshape(flat)}
    steps = group_normalize(rewards.reshape(flat), **options).reshape(rewards.shape)
    return numerics.clean(reward_to_go(steps), where)


def optimal_token_baseline_advantage(
    token_rewards: Array,
    old_logprobs: Array,
    renyi2: Array,
    weights: Array | None = None,
    group_where: Array | None = None,
    *,
    handle_zero_tail: bool = False,
    epsilon: float = 1e-8,
    where: Array | None = None,
) -> Array:
    r"""Returns minus the baseline of every position that minimises the variance of the gradient.

    .. math:: A_{i,t} = G_{i,t} - \frac{\sum_j W_{j,t} G_{j,t}}{\sum_j W_{j,t} + \epsilon},\quad
       W_{i,t} = \sum_{s\le t} w_{i,s}^2\Big(1 - 2\pi_{i,s} + \sum_v \pi_{i,s}(v)^2\Big)

    over the responses j of the group that are real at t; the bracket is the squared norm of a token's logit gradient.

    Args:
      token_rewards: ``[..., K, T]`` reward given at a token.
      old_logprobs: ``[..., K, T]`` :math:`\log\pi_{i,s}` of the tokens (nats).
      renyi2: ``[..., K, T]`` :math:`-\log\sum_v\pi_{i,s}(v)^2`.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights w; None is 1.
      group_where: ``[..., K]`` real responses; None: those with a real token. One alone has baseline 0.
      handle_zero_tail: the one longest response has baseline 0 beyond the length of the second longest: there it is
        its own baseline, and its advantage would be 0.
      epsilon: added to the divisor.
      where: ``[..., K, T]`` real tokens.

    Returns:
      ``[..., K, T]``, 0 where masked.

    Raises:
      UserError: the shapes disagree.

    >>> args = jnp.array([[1.0], [0.0]]), jnp.log(jnp.array([[0.5], [0.5]])), jnp.log(jnp.array([[2.0], [2.0]]))
    >>> print(optimal_token_baseline_advantage(*args, epsilon=0.0)[:, 0])
    [ 0.5 -0.5]
    """
    arrays = {"old_logprobs": old_logprobs, "renyi2": renyi2, "weights": weights, "where": where}
    check_shapes(token_rewards=token_rewards, **arrays)
    returns = reward_to_go(token_rewards, where=where)
    # both exponents are at most 0 but for rounding
    chosen, collision = (jnp.exp(jnp.minimum(constant(x, where), 1)) for x in (old_logprobs, -jnp.asarray(renyi2)))
    energy = 1 - 2 * chosen + collision
    energy = energy if weights is None else energy * jnp.square(constant(weights, where, 1.0))
    total = numerics.clean(jnp.cumsum(numerics.clean(energy, where), -1), where)
    norm = numerics.sum(total, -2, where=where, keepdims=True) + epsilon
    baseline = numerics.safe_divide(numerics.sum(total * returns, -2, where=where, keepdims=True), norm)
    lengths = numerics.count(where, returns, -1, keepdims=True)
    members = lengths[..., 0] > 0 if group_where is None else jnp.asarray(group_where)
    baseline = jnp.where(members.sum(-1)[..., None, None] > 1, baseline, 0)
    if handle_zero_tail:
        second = centres.second_best(lengths[..., 0], members)[..., None]
        baseline = jnp.where((lengths > second) & (jnp.arange(returns.shape[-1]) >= second), 0, baseline)
    return numerics.clean(returns - baseline, where)
