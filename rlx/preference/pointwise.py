"""Losses of one response at a time: fine-tuning on text, and unpaired preferences (K = 1 with a label).

Candidates stand on the last axis ``[..., K]``, each is a unit of its own; ``where [..., K]`` marks real ones.
"""

import jax
import jax.numpy as jnp

from rlx import aggregate, errors, numerics
from rlx.aggregate import mean, token_mean
from rlx.preference import compare, links, scores
from rlx.types import Array, Reduce, check_shapes


def sft(logprobs: Array, *, where: Array | None = None, reduce: Reduce | None = token_mean) -> Array:
    r"""Supervised fine-tuning: negative log-likelihood of the response tokens.

    .. math:: \ell_t = -\log\pi(y_t \mid x, y_{<t})

    Args:
      logprobs: ``[..., T]`` token log-probabilities (nats).
      where: ``[..., T]`` response tokens.
      reduce: how tokens become one number (:mod:`rlx.aggregate`); None gives ``[..., T]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(sft(jnp.array([-1.0, -2.0, -9.0]), where=jnp.array([True, True, False])))
    1.5

    References:
      Ouyang et al., *Training language models to follow instructions with human feedback*, arXiv:2203.02155.
    """
    check_shapes(logprobs=logprobs, where=where)
    return aggregate.finish(-numerics.accumulate(logprobs), where, reduce)


def poft(
    policy_logps: Array,
    lengths: Array,
    ensemble_logps: Array,
    *,
    beta: float = 1.0,
    gamma: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Preference-oriented fine-tuning: the policy is to like a response more than aligned models do.

    .. math:: \ell = -\log\sigma\left(\beta\left[\frac{\log\pi(y)}{|y|}
       - \frac1M\sum_m\frac{\log\pi_m(y)}{|y|_m}\right] + \gamma\right)

    Its gradient is that of fine-tuning, weighted down where the aligned models find the response unlikely.

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats), K = 1 for single responses.
      lengths: ``[..., K]`` number of response tokens; an empty response divides by 1.
      ensemble_logps: ``[..., K, M]`` *mean token* log-probabilities under M aligned models (three in the paper), each
        over the tokens of its own tokenizer; constants.
      beta: scale of the difference.
      gamma: offset.
      where: ``[..., K]`` real responses.
      reduce: how responses become one number; None gives ``[..., K]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(f"{poft(jnp.array([-4.0]), jnp.array([2]), jnp.array([[-2.0, -4.0]])):.4f}")
    0.3133

    References:
      Fan et al., *Preference-Oriented Supervised Fine-Tuning: Favoring Target Model Over Aligned Large Language
      Models*, arXiv:2412.12865.
    """
    check_shapes(policy_logps=policy_logps, lengths=lengths, where=where)
    check_shapes(**{"ensemble_logps without their last axis": ensemble_logps[..., 0], "policy_logps": policy_logps})
    aligned = jax.lax.stop_gradient(numerics.accumulate(ensemble_logps)).mean(-1)
    margin = beta * (scores.per_token(policy_logps, lengths) - aligned) + gamma
    return compare.margins(margin, 1.0, links.logistic, where, reduce)


def kto_reference_point(
    policy_kl_logps: Array,
    reference_kl_logps: Array,
    *,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""KTO's reference point: a KL estimate from prompts paired with the responses of other prompts.

    .. math:: z_0 = \max\left(0, \frac{1}{n}\sum_j \log\frac{\pi(y'_j \mid x_j)}{\pi_{ref}(y'_j \mid x_j)}\right)

    The mean is over the whole batch before the clamp: means of parts of it would give another value. A constant.

    Args:
      policy_kl_logps: ``[..., K]`` summed log-probabilities of mismatched responses (nats).
      reference_kl_logps: ``[..., K]`` the same under the reference policy.
      where: ``[..., K]`` real responses.
      axis_name: mapped axes the batch is spread over.

    Raises:
      UserError: the shapes disagree.

    >>> print(kto_reference_point(jnp.array([[-1.0], [-2.0]]), jnp.array([[-2.0], [-4.0]])))
    1.5

    References:
      Ethayarajh et al., *KTO: Model Alignment as Prospect Theoretic Optimization*, arXiv:2402.01306.
    """
    check_shapes(policy_kl_logps=policy_kl_logps, reference_kl_logps=reference_kl_logps, where=where)
    log_ratio = jax.lax.stop_gradient(scores.log_ratio(policy_kl_logps, reference_kl_logps))
    return jnp.maximum(0, numerics.mean(log_ratio, where=where, axis_name=axis_name))


