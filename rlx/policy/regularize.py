r"""Estimators of KL(policy || reference) from sampled tokens, each with the uses it is right for.

With :math:`d = \log\pi(y) - \log\pi_{ref}(y)` of a token sampled from the policy, k1 = d and k3 = e^-d - 1 + d estimate
the *value* without bias. Differentiating is another matter: the gradient of k1 has mean 0, that of k2 = d^2/2 is the
gradient of KL(policy || reference), that of k3 is the gradient of KL(reference || policy).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.policy import ratios
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes

USES = ("value", "reward", "loss")
"""A number to report; a constant taken off the reward; a term of the loss that is differentiated."""


class Estimator(NamedTuple):
    """A function of the log-ratio d, and what it is good for.

    Attributes:
      name: what a config calls it.
      estimate: d ``[...]`` -> estimate ``[...]``, differentiable whatever the declared uses.
      uses: use (:data:`USES`) -> what it is there, in expectation over tokens of the policy.
      warning: why the other uses are refused, and what to take.
    """

    name: str
    estimate: Callable[[Array], Array]
    uses: Mapping[str, str]
    warning: str = ""

    def __repr__(self) -> str:
        return self.name


def low_variance(bound: float = 20.0, maximum: float = 10.0) -> Estimator:
    r"""k3: :math:`e^{-d} - 1 + d`, never negative, with d clamped to +-bound and the result to +-maximum.

    The defaults are verl's; TRL clamps nothing (``low_variance(inf, inf)``). The gradient is 0 beyond a clamp.
    """

    def estimate(d: Array) -> Array:
        d = ratios.clamp(d, -bound, bound)
        return ratios.clamp(jnp.expm1(-d) + d, -maximum, maximum)

    return Estimator(
        "k3",
        estimate,
        {"value": "KL(policy || reference)", "loss": "KL(reference || policy)"},
        "in the reward k3 pulls with the gradient of KL(policy || reference) - KL(reference || policy): use 'k1'",
    )


def straight_through(estimator: Estimator) -> Estimator:
    """The value of an estimator with the gradient of k2: as a loss, the gradient of KL(policy || reference)."""

    def estimate(d: Array) -> Array:
        square = k2.estimate(d)
        return jax.lax.stop_gradient(estimator.estimate(d)) + (square - jax.lax.stop_gradient(square))

    uses = dict(estimator.uses) | {"loss": "KL(policy || reference)"}
    return Estimator(f"{estimator.name}+", estimate, uses, estimator.warning)


k1 = Estimator(
    "k1",
    lambda d: d,
    {"value": "KL(policy || reference)", "reward": "KL(policy || reference)"},
    "as a differentiable loss the gradient of k1 is that of log pi, whose mean is 0: it adds noise and no penalty. "
    "Use 'k2' or 'k1+' (gradient of KL(policy || reference)) or 'k3' (gradient of KL(reference || policy))",
)
"""d: unbiased, of high variance, and negative half of the time."""

absolute = Estimator(
    "abs",
    # a constant sign has slope 0 at d = 0, where jnp.abs has slope 1
    lambda d: d * jax.lax.stop_gradient(jnp.sign(d)),
    {"value": "mean |log-ratio|, which is not a KL", "loss": "total variation sum |policy - reference|"},
    "in the reward |d| does not pull towards the reference: use 'k1'",
)
"""abs(d): KL-Cov's penalty; its gradient is that of the total variation distance."""

k2 = Estimator(
    "k2",
    lambda d: jnp.square(d) / 2,
    {"value": "KL to second order in d", "loss": "KL(policy || reference)"},
    "in the reward k2 does not give the gradient of a KL: use 'k1'",
)
"""d^2/2: a biased value with an unbiased gradient."""

k3 = low_variance()
ESTIMATORS: dict[str, Estimator] = {
    e.name: e for e in (k1, absolute, k2, k3, straight_through(k1), straight_through(k3))
}
_ALIASES = {"kl": "k1", "mse": "k2", "low_var_kl": "k3", "kl+": "k1+", "low_var_kl+": "k3+"}


