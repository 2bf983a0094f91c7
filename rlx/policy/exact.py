"""Exact policy-gradient objectives of one decision: all tokens and their rewards are known, nothing is sampled.

The vocabulary is the last axis of logits and rewards ``[..., V]``; leading axes are the batch. These are what sampled
methods estimate: in tests, in tables of toy problems, and where the action set is small.
"""

import jax
import jax.numpy as jnp

from rlx import aggregate, numerics, ops
from rlx.policy.weights import constant
from rlx.types import Array, Reduce, check_positive, check_shapes


def tsallis_policy_gradient(
    logits: Array,
    action_values: Array,
    *,
    q: float = 2.0,
    beta: float = 0.1,
    where: Array | None = None,
    reduce: Reduce | None = aggregate.mean,
) -> Array:
    r"""Minus the expected reward with a Tsallis entropy bonus; ``q=1`` is the soft (maximum-entropy) policy gradient.

    .. math:: \ell = -\Big(\sum_a \pi(a)\,r(a) + \beta S_q(\pi)\Big),\quad S_q = \frac{1 - \sum_a \pi(a)^q}{q - 1},
       \quad S_1 = -\sum_a \pi(a)\log\pi(a)

    The best policy is softmax(r / beta) at q = 1, with value :math:`\beta\log\sum_a e^{r(a)/\beta}`, and
    sparsemax(r / 2 beta) at q = 2 (:func:`tsallis_optimum`).

    Args:
      logits: ``[..., V]``; -inf marks impossible actions.
      action_values: ``[..., V]`` reward r of every action; a constant.
      q: order of the entropy, a Python number. Some papers use half of this S at q = 2: halve beta.
      beta: weight of the entropy.
      where: ``[...]`` real decisions.
      reduce: how decisions become one number; None gives ``[...]``.

    Raises:
      UserError: q is negative, or the shapes disagree.

    >>> print(f"{tsallis_policy_gradient(jnp.zeros(2), jnp.array([1.0, 0.0]), q=1.0, beta=1.0):.4f}")
    -1.1931

    References:
      Haarnoja et al., *Soft Actor-Critic*, arXiv:1801.01290; Lee et al., *Tsallis Reinforcement Learning*,
      arXiv:1902.00137.
    """
    check_shapes(logits=logits, action_values=action_values)
    reward = ops.distribution(logits, where=where).mean(_constant(action_values, where))
    return aggregate.finish(-(reward + beta * ops.tsallis_entropy(logits, q=q, where=where)), where, reduce)


def soft_advantage(
    logits: Array, targets: Array, action_values: Array, *, beta: float = 0.1, where: Array | None = None
) -> Array:
    r"""Advantage of a sampled action in the soft problem: :math:`r(y) - \beta\log\pi(y) - J`, a constant ``[...]``.

    J is the soft value, so that :math:`-A \log\pi(y)` has the expected gradient of
    ``tsallis_policy_gradient(..., q=1)``.

    Args:
      logits: ``[..., V]``.
      targets: ``[...]`` sampled actions y.
      action_values: ``[..., V]`` rewards r.
      beta: weight of the entropy.
      where: ``[...]`` real decisions.

    >>> print(f"{soft_advantage(jnp.zeros(2), jnp.array(0), jnp.array([1.0, 0.0])):.2f}")
    0.50
    """
    values = _constant(action_values, where)
    value = -tsallis_policy_gradient(logits, values, q=1.0, beta=beta, where=where, reduce=None)
    surprise = -ops.token_statistics(logits, targets, where=where).logp  # type: ignore[operator]
    reward = jnp.take_along_axis(values, targets[..., None], -1)[..., 0]
    return jax.lax.stop_gradient(numerics.clean(reward + beta * surprise - value, where))


def tsallis_optimum(action_values: Array, *, q: float = 2.0, beta: float = 0.1, iterations: int = 100) -> Array:
    r"""The policy of least ``tsallis_policy_gradient``: softmax(r / beta) at q = 1, sparsemax(r / 2 beta) at q = 2.

    .. math:: \pi(a) = \Big[m^{q-1} - \frac{q-1}{q}\,\frac{\max r - r(a)}{\beta}\Big]_+^{1/(q-1)}

    The probability m of the best action, in [1/V, 1], is found by bisection.

    Args:
      action_values: ``[..., V]`` rewards r, finite.
      q: order of the entropy, above 0.
      beta: weight of the entropy.
      iterations: bisections.

    Returns:
      ``[..., V]`` probabilities, a constant.

    Raises:
      UserError: q or beta is not above 0.

    >>> print(tsallis_optimum(jnp.array([1.0, 0.9, 0.0]), beta=0.5).round(4))
    [0.55 0.45 0.  ]
    """
    check_positive(q=q, beta=beta)
    values = constant(action_values)
    regret = (values.max(-1, keepdims=True) - values) / beta
    if q == 1:
        return numerics.softmax(-regret)

    def policy(best: Array) -> Array:
        base = best ** (q - 1) - (q - 1) / q * regret
        return jnp.where(base > 0, jnp.where(base > 0, base, 1) ** (1 / (q - 1)), 0)

    def bisect(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        small = policy(middle).sum(-1, keepdims=True) < 1
        return jnp.where(small, middle, low), jnp.where(small, high, middle)

    ends = (jnp.full_like(regret[..., :1], 1 / regret.shape[-1]), jnp.ones_like(regret[..., :1]))
    found = policy(jax.lax.fori_loop(0, iterations, bisect, ends)[0])
    return found / found.sum(-1, keepdims=True)


def _constant(action_values: Array, where: Array | None) -> Array:
    return constant(action_values, None if where is None else where[..., None])
