"""The policy-gradient loss of which nearly all published ones are configurations: :func:`policy_loss`.

Tokens stand on the last axis ``[..., K, T]``; leading axes are the batch.
"""

import jax.numpy as jnp

from rlx import aggregate, errors, numerics
from rlx.policy import ratios, regularize, surrogates
from rlx.policy.weights import constant, weigh
from rlx.types import Array, Ratio, Reduce, Surrogate, check_shapes

clip = surrogates.clip()


def policy_loss(
    logprobs: Array,
    old_logprobs: Array | None,
    advantages: Array,
    weights: Array | None = None,
    reference_logprobs: Array | None = None,
    entropy: Array | None = None,
    *,
    ratio: Ratio = ratios.token,
    surrogate: Surrogate = clip,
    keep: Array | None = None,
    beta: float = 0.0,
    estimator: str | regularize.Estimator = "k3",
    correct_kl: bool = False,
    entropy_coefficient: float = 0.0,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""A policy-gradient loss from its parts.

    .. math:: \ell_t = w_t\,k_t\,L(r_t, A_t, \log\pi_t)
       + \beta\,\mathrm{kl}(\log\pi_t - \log\pi_{ref,t})\,[r_t] - c\,H_t

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy, a constant; None: the policy itself.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` constants w; None is 1.
      reference_logprobs: ``[..., K, T]`` under the reference policy, a constant; needed where beta is not 0.
      entropy: ``[..., K, T]`` of the policy, differentiable; needed where ``entropy_coefficient`` is not 0.
      ratio: r (:mod:`rlx.policy.ratios`).
      surrogate: L (:mod:`rlx.policy.surrogates`).
      keep: ``[..., K, T]`` bool, k: tokens without it lose their policy term and still count in the reduction.
      beta: strength of the KL penalty.
      estimator: of the KL, by name or itself (:mod:`rlx.policy.regularize`).
      correct_kl: multiply it by the ratio, which corrects for tokens of the old policy (TRL).
      entropy_coefficient: c.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree, or beta or c asks for an array that is not there.

    >>> loss = policy_loss(jnp.array([[-1.0, -2.0]]), jnp.array([[-2.0, -2.0]]), jnp.array([[1.0]]))
    >>> print(f"{loss:.1f}")
    -1.1
    """
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, weights=weights, where=where)
    fixed, taken = constant(advantages, where), numerics.clean(numerics.accumulate(logprobs), where)
    r = ratio(logprobs, logprobs if old_logprobs is None else old_logprobs, fixed, where=where)
    loss = weigh(surrogate(r, fixed, taken), weights, where)
    loss = loss if keep is None else jnp.where(keep, loss, 0)
    if beta:
        d = ratios.log_ratio(logprobs, given("beta", reference_logprobs=reference_logprobs), where=where)
        kl = regularize.check_use(regularize.by_name(estimator), "loss").estimate(d)
        loss = loss + beta * (kl * r if correct_kl else kl)
    if entropy_coefficient:
        loss = loss - entropy_coefficient * numerics.clean(given("entropy_coefficient", entropy=entropy), where)
    return aggregate.finish(loss, where, reduce)


def given(keyword: str, **array: Array | None) -> Array:
    """The array, or a UserError that says which keyword asks for it."""
    ((name, value),) = array.items()
    if value is None:
        raise errors.UserError(f"{keyword} is not 0, so the loss needs {name}: pass it, or set {keyword}=0.")
    return value
