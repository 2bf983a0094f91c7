"""DPO with a second source of signal: samples of the policy, a rationale, several sets of pairs.

Candidates on the last axis ``[..., 2]``, chosen first; ``where [..., 2]`` marks real responses; ``reduce=None`` gives
one value per pair ``[...]``, 0 where masked.
"""

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.aggregate import mean
from rlx.preference import compare, links, pairwise, scores
from rlx.types import Array, Link, Reduce, check_pairs, check_shapes


def hypo(
    policy_logps: Array,
    reference_logps: Array,
    policy_online_logps: Array,
    reference_online_logps: Array,
    *,
    beta: float = 0.1,
    kl_coef: float = 1e-4,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Hybrid preference optimisation: DPO on the data, a reverse KL on samples of the policy.

    .. math:: \ell = -\log\sigma(\beta m) + \lambda\,\frac1K\sum_i \log\pi(y_i)\;
       \overline{\log\frac{\pi(y_i)}{\pi_{ref}(y_i)}},\quad y_i \sim \pi

    The overline is a stop-gradient. Only the gradient of the second term means something: it is the score-function
    estimate of that of :math:`\mathrm{KL}(\pi\,\|\,\pi_{ref})`.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      policy_online_logps: ``[..., K]`` those of K responses sampled from the current policy.
      reference_online_logps: ``[..., K]`` the same under the reference policy; a constant.
      beta: strength of DPO's regularisation.
      kl_coef: weight lambda of the KL.
      where: ``[..., 2]`` real responses; a pair that does not count takes its samples along.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis of a pair is not 2.

    >>> pair, online = jnp.array([-1.0, -1.0]), jnp.array([-3.0])
    >>> print(f"{hypo(pair, pair, online, online - 1, kl_coef=0.1):.4f}")
    0.3931

    References:
      Song et al., *The Importance of Online Data: Understanding Preference Fine-tuning via Coverage*, arXiv:2406.01462.
    """
    check_shapes(policy_online_logps=policy_online_logps, reference_online_logps=reference_online_logps)
    preference = pairwise.dpo(policy_logps, reference_logps, beta=beta, where=where, reduce=None)
    check_shapes(**{"policy_online_logps without its last axis": policy_online_logps[..., 0], "the pairs": preference})
    valid = compare.pair_where(where, keepdims=True)
    online = numerics.accumulate(policy_online_logps)
    drift = scores.log_ratio(jax.lax.stop_gradient(online), reference_online_logps)
    penalty = numerics.mean(numerics.clean(online, valid) * numerics.clean(drift, valid), -1)
    return aggregate.finish(preference + kl_coef * penalty, compare.pair_where(where), reduce)


def rationale_dpo(
    policy_logps: Array,
    reference_logps: Array,
    rationale_logps: Array,
    *,
    beta: float = 0.1,
    gamma: float = 0.1,
    link: Link = links.logistic,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""DPO that also learns to say why: the likelihood of a rationale, given the prompt and both responses.

    .. math:: \ell = -\log\sigma(\beta m) + f(\gamma\log\pi(z \mid x, y_w, y_l))

    with :math:`f = -\log\sigma` as in the released code; ``link=links.linear`` makes the second term a negative
    log-likelihood, as in the paper's objective. Not the robust DPO of :func:`rlx.rdpo`, though its authors say RDPO.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      rationale_logps: ``[...]`` summed log-probability of the rationale z under the policy.
      beta: strength of the KL regularisation.
      gamma: scale of the rationale's log-probability.
      link: f.
      where: ``[..., 2]`` real responses.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis of a pair is not 2.

    >>> pair = jnp.array([-1.0, -1.0])
    >>> print(f"{rationale_dpo(pair, pair, jnp.array(-1.0), gamma=1.0):.4f}")
    2.0064

    References:
      Just et al., *Data-Centric Human Preference with Rationales for Direct Preference Alignment*, arXiv:2407.14477.
    """
    preference = pairwise.dpo(policy_logps, reference_logps, beta=beta, where=where, reduce=None)
    check_shapes(**{"rationale_logps": rationale_logps, "the pairs": preference})
    valid = compare.pair_where(where)
    said = numerics.clean(numerics.accumulate(rationale_logps), valid)
    return aggregate.finish(preference + link(gamma * said), valid, reduce)


def set_scales(
    policy_logps: Array,
    reference_logps: Array,
    set_ids: Array,
    *,
    beta: float = 0.1,
    num_sets: int = 2,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""What the pairs of each set are scaled by, so that the mean over all pairs is :math:`\sum_k a_k L_k`; constants.

    .. math:: c_k = a_k\,\frac{n}{n_k},\quad a_k = \frac{L_k}{\sum_j L_j},\quad L_k = \frac{1}{n_k}\sum_{i\in k}\ell_i

    over the whole batch: ``[num_sets]``, 0 for a set without pairs.

    >>> print(set_scales(jnp.zeros((3, 2)), jnp.zeros((3, 2)), jnp.array([0, 1, 1])))
    [1.5  0.75]
    """
    loss = pairwise.dpo(policy_logps, reference_logps, beta=beta, where=where, reduce=None)
    check_shapes(**{"set_ids": set_ids, "the pairs": loss})
    member = (jnp.asarray(set_ids)[..., None] == jnp.arange(num_sets)).reshape(-1, num_sets)
    valid = compare.pair_where(where)
    if valid is not None:
        member = member & valid.reshape(-1, 1)
    losses = jnp.broadcast_to(jax.lax.stop_gradient(loss).reshape(-1, 1), member.shape)
    means = numerics.mean(losses, 0, where=member, axis_name=axis_name)
    sizes = numerics.count(member, losses, 0, axis_name=axis_name)
    return numerics.safe_divide(means, means.sum()) * numerics.safe_divide(sizes.sum(), sizes)


def bidedpo_loss_balancing(
    policy_logps: Array,
    reference_logps: Array,
    set_ids: Array,
    *,
    beta: float = 0.1,
    num_sets: int = 2,
    scales: Array | None = None,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""DPO on several sets of pairs, each weighted by its share of the loss: the one that lags behind counts more.

    .. math:: L = \sum_k a_k L_k,\quad a_k = \overline{L_k}\,/\,\sum_j\overline{L_j}

    with :math:`L_k` the mean DPO loss of set k (in BideDPO: text and condition, taken apart) and the overline a
    stop-gradient. A pair is scaled so that the mean over all pairs is L.

    Args:
      policy_logps: ``[..., 2]`` summed response log-probabilities (nats), chosen first.
      reference_logps: ``[..., 2]`` the same under the reference policy; a constant.
      set_ids: ``[...]`` int, the set of each pair, below num_sets.
      beta: strength of the KL regularisation.
      num_sets: how many sets there are.
      scales: ``[num_sets]`` what pairs are scaled by; None computes it from this batch (:func:`set_scales`).
      where: ``[..., 2]`` real responses.
      axis_name: mapped axes that the sets' losses are global over.
      reduce: how pairs become one number; None gives ``[...]``.

    Raises:
      UserError: the shapes disagree or the last axis of a pair is not 2.

    >>> pairs = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> print(f"{bidedpo_loss_balancing(pairs, jnp.zeros((2, 2)), jnp.array([0, 1]), beta=1.0):.4f}")
    1.1207

    References:
      *BideDPO*, arXiv:2511.19268; the formula as quoted by a later paper.
    """
    check_pairs(policy_logps=policy_logps, reference_logps=reference_logps, where=where)
    if scales is None:
        shared = {"beta": beta, "num_sets": num_sets, "where": where, "axis_name": axis_name}
        scales = set_scales(policy_logps, reference_logps, set_ids, **shared)
    loss = pairwise.dpo(policy_logps, reference_logps, beta=beta, where=where, reduce=None)
    scale = jnp.asarray(jax.lax.stop_gradient(scales))[jnp.asarray(set_ids)]
    return aggregate.finish(loss * scale, compare.pair_where(where), reduce)