def by_name(name: str | Estimator) -> Estimator:
    """The estimator a config names: k1, abs, k2, k3, k1+, k3+, or verl's kl, mse, low_var_kl; UserError otherwise.

    >>> by_name("low_var_kl").name
    'k3'
    """
    if isinstance(name, Estimator):
        return name
    known = _ALIASES.get(name, name)
    if known not in ESTIMATORS:
        hint = errors.close_matches(name, [*ESTIMATORS, *_ALIASES])
        raise errors.UserError(f"Unknown KL estimator {name!r}.{hint} Known: {', '.join(ESTIMATORS)}.")
    return ESTIMATORS[known]


def kl_penalty(
    logprobs: Array,
    reference_logprobs: Array,
    *,
    estimator: str | Estimator = "k3",
    use: str = "loss",
    where: Array | None = None,
) -> Array:
    r"""Per-token estimate of KL(policy || reference), for a declared use.

    .. math:: d = \log\pi(y_t) - \log\pi_{ref}(y_t),\quad k_1 = d,\; k_2 = d^2/2,\; k_3 = e^{-d} - 1 + d

    ``k1+`` and ``k3+`` have the value of k1, k3 and the gradient of k2. k3 clamps d to +-20 and itself to +-10.

    Args:
      logprobs: ``[..., T]`` token log-probabilities under the policy (nats).
      reference_logprobs: ``[..., T]`` the same under the reference policy; a constant.
      estimator: a name (:func:`by_name`) or an :class:`Estimator`.
      use: ``loss`` is differentiable; ``reward`` and ``value`` are constants.
      where: ``[..., T]`` real tokens.

    Returns:
      ``[..., T]`` nats, 0 where masked. Reduce it as the loss it is added to.

    Raises:
      UserError: unknown estimator or use, the estimator is wrong for the use, or the shapes disagree.

    >>> print(kl_penalty(jnp.array([-1.0, -2.0]), jnp.array([-1.0, -1.0]), estimator="k2"))
    [0.  0.5]

    References:
      Schulman, *Approximating KL Divergence*, http://joschu.net/blog/kl-approx.html.
    """
    check_shapes(logprobs=logprobs, reference_logprobs=reference_logprobs, where=where)
    estimate = check_use(by_name(estimator), use).estimate
    d = ratios.log_ratio(logprobs, reference_logprobs, where=where)
    return estimate(d) if use == "loss" else jax.lax.stop_gradient(estimate(d))


def kl_in_reward(
    token_rewards: Array,
    old_logprobs: Array,
    reference_logprobs: Array,
    *,
    beta: float = 0.001,
    estimator: str | Estimator = "k1",
    where: Array | None = None,
) -> Array:
    r"""Rewards with the KL to the reference taken off at every token.

    .. math:: r'_t = r_t - \beta\,(\log\pi_{old}(y_t) - \log\pi_{ref}(y_t))

    Args:
      token_rewards: ``[..., T]`` reward given at a token.
      old_logprobs: ``[..., T]`` token log-probabilities under the policy that sampled (nats).
      reference_logprobs: ``[..., T]`` the same under the reference policy.
      beta: price of a nat (verl 0.001).
      estimator: one that is right in a reward (:class:`Estimator`): k1.
      where: ``[..., T]`` real tokens.

    Returns:
      ``[..., T]``, a constant, 0 where masked.

    Raises:
      UserError: unknown estimator, one that is wrong in a reward, or the shapes disagree.

    >>> print(kl_in_reward(jnp.array([0.0, 1.0]), jnp.array([-1.0, -1.0]), jnp.array([-2.0, -1.0]), beta=0.1))
    [-0.1  1. ]

    References:
      Ziegler et al., *Fine-Tuning Language Models from Human Preferences*, arXiv:1909.08593.
    """
    check_shapes(token_rewards=token_rewards, old_logprobs=old_logprobs, where=where)
    penalty = kl_penalty(old_logprobs, reference_logprobs, estimator=estimator, use="reward", where=where)
    return numerics.clean(constant(token_rewards) - beta * penalty, where)


def check_use(estimator: Estimator, use: str) -> Estimator:
    """The estimator, if it is right for the use; a UserError that says why it is not, and what to take."""
    if use not in USES:
        raise errors.UserError(f"Unknown use {use!r}.{errors.close_matches(use, USES)} Known: {', '.join(USES)}.")
    if use not in estimator.uses:
        raise errors.UserError(f"KL estimator {estimator.name!r} cannot be used as a {use}: {estimator.warning}.")
    return estimator
