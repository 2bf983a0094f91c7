"""HAPO: clip, advantages and sampling temperature that adapt to the entropy of every token.

Tokens stand on the last axis ``[..., K, T]``; leading axes are the batch, one population for the statistics of the
log-entropy. With ``axis_name`` (pmap, shard_map) that population is the tokens of all shards.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics
from rlx.method import Constants, Method, PyTree, Shapes, stateless, take
from rlx.policy import ratios, surrogates
from rlx.policy.weights import constant, largest, smallest, weigh
from rlx.types import Array, Batch, Reduce, check_shapes

TINY = 1e-8
"""Entropies are at least this before the logarithm; so are the squared deviation and the largest deviations."""


class LogEntropy(NamedTuple):
    """Statistics of the log-entropy of a batch.

    Attributes:
      centre: the pivot quantile.
      spread: root of the mean squared distance to it.
      highest: largest standardised distance above it, at least 1e-8.
      lowest: that below it, at most -1e-8.
    """

    centre: Array
    spread: Array
    highest: Array
    lowest: Array


def log_entropy(
    entropy: Array, *, pivot: float = 0.8, where: Array | None = None, axis_name: numerics.AxisName = None
) -> LogEntropy:
    """Statistics of the log-entropy over all tokens of the batch; the quantile is the value of the nearest rank.

    >>> print(log_entropy(jnp.array([1.0, 1.0, 1.0])).highest)
    1e-08
    """
    logs = jnp.log(jnp.maximum(constant(entropy, where, 1.0), TINY))
    over = {"where": where, "axis_name": axis_name}
    centre = numerics.quantile(logs, pivot, nearest=True, **over)
    spread = jnp.sqrt(jnp.maximum(numerics.mean(jnp.square(logs - centre), **over), TINY))
    scaled = (logs - centre) / spread
    return LogEntropy(
        centre, spread, jnp.maximum(largest(scaled, **over), TINY), jnp.minimum(smallest(scaled, **over), -TINY)
    )


def relative_entropy(
    entropy: Array,
    statistics: LogEntropy,
    *,
    signed: bool = True,
    smallest_entropy: float = TINY,
    epsilon: float = 0.0,
    where: Array | None = None,
) -> Array:
    r"""Place of every token's log-entropy, 1 for the highest: :math:`\hat h = h/\max h` above the pivot.

    Below it, ``signed`` gives :math:`h/|\min h| \in [-1, 0]`; as released (False) it is :math:`h/\min h \in [0, 1]`.

    >>> entropy = jnp.array([1.0, 2.0, 4.0])
    >>> print(relative_entropy(entropy, log_entropy(entropy, pivot=0.5)))
    [-1.  0.  1.]
    """
    logs = jnp.log(jnp.maximum(constant(entropy, where, 1.0), smallest_entropy))
    h = (logs - statistics.centre) / (statistics.spread + epsilon)
    below = -statistics.lowest if signed else statistics.lowest
    return numerics.clean(jnp.where(h > 0, h / statistics.highest, h / below), where)


def adaptive_widths(
    h: Array, *, clip_low: float = 0.2, clip_high: float = 0.2, alpha: float = 1.0
) -> tuple[Array, Array]:
    r"""Clip widths: :math:`h_{ig}(1+\alpha\hat h)` above the pivot, :math:`l_{ow}(1+\alpha|\hat h|)` below it.

    >>> print(adaptive_widths(jnp.array([0.5, -1.0])))
    (Array([0.2, 0.4], dtype=float32), Array([0.3, 0.2], dtype=float32))
    """
    low = jnp.where(h > 0, clip_low, clip_low * (1 - alpha * h))
    return low, jnp.where(h > 0, clip_high * (1 + alpha * h), clip_high)


def redistribute(advantages: Array, ratio: Array, h: Array, low: Array, high: Array, *, beta: float = 1.0) -> Array:
    r"""Advantages times :math:`1+\beta\hat h`: outside the neutral band for tokens above the pivot, inside it below.

    The band is :math:`1 - l/2 < r < 1 + u/2`, half as wide as the clip.

    >>> ratio, h, width = jnp.array([1.0, 1.15, 1.0]), jnp.array([0.5, 0.5, -1.0]), jnp.full(3, 0.2)
    >>> print(redistribute(jnp.ones(3), ratio, h, width, width))
    [1.  1.5 0. ]
    """
    neutral = (ratio > 1 - low / 2) & (ratio < 1 + high / 2)
    return jnp.where(neutral == (h > 0), advantages, advantages * (1 + beta * h))


def hapo(
    logprobs: Array,
    old_logprobs: Array,
    advantages: Array,
    entropy: Array,
    weights: Array | None = None,
    *,
    pivot: float = 0.8,
    alpha: float = 1.0,
    beta: float = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
    signed: bool = True,
    statistics: LogEntropy | None = None,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.token_mean,
    axis_name: numerics.AxisName = None,
) -> Array:
    r"""Heterogeneous adaptive policy optimisation: PPO with clip and advantages by the entropy of the token.

    .. math:: \hat h_t \in [-1, 1] \text{ the place of } \log H_t \text{ about its pivot quantile},\quad
       (l_t, u_t) = \begin{cases}(l,\, u(1+\alpha\hat h_t)) & \hat h_t > 0\\
       (l(1+\alpha|\hat h_t|),\, u) & \hat h_t \le 0\end{cases},\quad
       A'_t = A_t\,(1 + \beta\hat h_t\,[\,t \in N \oplus \hat h_t > 0\,])

    with N the tokens of ratio in :math:`(1 - l_t/2, 1 + u_t/2)`, then the clipped loss with these bounds and A'.

    Args:
      logprobs: ``[..., K, T]`` token log-probabilities under the policy (nats).
      old_logprobs: ``[..., K, T]`` the same under the proximal policy; a constant.
      advantages: ``[..., K, 1]`` or ``[..., K, T]``; a constant (:func:`rlx.policy.entropy_advantages.hapo_advantage`).
      entropy: ``[..., K, T]`` entropy of the policy at the token (nats); a constant.
      weights: ``[..., K, T]`` or ``[..., K, 1]`` rollout importance weights; constants. None is 1.
      pivot: quantile that separates high entropies from low ones.
      alpha: how far the clip widens; 0 keeps it.
      beta: how far advantages change; 0 keeps them.
      clip_low: l.
      clip_high: u.
      dual_clip: c > 1; where A' < 0 the loss is at most :math:`-A' c`. None: none.
      signed: True is the paper. False is the released code, which divides by a negative number below the pivot: h is
        never negative, and low entropies are treated as high ones (``hapo_policy``).
      statistics: of the batch, constants; None takes those of these tokens (:func:`log_entropy`).
      where: ``[..., K, T]`` response tokens.
      reduce: how tokens become one number; None gives ``[..., K, T]``.
      axis_name: mapped axes the statistics are global over.

    Raises:
      UserError: the shapes disagree, or ``dual_clip`` is not above 1.

    >>> zeros = jnp.zeros((1, 3))
    >>> print(hapo(zeros, zeros, zeros + 1.0, jnp.array([[1.0, 2.0, 4.0]]), pivot=0.5, reduce=None))
    [[-0. -1. -1.]]

    References:
      Liu et al., *From Uniform to Heterogeneous: Tailoring Policy Optimization to Every Token's Nature* (HAPO),
      arXiv:2509.16591.
    """
    check_shapes(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, weights=weights, where=where)
    if statistics is None:
        statistics = log_entropy(entropy, pivot=pivot, where=where, axis_name=axis_name)
    h = relative_entropy(entropy, statistics, signed=signed, where=where)
    low, high = adaptive_widths(h, clip_low=clip_low, clip_high=clip_high, alpha=alpha)
    r = ratios.token(logprobs, old_logprobs, bound=ratios.OVERFLOW, where=where)
    shaped = redistribute(constant(advantages, where), jax.lax.stop_gradient(r), h, low, high, beta=beta)
    loss = surrogates.clip(low, high, dual=dual_clip)(r, shaped, logprobs)
    return aggregate.finish(weigh(loss, weights, where), where, reduce)


def hapo_temperature(
    entropy: Array,
    statistics: LogEntropy,
    *,
    temperature: float = 1.0,
    tau: float = 0.05,
    signed: bool = True,
) -> Array:
    r"""Sampling temperature of the next token: :math:`T\,(1 + \tau\,\mathrm{clip}(\hat h, \pm 1))`.

    Args:
      entropy: ``[...]`` entropy at temperature 1 of what comes next (nats).
      statistics: of the previous training batch.
      temperature: T.
      tau: how far it adapts.
      signed: as in :func:`hapo`; the released sampler is hotter where the entropy is low, too.

    >>> statistics = log_entropy(jnp.array([1.0, 2.0, 4.0]), pivot=0.5)
    >>> print(hapo_temperature(jnp.array([9.0, 2.0, 0.0]), statistics))
    [1.05 1.   0.95]
    """
    h = relative_entropy(entropy, statistics, signed=signed, smallest_entropy=1e-6, epsilon=1e-6)
    return temperature * (1 + tau * jnp.clip(h, -1, 1))


def hapo_method(
    *,
    pivot: float = 0.8,
    alpha: float = 1.0,
    beta: float = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = 3.0,
    signed: bool = True,
    axis_name: numerics.AxisName = None,
) -> Method:
    """:func:`hapo` that keeps the statistics of the last batch, which the sampler needs (:func:`hapo_temperature`).

    Before the first step they are those of entropies of 1. Keywords are those of :func:`hapo`.

    >>> sorted(hapo_method().init(None, rlx.method.Shapes())[1])
    ['statistics']
    """
    keywords = {"alpha": alpha, "beta": beta, "clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    lifted = stateless(hapo, keywords=keywords | {"signed": signed}, axis_name=axis_name)

    def init(key: Array | None, shapes: Shapes) -> tuple[PyTree, PyTree]:
        return {}, {"statistics": log_entropy(jnp.ones(1), pivot=pivot)}

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        entropy = take(batch, "entropy", lifted.name)
        now = log_entropy(entropy, pivot=pivot, where=batch.get("where"), axis_name=axis_name)
        return Constants({"statistics": now}, {}), {"statistics": now}

    return lifted._replace(
        init=init,
        prepare=prepare,
        prepare_needs=("entropy",),
        coupling="batch",
        hyperparameters={"pivot": pivot, "signed": signed, **keywords},
    )
