"""Policy losses on the log-probability with a constant weight, and SAPO's soft gate: tokens on the last axis.

``where [..., K, T]`` marks real response tokens; ``reduce=None`` gives one value per token, 0 where masked.
"""

from rlx import aggregate
from rlx.policy import ratios, regularize, surrogates
from rlx.policy.objective import policy_loss
from rlx.types import Array, Ratio, Reduce


def sapo_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    reference_logprobs: Array | None = None,
    *,
    tau_positive: float = 1.0,
    tau_negative: float = 1.05,
    ratio: Ratio = ratios.token,
    beta: float = 0.0,
    estimator: str | regularize.Estimator = "k3",
    correct_kl: bool = False,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.sequence_mean,
) -> Array:
    r"""Soft adaptive policy optimisation: a sigmoid gate in the place of PPO's clip.

    .. math:: \ell_t = -w_t A_t \frac4\tau\,\sigma(\tau(r_t - 1)),\quad
       \tau = \tau_+ \text{ where } A_t > 0 \text{ else } \tau_-

    At ratio 1 the gradient is that of the policy gradient.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights w; constants. None is 1.
      reference_logprobs: ``[..., K, T]`` for the KL penalty; a constant.
      tau_positive: tau_+, how fast the gradient fades with the distance of the ratio from 1.
      tau_negative: tau_-.
      ratio: r (:mod:`rlx.policy.ratios`).
      beta: strength of the KL penalty.
      estimator: of that KL.
      correct_kl: multiply the KL by the ratio.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree, or beta is not 0 and there is no reference.

    >>> print(sapo_loss(jnp.array([[-2.0]]), jnp.array([[-2.0]]), jnp.array([[1.0]])))
    -2.0

    References:
      Gao et al., *Soft Adaptive Policy Optimization*, arXiv:2511.20347.
    """
    options = {"ratio": ratio, "surrogate": surrogates.soft(tau_positive, tau_negative)}
    options |= {"beta": beta, "estimator": estimator, "correct_kl": correct_kl}
    arrays = (logprobs, old_logprobs, advantages, weights, reference_logprobs)
    return policy_loss(*arrays, **options, where=where, reduce=reduce)


def cispo_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    reference_logprobs: Array | None = None,
    *,
    clip_low: float = 1.0,
    clip_high: float = 4.0,
    ratio: Ratio = ratios.token,
    beta: float = 0.0,
    estimator: str | regularize.Estimator = "k3",
    correct_kl: bool = False,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""CISPO: REINFORCE with the clipped ratio as a constant weight, so that no token loses its gradient.

    .. math:: \ell_t = -w_t\,\mathrm{sg}[\mathrm{clip}(r_t, 1-l, 1+h)]\,A_t \log\pi(y_t)

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights w; constants. None is 1.
      reference_logprobs: ``[..., K, T]`` for the KL penalty; a constant.
      clip_low: l; 1 is no lower bound, as in the paper.
      clip_high: h; the largest weight is 1 + h (TRL's and ScaleRL's ``epsilon_high`` of 5 is h = 4).
      ratio: r (:mod:`rlx.policy.ratios`).
      beta: strength of the KL penalty.
      estimator: of that KL.
      correct_kl: multiply the KL by the ratio.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree, or beta is not 0 and there is no reference.

    >>> print(cispo_loss(jnp.array([[-1.0]]), jnp.array([[-9.0]]), jnp.array([[1.0]])))
    5.0

    References:
      MiniMax, *MiniMax-M1*, arXiv:2506.13585.
    """
    surrogate = surrogates.cispo(clip_low, clip_high)
    parts = {"ratio": ratio, "surrogate": surrogate, "where": where, "reduce": reduce}
    penalty = {"beta": beta, "estimator": estimator, "correct_kl": correct_kl}
    return policy_loss(logprobs, old_logprobs, advantages, weights, reference_logprobs, **parts, **penalty)


def vespo_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    reference_logprobs: Array | None = None,
    *,
    k_positive: float = 2.0,
    lambda_positive: float = 3.0,
    k_negative: float = 3.0,
    lambda_negative: float = 2.0,
    beta: float = 0.0,
    estimator: str | regularize.Estimator = "k3",
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""VESPO: REINFORCE with a gamma-shaped weight of the ratio of the whole response.

    .. math:: \ell_t = -w_t\,\mathrm{sg}[\rho^k e^{\lambda(1-\rho)}]\,A_t \log\pi(y_t),\quad
       \rho = \mathrm{clip}\Big(\prod_t \frac{\pi(y_t)}{\pi_{old}(y_t)}, 10^{-8}, e^{20}\Big)

    with :math:`(k, \lambda)` by the sign of :math:`A_t`; log-ratios of tokens are clamped to +-20.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights w; constants. None is 1.
      reference_logprobs: ``[..., K, T]`` for the KL penalty; a constant.
      k_positive: k where A is at least 0.
      lambda_positive: lambda there.
      k_negative: k elsewhere.
      lambda_negative: lambda there.
      beta: strength of the KL penalty.
      estimator: of that KL.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree, or beta is not 0 and there is no reference.

    >>> print(vespo_loss(jnp.array([[-2.0]]), jnp.array([[-2.0]]), jnp.array([[1.0]])))
    2.0

    References:
      *VESPO*, as implemented in TRL.
    """
    surrogate = surrogates.vespo(k_positive, lambda_positive, k_negative, lambda_negative)
    options = {"ratio": ratios.bounded_sum, "surrogate": surrogate, "where": where, "reduce": reduce}
    penalty = {"beta": beta, "estimator": estimator}
    return policy_loss(logprobs, old_logprobs, advantages, weights, reference_logprobs, **options, **penalty)


