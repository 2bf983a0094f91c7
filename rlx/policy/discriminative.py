"""Losses that compare the responses to a prompt with each other: right against wrong, or a regression in the group.

Tokens stand on the last axis, responses to a prompt on the one before: ``[..., K, T]``. The units of DisCO are prompts
``[...]``, those of Reg-GRPO responses ``[..., K]``. A response without tokens is not there; where a group has none, the
unit is 0 and does not count.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlx import aggregate, errors, numerics
from rlx.policy import ratios, regularize
from rlx.policy.weights import constant
from rlx.types import Array, Reduce, check_positive, check_shapes

BOUND = 35.0
"""Bound on |log-ratio|: DisCO has none; the square of the KL is to stay finite in float32."""


def log_likelihood(logprobs: Array, old_logprobs: Array, where: Array | None = None) -> Array:
    """DisCO's log-L score: the mean token log-probability, ``[..., K, T] -> [..., K]``."""
    return numerics.mean(logprobs, -1, where=where)


def likelihood_ratio(logprobs: Array, old_logprobs: Array, where: Array | None = None) -> Array:
    """DisCO's L-ratio score: the mean token ratio to the proximal policy, ``[..., K, T] -> [..., K]``."""
    return numerics.mean(ratios.token(logprobs, old_logprobs, bound=BOUND, where=where), -1, where=where)


SCORES: dict[str, Callable[..., Array]] = {"log_likelihood": log_likelihood, "likelihood_ratio": likelihood_ratio}
Negatives = Callable[[Array, Array, float], Array]


def log_mean_exp(scores: Array, where: Array, tau: float) -> Array:
    r""":math:`\tau \log \frac1n \sum_j e^{s_j/\tau}` over the last axis: the largest for tau near 0, the mean for inf.

    >>> scores, both = jnp.array([0.0, 2.0]), jnp.array([True, True])
    >>> print(log_mean_exp(scores, both, jnp.inf), f"{log_mean_exp(scores, both, 0.01):.2f}")
    1.0 1.99
    """
    if tau == jnp.inf:
        return numerics.mean(scores, -1, where=where)
    some = where.any(-1)
    total = numerics.clean(numerics.logsumexp(scores / tau, -1, where=where), some)
    return tau * (total - jnp.log(jnp.maximum(numerics.count(where, scores, -1), 1)))


