"""Losses of each response's own log-ratio rather than of the margin: candidates on the last axis ``[..., 2]``.

Adding a constant to both log-ratios changes these. ``where [..., 2]`` marks real responses, pairs count whole;
``reduce=None`` gives one value per pair ``[...]``, 0 where masked.
"""

import numbers

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics, signals
from rlx.aggregate import mean
from rlx.method import Constants, Coupled, Method, PyTree, stateless
from rlx.preference import compare, links, named, scores
from rlx.reward import noise_contrastive
from rlx.types import Array, Batch, Link, Reduce, check_pairs, check_positive


def mean_reward(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Mean of :math:`\beta d` over all responses, chosen and rejected, of the pairs of the batch; a constant.

    >>> print(mean_reward(jnp.array([[-1.0, -2.0]]), jnp.array([[-2.0, -5.0]]), beta=1.0))
    2.0
    """
    reward = beta * jax.lax.stop_gradient(scores.log_ratio(policy_logps, reference_logps))
    return numerics.mean(reward, where=compare.pair_where(where, keepdims=True), axis_name=axis_name)


def bco_pair(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    delta: float | Array | None = None,
    link: Link = links.logistic,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Binary classifier optimisation of pairs: chosen rewards above a threshold, rejected ones below.

    .. math:: \ell = f(r_w - \delta) + f(\delta - r_l),\quad f = -\log\sigma,\quad
       r = \beta\log\frac{\pi(y)}{\pi_{ref}(y)}

    With :math:`\delta = 0` and ``link=links.sigmoid`` it is ``apo_zero``.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: strength of the KL regularisation.
      delta: the threshold, a constant; None is the mean reward of the batch (:func:`mean_reward`), the value of the
        running mean (:func:`bco_pair_method`) at its first step. TRL from version 0.29 on has 0.
      link: loss f of a margin (:mod:`rlx.preference.links`).
      where: ``[..., 2]`` real responses.
      axis_name: mapped axes that the mean reward is global over.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> print(f"{bco_pair(jnp.array([-1.0, -2.0]), jnp.array([-2.0, -1.0]), beta=1.0):.4f}")
    0.6265

    References:
      Jung et al., *Binary Classifier Optimization for Large Language Model Alignment*, arXiv:2404.04656.
      D'Oosterlinck et al., *Anchored Preference Optimization* (apo_zero), arXiv:2408.06266.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    if delta is None:
        delta = mean_reward(policy_logps, reference_logps, beta=beta, where=where, axis_name=axis_name)
    reward = beta * scores.log_ratio(policy_logps, reference_logps)
    return compare.apart(reward - jax.lax.stop_gradient(delta), link, where, reduce)


def bco_pair_method(
    *, beta: float = 0.1, delta: str | float = "running", axis_name: numerics.AxisName = None
) -> Method:
    """BCO with its state: the threshold is the mean reward of all steps so far, updated before it is used.

    Args:
      beta: strength of the KL regularisation.
      delta: ``running``, ``batch`` (the mean of this batch alone) or a number.
      axis_name: mapped axes the batch is spread over.

    Raises:
      UserError: delta is none of these.

    >>> bco_pair_method(delta="batch").prepare_needs
    ('policy_logps', 'reference_logps')
    """
    if isinstance(delta, numbers.Real):
        return stateless(bco_pair, keywords={"beta": beta, "delta": delta}, axis_name=axis_name)
    running = named.by_name(delta, {"running": True, "batch": False}, "delta (or a number)")
    coupled, signal = {"delta": Coupled(mean_reward)}, signals.running_mean()
    keywords = {"beta": beta}
    lifted = stateless(bco_pair, keywords=keywords, coupled=coupled, coupling="batch", axis_name=axis_name)
    lifted = lifted._replace(hyperparameters={**keywords, "delta": delta})

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        constants, _ = lifted.prepare(batch, params, {}, key)
        threshold, following = signal.update(constants.shared["delta"], state["delta"])
        return Constants({"delta": threshold}, {}), {"delta": following}

    return (
        lifted._replace(init=lambda key, shapes: ({}, {"delta": signal.init()}), prepare=prepare) if running else lifted
    )


def nca_pair(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.01,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Noise-contrastive alignment of pairs: it keeps the chosen response's likelihood from falling.

    .. math:: \ell = f(r_w) + \tfrac12 f(-r_w) + \tfrac12 f(-r_l),\quad f = -\log\sigma,\quad
       r = \beta\log\frac{\pi(y)}{\pi_{ref}(y)}

    :func:`rlx.nca` of two responses whose scores are far apart.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: scale of the implicit reward.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> print(f"{nca_pair(jnp.array([-1.0, -1.0]), jnp.array([-1.0, -1.0])):.4f}")
    1.3863

    References:
      Chen et al., *Noise Contrastive Alignment of Language Models with Explicit Rewards*, arXiv:2402.05369.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    reward = beta * scores.log_ratio(policy_logps, reference_logps)
    loss = noise_contrastive.contrast(reward, jnp.array([1.0, 0.0], reward.dtype), where)
    return aggregate.finish(loss, compare.pair_where(where), reduce)


def sppo_hard(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.001,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Self-play preference optimisation with hard labels: each log-ratio is asked to be its own number.

    .. math:: \ell = \left(d_w - \frac{1}{2\beta}\right)^2 + \left(d_l + \frac{1}{2\beta}\right)^2,\quad
       d = \log\frac{\pi(y)}{\pi_t(y)}

    Twice :func:`rlx.sppo` of certain wins.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the policy of the previous iteration; a constant.
      beta: inverse of the paper's eta, about 1e-3 there, above 0.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: beta is not above 0, the shapes disagree or the last axis is not 2.

    >>> print(sppo_hard(jnp.array([1.0, -1.0]), jnp.zeros(2), beta=0.25))
    2.0

    References:
      Wu et al., *Self-Play Preference Optimization for Language Model Alignment*, arXiv:2405.00675.
    """
    check_positive(beta=beta)
    keywords = {"beta": 1.0, "delta": 0.0, "link": links.squared(1 / (2 * beta))}
    return bco_pair(policy_logps, reference_logps, **keywords, where=where, reduce=reduce)


def apo_down(
    policy_logps: Array,
    reference_logps: Array,
    *,
    beta: float = 0.1,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Anchored preference optimisation where the model is better than the chosen responses: both go down.

    .. math:: \ell = \sigma(\beta d_w) + 1 - \sigma(\beta(d_w - d_l)),\quad d = \log\frac{\pi(y)}{\pi_{ref}(y)}

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      beta: strength of the KL regularisation.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis is not 2.

    >>> print(apo_down(jnp.array([-1.0, -1.0]), jnp.array([-1.0, -1.0])))
    1.0

    References:
      D'Oosterlinck et al., *Anchored Preference Optimization and Contrastive Revisions*, arXiv:2408.06266.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    reward = numerics.clean(beta * scores.log_ratio(policy_logps, reference_logps), where)
    loss = links.sigmoid(-reward[..., 0]) + links.sigmoid(scores.margin(reward))
    return aggregate.finish(loss, compare.pair_where(where), reduce)