def reinforce_loss(
    logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    *,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""REINFORCE :math:`\ell_t = -w_t A_t \log\pi(y_t)`: GPG's loss, and with rollout weights w off-policy REINFORCE.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights w; constants. None is 1.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(reinforce_loss(jnp.array([[-1.0, -3.0]]), jnp.array([[2.0]])))
    4.0

    References:
      Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning*, 1992.
      Chu et al., *GPG: A Simple and Strong Reinforcement Learning Baseline for Model Reasoning*, arXiv:2504.02546.
    """
    parts = {"ratio": ratios.none, "surrogate": surrogates.reinforce()}
    return policy_loss(logprobs, None, advantages, weights, **parts, where=where, reduce=reduce)


def opmd_loss(
    logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    *,
    tau: float = 1.0,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""Online policy mirror descent, simple form: :math:`\ell_t = -w_t A_t \log\pi(y_t) / (1 + \tau)`.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights w; constants. None is 1.
      tau: strength of the regularisation towards the sampling policy.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(opmd_loss(jnp.array([[-1.0, -3.0]]), jnp.array([[2.0]])))
    2.0

    References:
      Yao et al., *Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm*, arXiv:2509.24203.
    """
    parts = {"ratio": ratios.none, "surrogate": surrogates.opmd(tau)}
    return policy_loss(logprobs, None, advantages, weights, **parts, where=where, reduce=reduce)


def topr_loss(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    weights: Array | None = None,
    *,
    threshold: float = 0.0,
    ratio: Ratio = ratios.sequence_sum,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
) -> Array:
    r"""Tapered off-policy REINFORCE: bad responses fade as the policy leaves them, good ones keep their weight.

    .. math:: \ell_t = -w_t\,\mathrm{sg}[\alpha]\,A_t \log\pi(y_t),\quad
       \alpha = \mathrm{clip}(r, 0, 1) \text{ where } A_t \le \theta \text{ else } 1

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the policy that sampled; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` further weights w; constants. None is 1.
      threshold: theta.
      ratio: r: the paper's is that of the whole response; Trinity-RFT takes :func:`rlx.policy.ratios.token`.
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.

    Raises:
      UserError: the shapes disagree.

    >>> print(topr_loss(jnp.array([[-2.0]]), jnp.array([[-1.0]]), jnp.array([[-1.0]])))
    -0.7357589

    References:
      Le Roux et al., *Tapered Off-Policy REINFORCE*, arXiv:2503.14286.
    """
    parts = {"ratio": ratio, "surrogate": surrogates.topr(threshold)}
    return policy_loss(logprobs, old_logprobs, advantages, weights, **parts, where=where, reduce=reduce)
