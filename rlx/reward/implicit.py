"""Implicit process reward models: the log-ratio of a policy is a reward, and its running sum one for every step.

Responses on the last axis ``[..., K]`` (K = 2: chosen first; K = 1: single ones), or tokens ``[..., K, T]``.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import aggregate, errors, numerics
from rlx.aggregate import mean
from rlx.preference import compare, links, scores
from rlx.reward import noise_contrastive
from rlx.types import Array, Reduce, check_pairs, check_shapes


def implicit_prm_ce(
    policy_logps: Array,
    reference_logps: Array,
    labels: Array,
    *,
    beta: float = 0.05,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Cross-entropy of an implicit reward model with verdicts on single responses.

    .. math:: \ell = -c\log\sigma(r) - (1-c)\log\sigma(-r),\quad r = \beta\log\frac{\pi(y)}{\pi_{ref}(y)}

    The official code clamps each logarithm at -100; this form has no need to.

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats).
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      labels: ``[..., K]`` verdict c: 1 right, 0 wrong.
      beta: scale of the reward (0.05 in the released models, 0.01 the trainer's default).
      where: ``[..., K]`` real responses.
      reduce: how responses become one number; None gives ``[..., K]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{implicit_prm_ce(jnp.array([-1.0]), jnp.array([-2.0]), jnp.array([1]), beta=1.0):.4f}")
    0.3133

    References:
      Yuan et al., *Free Process Rewards without Process Labels*, arXiv:2412.01981.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, labels=labels, where=where)
    reward = beta * scores.log_ratio(policy_logps, reference_logps)
    return compare.margins(reward, numerics.accumulate(labels), links.logistic, where, reduce)


OBJECTIVES: dict[str, Callable[[Array], Array]] = {
    "dpo": lambda r: links.logistic(scores.margin(r)),
    "nca": lambda r: noise_contrastive.contrast(r, jnp.array([1.0, 0.0], r.dtype)),
    "biased_nca": lambda r: links.logistic(r[..., 0]) + links.logistic(-r[..., 1]),
}
"""Rewards of a pair ``[..., 2]`` -> its loss. InfoNCA of a pair is ``dpo``."""


def implicit_prm_pairwise(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.05,
    objective: str = "dpo",
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""An implicit reward model from pairs of a right and a wrong response, under several objectives.

    .. math:: \text{dpo}: f(r_w - r_l),\quad
       \text{nca}: f(r_w) + \tfrac12 f(-r_w) + \tfrac12 f(-r_l),\quad \text{biased\_nca}: f(r_w) + f(-r_l)

    with :math:`f = -\log\sigma` and :math:`r = \beta\log(\pi/\pi_{ref})`. KTO's form couples the batch:
    :func:`implicit_prm_kto`.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), the right one first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: scale of the reward.
      objective: ``dpo``, ``nca`` or ``biased_nca``.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: unknown objective, or the shapes disagree.

    >>> print(f"{implicit_prm_pairwise(jnp.array([-1.0, -2.0]), jnp.array([-1.0, -1.0]), beta=1.0):.4f}")
    0.3133

    References:
      Yuan et al., *Free Process Rewards without Process Labels*, arXiv:2412.01981.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    if objective not in OBJECTIVES:
        hint = errors.close_matches(objective, OBJECTIVES)
        raise errors.UserError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}.{hint}")
    rewards = numerics.clean(beta * scores.log_ratio(policy_logps, reference_logps), where)
    return aggregate.finish(OBJECTIVES[objective](rewards), compare.pair_where(where), reduce)


def implicit_prm_kto(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.05,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""An implicit reward model from pairs under KTO's paired ("vanilla") form.

    .. math:: \ell = \tfrac12\left[1 - \sigma(r_w - z_l)\right] + \tfrac12\left[1 - \sigma(z_w - r_l)\right],\quad
       z = \max\left(0, \overline{r}\right)

    The reference points are means over the whole batch, one for each side, and the gradient flows through them (in the
    official code too, unlike KTO itself): a batch cannot be split.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), the right one first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: scale of the reward.
      where: ``[..., 2]`` real responses; pairs count whole.
      axis_name: mapped axes the batch is spread over.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> print(implicit_prm_kto(jnp.array([[-1.0, -1.0]]), jnp.array([[-1.0, -1.0]])))
    0.5

    References:
      Yuan et al., *Free Process Rewards without Process Labels*, arXiv:2412.01981.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    whole = compare.pair_where(where)
    reward = beta * scores.log_ratio(policy_logps, reference_logps)
    chosen, rejected = numerics.clean(reward[..., 0], whole), numerics.clean(reward[..., 1], whole)
    means = (numerics.mean(side, where=whole, axis_name=axis_name) for side in (chosen, rejected))
    above_chosen, above_rejected = (jnp.where(z >= 0, z, 0) for z in means)  # at 0 the slope is that from above
    terms = links.sigmoid(chosen - above_rejected) + links.sigmoid(above_chosen - rejected)
    return aggregate.finish(terms / 2, whole, reduce)


class StepRewards(NamedTuple):
    """Rewards of an implicit process reward model.

    Attributes:
      token_rewards: ``[..., T]`` scaled log-ratios, 0 where masked.
      accumulated: ``[..., S]`` their sum up to the end of each step, the value q.
      step_rewards: ``[..., S]`` what the step added; 0 for absent steps.
      response_reward: ``[...]`` the sum over the response.
      minimum: ``[...]`` the smallest reward of a step, by which the paper ranks responses; 0 without steps.
    """

    token_rewards: Array
    accumulated: Array
    step_rewards: Array
    response_reward: Array
    minimum: Array


def implicit_prm_step_rewards(
    logprobs: Array,
    reference_logprobs: Array,
    step_ends: Array,
    *,
    beta: float = 0.05,
    where: Array | None = None,
) -> StepRewards:
    r"""Rewards of the steps of a response under an implicit process reward model; constants.

    .. math:: q_t = \sum_{i\le t}\beta\log\frac{\pi(y_i)}{\pi_{ref}(y_i)},\qquad r_k = q_{e_k} - q_{e_{k-1}}

    Args:
      logprobs: ``[..., T]`` token log-probabilities of the trained model (nats).
      reference_logprobs: ``[..., T]`` the same under the reference; zeros for the variant without one.
      step_ends: ``[..., S]`` int, index on the token axis of the last token of each step, in order; negative entries
        at the end fill up rows with fewer steps.
      beta: scale of the reward; any positive number gives the same ranking.
      where: ``[..., T]`` response tokens.

    Raises:
      UserError: the shapes disagree.

    >>> policy, reference = jnp.array([-1.0, -1.0, -1.0]), jnp.array([-2.0, -2.0, 0.0])
    >>> found = implicit_prm_step_rewards(policy, reference, jnp.array([1, 2, -1]), beta=1.0)
    >>> print(found.step_rewards, found.response_reward, found.minimum)
    [ 2. -1.  0.] 1.0 -1.0

    References:
      Yuan et al., *Free Process Rewards without Process Labels*, arXiv:2412.01981.
    """
    check_shapes(logprobs=logprobs, reference_logprobs=reference_logprobs, where=where)
    rewards = jax.lax.stop_gradient(scores.log_ratio(logprobs, reference_logprobs))
    rewards = numerics.clean(beta * rewards, where)
    present = step_ends >= 0
    ends = jnp.clip(step_ends, 0, rewards.shape[-1] - 1)
    accumulated = numerics.clean(jnp.take_along_axis(jnp.cumsum(rewards, -1), ends, -1), present)
    steps = numerics.clean(jnp.diff(accumulated, prepend=0, axis=-1), present)
    least = jnp.where(present.any(-1), numerics.clean(steps, present, jnp.inf).min(-1), 0)
    return StepRewards(rewards, accumulated, steps, numerics.sum(rewards, -1), least)
