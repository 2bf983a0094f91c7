"""Reference-free losses of a pair that fine-tune on the chosen response: candidates on the last axis ``[..., 2]``.

The fine-tuning term is a mean over all chosen tokens of the batch, the preference term one over pairs. A unit is a
pair, so the former is scaled by the mean length of the batch's chosen responses, a constant of the whole batch.
"""

import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.aggregate import mean
from rlx.preference import compare, labels, links, scores
from rlx.types import Array, Link, Reduce, check_pairs


def mean_chosen_length(lengths: Array, *, where: Array | None = None, axis_name: numerics.AxisName = None) -> Array:
    """Tokens per chosen response over the whole batch, pairs that are there counted: ``[..., 2] -> []``.

    >>> print(mean_chosen_length(jnp.array([[3, 9], [5, 9]])))
    4.0
    """
    return numerics.mean(lengths[..., 0], where=compare.pair_where(where), axis_name=axis_name)


def fine_tuned(
    preference: Array,
    policy_logps: Array,
    lengths: Array,
    *,
    alpha: float,
    mean_length: float | Array | None,
    where: Array | None,
    axis_name: numerics.AxisName,
    reduce: Reduce | None,
) -> Array:
    r"""Adds :math:`-\alpha\log\pi(y_w)/\bar{|y_w|}` to the losses of pairs ``[...]`` and reduces them.

    The mean over pairs of what is added is :math:`\alpha` times the mean over all chosen tokens of the batch, whose
    mean length is computed (:func:`mean_chosen_length`) where it is None.
    """
    if mean_length is None:
        mean_length = mean_chosen_length(lengths, where=where, axis_name=axis_name)
    valid = compare.pair_where(where)
    likelihood = numerics.clean(numerics.accumulate(policy_logps)[..., 0], valid)
    penalty = alpha * numerics.safe_divide(likelihood, jnp.asarray(mean_length))
    return aggregate.finish(preference - penalty, valid, reduce)


def orpo(
    policy_logps: Array,
    lengths: Array,
    *,
    beta: float = 0.1,
    alpha: float = 1.0,
    mean_length: float | Array | None = None,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Odds-ratio preference optimisation: fine-tuning with a penalty on the odds of the rejected response.

    .. math:: L = -\alpha\,\frac{\sum\log\pi(y_w)}{\sum|y_w|} - \beta\,\overline{\log\sigma(o_w - o_l)},\quad
       o = \log\frac{p}{1-p},\quad p = \pi(y)^{1/|y|}

    TRL's fine-tuning term counts the tokens of the prompt too; here it is the response alone.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      lengths: ``[..., 2]`` number of response tokens; an empty response divides by 1.
      beta: weight of the odds ratio, the paper's lambda.
      alpha: weight of the fine-tuning term; 0 leaves the odds ratio alone.
      mean_length: tokens per chosen response of the whole batch; None computes it (:func:`mean_chosen_length`).
      where: ``[..., 2]`` real responses.
      axis_name: mapped axes that the mean length is global over.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> print(f"{orpo(jnp.log(jnp.array([0.5, 0.5])), jnp.array([1, 1]), beta=1.0):.4f}")
    1.3863

    References:
      Hong et al., *ORPO: Monolithic Preference Optimization without Reference Model*, arXiv:2403.07691.
    """
    check_pairs(policy_logps=policy_logps, lengths=lengths, where=where)
    odds = scores.log_odds(scores.per_token(numerics.clean(policy_logps, where), lengths))
    preference = beta * compare.pairs(odds, labels.hard, links.logistic, where, None)
    batch = {"mean_length": mean_length, "where": where, "axis_name": axis_name}
    return fine_tuned(preference, policy_logps, lengths, alpha=alpha, **batch, reduce=reduce)


def cpo(
    policy_logps: Array,
    lengths: Array,
    *,
    beta: float = 0.1,
    alpha: float = 1.0,
    link: Link = links.logistic,
    mean_length: float | Array | None = None,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Contrastive preference optimisation (of translations): reference-free DPO with a fine-tuning term.

    .. math:: L = \overline{f\left(\beta\log\frac{\pi(y_w)}{\pi(y_l)}\right)}
       - \alpha\,\frac{\sum\log\pi(y_w)}{\sum|y_w|},\quad f = -\log\sigma

    With ``link=links.hinge`` (``cpo_hinge``) it is SLiC's calibration with its margin at :math:`1/\beta`.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      lengths: ``[..., 2]`` number of response tokens.
      beta: scale of the margin.
      alpha: weight of the fine-tuning term.
      link: loss f of a margin (:mod:`rlx.preference.links`).
      mean_length: tokens per chosen response of the whole batch; None computes it (:func:`mean_chosen_length`).
      where: ``[..., 2]`` real responses.
      axis_name: mapped axes that the mean length is global over.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> print(f"{cpo(jnp.array([-1.0, -2.0]), jnp.array([2, 2]), beta=1.0):.4f}")
    0.8133

    References:
      Xu et al., *Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine
      Translation*, arXiv:2401.08417.
    """
    check_pairs(policy_logps=policy_logps, lengths=lengths, where=where)
    preference = compare.pairs(beta * numerics.accumulate(policy_logps), labels.hard, link, where, None)
    batch = {"mean_length": mean_length, "where": where, "axis_name": axis_name}
    return fine_tuned(preference, policy_logps, lengths, alpha=alpha, **batch, reduce=reduce)
