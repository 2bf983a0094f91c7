"""Losses of segments: contrastive preference learning, and step-level DPO of responses that share a beginning.

Tokens, or the actions of a segment, on the last axis: ``[..., K, T]``; ``where`` marks the real ones. A unit is a pair
(a list for :func:`cpl_dense`); a segment without tokens scores 0, a pair without any is left out.
"""

import jax
import jax.numpy as jnp

from rlx import aggregate, errors, numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links, scores, token_scores
from rlx.types import Array, Link, Reduce, check_shapes


def units_per_token(logprobs: Array, *, where: Array | None = None, axis_name: numerics.AxisName = None) -> Array:
    """Units (pairs or lists) of the batch for each of its tokens: what turns a sum over tokens into a mean over units.

    >>> print(units_per_token(jnp.zeros((3, 2, 4))))
    0.125
    """
    rows = jnp.ones(logprobs.shape[:-2]) if where is None else where.any((-2, -1))
    tokens = numerics.count(where, logprobs, axis_name=axis_name)
    return numerics.safe_divide(numerics.psum(rows.sum().astype(tokens.dtype), axis_name), tokens)


def cloning(logprobs: Array, scale: Array | None, where: Array | None) -> Array:
    """Negative log-likelihood of all segments of a unit: its mean over units is the mean over tokens of the batch."""
    scale = units_per_token(logprobs, where=where) if scale is None else scale
    return -scale * numerics.sum(logprobs, (-2, -1), where=where)


def check_bias(bias: float) -> None:
    """Raises a UserError for a bias outside (0, 1]; traced values pass."""
    if isinstance(bias, (int, float)) and not 0 < bias <= 1:
        raise errors.UserError(f"bias weighs the segment that lost and must be in (0, 1], got {bias}.")