def disco_price(
    logprobs: Array,
    old_logprobs: Array,
    *,
    beta: float = 1e3,
    delta: float = 1e-4,
    estimator: str = "k1",
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""What the KL summed over a prompt's tokens costs: :math:`\beta\,[\mathrm{KL} - \delta]_+\, Q / n`, a constant.

    KL is the mean over all n tokens of the Q prompts of the batch. Arguments are those of :func:`disco`.

    >>> print(disco_price(jnp.array([[[-3.0, -1.0]]]), jnp.array([[[-1.0, -1.0]]]), beta=2.0, delta=0.5))
    0.5
    """
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, where=where)
    each = divergence(jax.lax.stop_gradient(logprobs), old_logprobs, estimator, where)
    tokens = numerics.count(where, logprobs, axis_name=axis_name)
    prompts = numerics.count(prompts_of(where, each), each[..., 0, 0], axis_name=axis_name)
    excess = numerics.safe_divide(numerics.sum(each, axis_name=axis_name), tokens) - delta
    return jax.lax.stop_gradient(beta * jnp.maximum(excess, 0) * numerics.safe_divide(prompts, tokens))


def divergence(logprobs: Array, old_logprobs: Array, estimator: str, where: Array | None) -> Array:
    """Estimates of KL(old || policy) at tokens of the old policy, ``[..., K, T]``, 0 where masked."""
    known = {"k1": regularize.k1, "k3": regularize.low_variance(BOUND, jnp.inf)}
    if estimator not in known:
        hint = errors.close_matches(estimator, known)
        raise errors.UserError(f"estimator of KL(old || policy) must be 'k1' or 'k3', got {estimator!r}.{hint}")
    return numerics.clean(known[estimator].estimate(-ratios.log_ratio(logprobs, old_logprobs, where=where)), where)


def prompts_of(where: Array | None, like: Array) -> Array:
    """Prompts ``[...]`` with at least one token."""
    return jnp.broadcast_to(True if where is None else where, like.shape).any((-2, -1))


def disco(
    logprobs: Array,
    old_logprobs: Array,
    correct: Array,
    *,
    score: str | Callable[..., Array] = "log_likelihood",
    tau: float = 10.0,
    negatives: Negatives = log_mean_exp,
    lam: float | None = None,
    max_length: float | None = None,
    beta: float = 1e3,
    delta: float = 1e-4,
    estimator: str = "k1",
    price: Array | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.mean,
) -> Array:
    r"""Discriminative constrained optimisation: right responses above the hardest wrong ones, the KL within a bound.

    .. math:: \mathcal L = -\frac1Q \sum_q \Big[\sum_{i\in +} w_i s_i
       - \tau\log\frac1{|-|}\sum_{j\in -} e^{s_j/\tau}\Big]
       + \mathrm{sg}\big[\beta\,(\mathrm{KL} - \delta)_+\big]\,\mathrm{KL}

    with s the mean token log-probability or ratio, w uniform (DisCO) or :math:`\propto e^{(1 - |y_i|/C)/\lambda}`
    (DRPO), and KL(old || policy) the mean over all tokens of the batch. The last term has the gradient of the squared
    hinge :math:`\frac\beta2 (\mathrm{KL} - \delta)_+^2`. A prompt whose responses are all right or all wrong adds no
    term, but counts in Q.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy, which sampled; a constant.
      correct: ``[..., K]`` 1 for a right response, 0 for a wrong one.
      score: s: ``log_likelihood``, ``likelihood_ratio`` (of :data:`SCORES`), or a function of ``(logprobs,
        old_logprobs, where)``.
      tau: temperature of the wrong responses, of the scale of s: the smaller, the more the hardest counts; ``inf``
        takes their mean (DisCO-b).
      negatives: what the wrong responses count as, ``(scores, where, tau) -> [...]``.
      lam: lambda of DRPO, which prefers short right responses (0.1); None weighs all the same.
      max_length: C, the longest a response may be; None is the size T of the arrays.
      beta: weight of the squared excess of the KL.
      delta: how large the KL may be (nats per token).
      estimator: of KL(old || policy) from tokens of the old policy: ``k1``, or ``k3`` of low variance.
      price: :func:`disco_price` of the whole batch; None computes it from these arrays.
      where: ``[..., K, T]`` response tokens.
      reduce: how prompts become one number; None gives ``[...]``.

    Raises:
      UserError: unknown ``score`` or ``estimator``, ``tau`` or ``lam`` is not above 0, or the shapes disagree.

    >>> logprobs = jnp.log(jnp.array([[[0.8], [0.1]]]))
    >>> print(f"{disco(logprobs, logprobs, jnp.array([[1, 0]])):.4f}")
    -2.0794

    References:
      Li et al., *DisCO: Reinforcing Large Reasoning Models with Discriminative Constrained Optimization*,
      arXiv:2505.12366; Li et al., *DRPO: Efficient Reasoning via Decoupled Reward Policy Optimization*,
      arXiv:2510.04474.
    """
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, where=where)
    check_shapes(correct=correct, **{"logprobs without their last axis": logprobs[..., 0]})
    check_positive(tau=tau, **({} if lam is None else {"lam": lam}))
    if price is None:
        price = disco_price(logprobs, old_logprobs, beta=beta, delta=delta, estimator=estimator, where=where)
    scores = score_of(score)(logprobs, old_logprobs, where)
    lengths = numerics.count(where, logprobs, -1)
    right, wrong = (lengths > 0) & (correct > 0.5), (lengths > 0) & ~(correct > 0.5)
    preference = jnp.zeros_like(lengths) if lam is None else -lengths / (max_length or logprobs.shape[-1]) / lam
    best = numerics.sum(numerics.softmax(preference, where=right) * scores, -1, where=right)
    gap = numerics.clean(best - negatives(scores, wrong, tau), right.any(-1) & wrong.any(-1))
    each = divergence(logprobs, old_logprobs, estimator, where)
    return aggregate.finish(price * numerics.sum(each, (-2, -1)) - gap, prompts_of(where, each), reduce)


def score_of(score: str | Callable[..., Array]) -> Callable[..., Array]:
    """The score a config names."""
    if callable(score):
        return score
    if score not in SCORES:
        hint = errors.close_matches(score, SCORES)
        raise errors.UserError(f"Unknown score {score!r}.{hint} Known: {', '.join(SCORES)}.")
    return SCORES[score]


def standardize(x: Array, *, ddof: int, epsilon: float, where: Array | None) -> Array:
    """``(x - mean) / (std + epsilon)`` over the last axis, differentiated through both; 0 where all are equal."""
    centred = x - numerics.mean(x, -1, where=where, keepdims=True)
    return numerics.clean(centred / (numerics.std(x, -1, where=where, ddof=ddof, keepdims=True) + epsilon), where)


def reg_grpo_loss(
    logprobs: Array,
    old_logprobs: Array,
    rewards: Array,
    *,
    ddof: int = 0,
    epsilon: float = 1e-6,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.mean,
) -> Array:
    r"""Reg-GRPO: regresses the advantage of a response on its log-ratio, both relative to their group.

    .. math:: \ell_i = (z(r)_i - z(\rho)_i)^2,\quad \rho_i = \sum_t \log\frac{\pi(y_{it})}{\pi_{old}(y_{it})},\quad
       z(x)_i = \frac{x_i - \bar x}{\sigma_x + \epsilon}

    Where all log-ratios of a group are equal (the policy is the old one) z(rho) is 0 and its gradient that of
    :math:`(\rho_i - \bar\rho)/\epsilon`: the direction of the policy gradient, the length of 1/epsilon. Clip gradients.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      rewards: ``[..., K]`` rewards of the responses; constants.
      ddof: 0 for the population's standard deviation, 1 for the unbiased one; the paper does not say which.
      epsilon: added to both standard deviations; the paper gives none.
      where: ``[..., K, T]`` response tokens.
      reduce: how responses become one number; None gives ``[..., K]``.

    Raises:
      UserError: the shapes disagree.

    >>> loss = reg_grpo_loss(jnp.array([[-1.0], [-3.0]]), jnp.array([[-2.0], [-2.0]]), jnp.array([5.0, 1.0]))
    >>> print(f"{loss:.4f}")
    0.0000

    References:
      Park et al., *DeepVideo-R1: Video Reinforcement Fine-Tuning via Difficulty-aware Regressive GRPO*,
      arXiv:2506.07464.
    """
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, where=where)
    check_shapes(rewards=rewards, **{"logprobs without their last axis": logprobs[..., 0]})
    moved = numerics.sum(ratios.log_ratio(logprobs, old_logprobs, where=where), -1)
    real = jnp.broadcast_to(True if where is None else where.any(-1), moved.shape)
    wanted, found = (standardize(x, ddof=ddof, epsilon=epsilon, where=real) for x in (constant(rewards, real), moved))
    return aggregate.finish(jnp.square(wanted - found), real, reduce)
