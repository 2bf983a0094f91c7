"""A judge that answers in words: its loss at the answer token, and a bounded reward made of its answer."""

import jax.numpy as jnp

from rlx import aggregate, errors, numerics
from rlx.aggregate import mean
from rlx.preference import compare
from rlx.types import Array, Reduce, check_pairs, check_shapes


def onereward_reward_model(
    judge_logits: Array,
    *,
    affirmative_token: int = 1,
    negative_token: int = 0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""OneReward's judge: asked whether the first of two is better, it says yes in one order and no in the other.

    .. math:: \ell = -\tfrac12\left[\log P(y_+ \mid x_w, x_l, q) + \log P(y_- \mid x_l, x_w, q)\right]

    P is over the whole vocabulary. The query q names task and dimension; the same pair may be won in one dimension and
    lost in another, each being a row of its own.

    Args:
      judge_logits: ``[..., 2, V]`` logits at the answer, with the winner presented first, then with the loser first.
      affirmative_token: id of the affirmative answer, the tokenizer's.
      negative_token: id of the negative answer.
      where: ``[..., 2]`` real presentations; a pair counts when both are there.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the axis before the last is not 2, or a token is outside of the vocabulary.

    >>> print(f"{onereward_reward_model(jnp.zeros((2, 4))):.4f}")
    1.3863

    References:
      Gong et al., *OneReward: Unified Mask-Guided Image Generation via Multi-Task Human Preference Learning*,
      arXiv:2508.21066, equation 3.
    """
    size = judge_logits.shape[-1]
    check_pairs(**{"judge_logits of one token": judge_logits[..., 0], "where": where})
    if not 0 <= affirmative_token < size or not 0 <= negative_token < size:
        given = f"affirmative_token {affirmative_token} and negative_token {negative_token}"
        raise errors.UserError(f"{given} must be in [0, {size}), the vocabulary.")
    logits = numerics.clean(judge_logits, None if where is None else where[..., None])
    logs = numerics.log_softmax(logits)
    loss = -(logs[..., 0, affirmative_token] + logs[..., 1, negative_token]) / 2
    return aggregate.finish(loss, compare.pair_where(where), reduce)


def onereward_policy_loss(
    judge_probs: Array, *, reward_bound: float = 1.0, where: Array | None = None, reduce: Reduce | None = mean
) -> Array:
    r"""OneReward's loss of the generator: what the judge's probability lacks to a bound, over the dimensions of a task.

    .. math:: \ell = \frac{1}{|E|}\sum_{e\in E}\max\left(0, \lambda - P(y_+ \mid x_\theta, x_{ref}, q_e)\right)

    It is minimised; beyond the bound, which stops reward hacking, nothing pushes. The paper's bound is not published.

    Args:
      judge_probs: ``[..., K]`` probability that the judge prefers the generated sample, presented first, to that of
        the reference, in each of K dimensions; the gradient flows through it into the sample.
      reward_bound: the bound lambda.
      where: ``[..., K]`` dimensions of the example's task.
      reduce: how examples become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{onereward_policy_loss(jnp.array([0.5, 0.9]), reward_bound=0.8):.2f}")
    0.15

    References:
      Gong et al., *OneReward*, arXiv:2508.21066, equation 5.
    """
    check_shapes(judge_probs=judge_probs, where=where)
    lacking = reward_bound - numerics.clean(numerics.accumulate(judge_probs), where)
    loss = numerics.mean(jnp.where(lacking > 0, lacking, 0), -1, where=where)
    return aggregate.finish(loss, compare.list_where(where), reduce)