def kto(
    policy_logps: Array,
    reference_logps: Array,
    labels: Array,
    policy_kl_logps: Array | None = None,
    reference_kl_logps: Array | None = None,
    *,
    beta: float = 0.1,
    lambda_desirable: float = 1.0,
    lambda_undesirable: float = 1.0,
    reference_point: Array | float | None = None,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Kahneman-Tversky optimisation on unpaired responses.

    .. math:: \ell = \lambda_D\,(1 - \sigma(\beta(d - z_0)))\ \text{if desirable, else}\
       \lambda_U\,(1 - \sigma(\beta(z_0 - d))),\quad d = \log\frac{\pi(y)}{\pi_{ref}(y)}

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats), K = 1 for unpaired data.
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      labels: ``[..., K]`` 1 desirable, 0 undesirable.
      policy_kl_logps: ``[..., K]`` those of mismatched responses, for the reference point.
      reference_kl_logps: ``[..., K]`` the same under the reference policy.
      beta: strength of the KL regularisation.
      lambda_desirable: weight of desirable responses; the paper keeps
        :math:`\lambda_D n_D / (\lambda_U n_U)` in [1, 4/3].
      lambda_undesirable: weight of undesirable responses.
      reference_point: :math:`z_0`; None computes it from the batch (:func:`kto_reference_point`).
      where: ``[..., K]`` real responses.
      axis_name: mapped axes the reference point is global over.
      reduce: how responses become one number; None gives ``[..., K]``.

    Raises:
      UserError: neither a reference point nor mismatched log-probabilities, or the shapes disagree.

    >>> policy, reference, labels = jnp.array([[-1.0], [-1.0]]), jnp.array([[-2.0], [-2.0]]), jnp.array([[1], [0]])
    >>> print(kto(policy, reference, labels, beta=1.0, reference_point=1.0, reduce=None))
    [[0.5]
     [0.5]]

    References:
      Ethayarajh et al., *KTO: Model Alignment as Prospect Theoretic Optimization*, arXiv:2402.01306.
    """
    check_shapes(policy_logps=policy_logps, reference_logps=reference_logps, labels=labels, where=where)
    if reference_point is None:
        if policy_kl_logps is None or reference_kl_logps is None:
            raise errors.UserError("kto needs policy_kl_logps and reference_kl_logps, or a reference_point.")
        reference_point = kto_reference_point(policy_kl_logps, reference_kl_logps, where=where, axis_name=axis_name)
    log_ratio = numerics.clean(scores.log_ratio(policy_logps, reference_logps), where)
    label = numerics.clean(numerics.accumulate(labels), where)
    x = beta * (log_ratio - jax.lax.stop_gradient(reference_point))
    loss = label * lambda_desirable * links.sigmoid(x) + (1 - label) * lambda_undesirable * links.sigmoid(-x)
    return aggregate.finish(loss, where, reduce)


def apo_zero_unpaired(
    policy_logps: Array,
    reference_logps: Array,
    labels: Array,
    *,
    beta: float = 0.1,
    lambda_desirable: float = 1.0,
    lambda_undesirable: float = 1.0,
    where: Array | None = None,
    reduce: Reduce | None = mean,
) -> Array:
    r"""Anchored preference optimisation on unpaired responses: KTO with the reference point 0.

    .. math:: \ell = \lambda_D\,(1 - \sigma(\beta d))\ \text{if desirable, else}\ \lambda_U\,\sigma(\beta d)

    Args:
      policy_logps: ``[..., K]`` summed response log-probabilities (nats), K = 1 for unpaired data.
      reference_logps: ``[..., K]`` the same under the reference policy; a constant.
      labels: ``[..., K]`` 1 desirable, 0 undesirable.
      beta: strength of the KL regularisation.
      lambda_desirable: weight of desirable responses.
      lambda_undesirable: weight of undesirable responses.
      where: ``[..., K]`` real responses.
      reduce: how responses become one number; None gives ``[..., K]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(apo_zero_unpaired(jnp.array([-1.0]), jnp.array([-1.0]), jnp.array([1])))
    0.5

    References:
      D'Oosterlinck et al., *Anchored Preference Optimization*, arXiv:2408.06266.
    """
    return kto(
        policy_logps,
        reference_logps,
        labels,
        beta=beta,
        lambda_desirable=lambda_desirable,
        lambda_undesirable=lambda_undesirable,
        reference_point=0.0,
        where=where,
        reduce=reduce,
    )