def cpl(
    logprobs: Array,
    preference_probs: Array | None = None,
    *,
    alpha: float = 0.1,
    bias: float = 1.0,
    bc_coeff: float = 0.0,
    scale: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Contrastive preference learning: the sum of log-probabilities is the advantage of a segment.

    .. math:: \ell = -q \log\sigma(s_1 - \lambda s_2) - (1-q) \log\sigma(s_2 - \lambda s_1)
       - c\,\overline{\log\pi},\quad s = \alpha \sum_t \log\pi(a_t \mid s_t)

    A bias :math:`\lambda < 1` is conservative: it prefers segments that are likely to begin with. The last term is
    behaviour cloning, a mean over all tokens of the batch.

    Args:
      logprobs: ``[..., 2, T]`` log-probabilities of tokens or actions (nats), or :math:`-\|a - \mu\|^2` for a
        deterministic policy; the preferred segment first.
      preference_probs: ``[...]`` probability q that the first segment is the better one, 1/2 for a tie; 1 without.
      alpha: temperature of the advantages (0.1 in the paper's experiments).
      bias: :math:`\lambda` in (0, 1]; the paper's experiments use 0.5 to 1.
      bc_coeff: weight c of behaviour cloning.
      scale: pairs per token of the global batch (:func:`units_per_token`), computed from these arrays by default.
      where: ``[..., 2, T]`` real tokens or steps.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: bias is outside (0, 1], the shapes disagree, or there are not two segments.

    >>> print(f"{cpl(jnp.array([[-1.0, -1.0], [-2.0, -1.0]]), alpha=1.0):.4f}")
    0.3133

    References:
      Hejna et al., *Contrastive Preference Learning: Learning from Human Feedback without RL*, arXiv:2310.13639.
    """
    token_scores.check_token_pairs("cpl", logprobs=logprobs, where=where)
    check_bias(bias)
    valid = token_scores.pair_where(where)
    advantage = alpha * numerics.sum(logprobs, -1, where=where)
    first, second = (advantage[..., i] - bias * advantage[..., 1 - i] for i in (0, 1))
    q = labels.hard if preference_probs is None else numerics.clean(labels.soft(preference_probs), valid)
    losses = q * links.logistic(first) + (1 - q) * links.logistic(second)
    return aggregate.finish(losses + bc_coeff * cloning(logprobs, scale, where), valid, reduce)


def ordered(score: Array, where: Array | None = None) -> Array:
    """Entry i, j: candidate i ranks above candidate j; of equal scores the later one: ``[..., K] -> [..., K, K]``.

    >>> print(ordered(jnp.array([1.0, 0.0, 1.0]))[2])
    [ True  True False]
    """
    where = jnp.ones(score.shape, bool) if where is None else where
    score = numerics.clean(jax.lax.stop_gradient(score), where)
    mine, other = score[..., :, None], score[..., None, :]
    above = (mine > other) | ((mine == other) & jnp.tri(score.shape[-1], k=-1, dtype=bool))
    return above & where[..., :, None] & where[..., None, :]


def cpl_dense(
    logprobs: Array,
    scores: Array,
    *,
    alpha: float = 0.1,
    bias: float = 1.0,
    bc_coeff: float = 0.0,
    drop_zeros: bool = False,
    scale: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Contrastive preference learning from scored segments: all pairs of a list, the higher score preferred.

    .. math:: \ell = \operatorname{mean}_{r_i > r_j} -\log\sigma(s_i - \lambda s_j) - c\,\overline{\log\pi},\quad
       s = \alpha \sum_t \log\pi(a_t \mid s_t)

    Args:
      logprobs: ``[..., K, T]`` log-probabilities of tokens or actions (nats).
      scores: ``[..., K]`` scores r of the segments; of equal ones the later segment counts as the better.
      alpha: temperature of the advantages.
      bias: :math:`\lambda` in (0, 1].
      bc_coeff: weight c of behaviour cloning, a mean over all tokens of the batch.
      drop_zeros: leave pairs whose loss rounds to 0 out of the mean over pairs, as the authors' code does: which ones,
        depends on the precision.
      scale: lists per token of the global batch (:func:`units_per_token`), computed from these arrays by default.
      where: ``[..., K, T]`` real tokens or steps; a segment without any is not in the list.
      reduce: how lists become one number; None gives ``[...]``.

    Raises:
      UserError: bias is outside (0, 1], or the shapes disagree.

    >>> print(f"{cpl_dense(jnp.array([[-1.0], [-2.0]]), jnp.array([5.0, 3.0]), alpha=1.0):.4f}")
    0.3133

    References:
      Hejna et al., arXiv:2310.13639.
    """
    check_shapes(logprobs=logprobs, where=where)
    check_shapes(**{"scores": scores, "logprobs without their last axis": logprobs[..., 0]})
    check_bias(bias)
    advantage = alpha * numerics.sum(logprobs, -1, where=where)
    margin = advantage[..., :, None] - bias * advantage[..., None, :]
    counted = ordered(scores, None if where is None else where.any(-1))
    if drop_zeros:
        counted &= 1 + jnp.exp(-margin) != 1
    losses = numerics.mean(links.logistic(margin), (-2, -1), where=counted)
    valid = token_scores.pair_where(where)
    return aggregate.finish(losses + bc_coeff * cloning(logprobs, scale, where), valid, reduce)


def after_divergence(tokens: Array, where: Array | None = None) -> Array:
    """Tokens from the first one on in which the two responses differ: ``[..., 2, T]`` bool.

    Responses are compared token by token from their own first ones, on whichever side the padding is.

    >>> print(after_divergence(jnp.array([[5, 6, 7, 8], [5, 9, 7, 8]]))[0])
    [False  True  True  True]
    """
    where = jnp.ones(tokens.shape, bool) if where is None else where
    order = jnp.argsort(~where, axis=-1, stable=True)  # responses moved to the left, so that they are aligned
    tokens, real = jnp.take_along_axis(tokens, order, -1), jnp.take_along_axis(where, order, -1)
    same = (tokens[..., 0, :] == tokens[..., 1, :]) & real.all(-2)
    shared = jnp.cumprod(same, -1).sum(-1)[..., None, None]
    return where & (token_scores.positions(tokens, where) > shared)


def visit_smoothing(step_values: Array) -> Array:
    r"""Label smoothing from what a search thinks of two steps: :math:`\min(1 - 1/(1 + v_l/\max(1, v_w)), 1/2)`.

    With visit counts it is the paper's :math:`1/(N_w/N_l + 1)`. Values below 0 count as 0.

    >>> print(visit_smoothing(jnp.array([3.0, 1.0])))
    0.25
    """
    chosen, rejected = step_values[..., 0], jnp.maximum(step_values[..., 1], 0)
    ratio = jax.lax.stop_gradient(rejected / jnp.maximum(1, chosen))
    return jnp.minimum(1 - 1 / (1 + ratio), 0.5)


def mcts_dpo(
    logprobs: Array,
    reference_logprobs: Array,
    tokens: Array,
    step_values: Array | None = None,
    *,
    beta: float = 0.1,
    length_penalty: float = 0.0,
    link: Link = links.logistic,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Step-level DPO of a tree search: two steps after a shared beginning are compared from where they differ.

    .. math:: \ell = (1-\epsilon) f(\beta m) + \epsilon f(-\beta m),\quad
       m = \frac{d_w}{n_w^p} - \frac{d_l}{n_l^p},\quad d = \sum_{t \ge t^*} \log\frac{\pi(y_t)}{\pi_{ref}(y_t)}

    with t* the first token in which the responses differ, n the number of tokens from there on, and
    :math:`\epsilon` of :func:`visit_smoothing`.

    Args:
      logprobs: ``[..., 2, T]`` token log-probabilities under the policy (nats), chosen first.
      reference_logprobs: ``[..., 2, T]`` the same under the reference policy; a constant.
      tokens: ``[..., 2, T]`` int tokens of the responses.
      step_values: ``[..., 2]`` search values or visit counts of the two steps, for the conservative form, which smooths
        the label by how close they are; without them the label is hard.
      beta: strength of the KL regularisation.
      length_penalty: the exponent p; 0 compares sums.
      link: loss f of a margin; ``links.squared(1/2)`` gives IPO.
      where: ``[..., 2, T]`` response tokens; the shared beginning may be in it or not.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or there are not two candidates.

    >>> tokens, policy = jnp.array([[5, 6], [5, 7]]), jnp.array([[-9.0, -1.0], [-1.0, -2.0]])
    >>> print(f"{mcts_dpo(policy, jnp.full((2, 2), -1.0), tokens, beta=1.0):.4f}")
    0.3133

    References:
      Xie et al., *Monte Carlo Tree Search Boosts Reasoning via Iterative Preference Learning*, arXiv:2405.00451.
    """
    arrays = {"logprobs": logprobs, "reference_logprobs": reference_logprobs, "tokens": tokens, "where": where}
    token_scores.check_token_pairs("mcts_dpo", **arrays)
    later = after_divergence(tokens, where)
    score = numerics.sum(scores.log_ratio(logprobs, reference_logprobs), -1, where=later)
    count = jnp.maximum(token_scores.token_count(logprobs, later), 1)
    label = labels.hard if step_values is None else 1 - visit_smoothing(numerics.accumulate(step_values))
    margin = beta * scores.margin(score / count**length_penalty)
    return compare.margins(margin, label, link, token_scores.pair_where(where), reduce)
