"""Controllers of KL coefficients as pure functions; beside them the same as a :class:`~rlx.signals.Signal`."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from rlx import signals
from rlx.policy.weights import constant
from rlx.types import Array, check_shapes


def adaptive_kl_controller(
    coefficient: Array,
    kl: Array,
    n: float | Array = 1,
    *,
    target: float = 0.1,
    horizon: float = 10_000,
    clip: float = 0.2,
) -> Array:
    r"""The next coefficient of the KL penalty; as state, :func:`rlx.signals.adaptive_kl`.

    .. math:: c \leftarrow c\,\Big(1 + \mathrm{clip}\big(\tfrac{\mathrm{KL}}{\text{target}} - 1, \pm 0.2\big)
       \frac{n}{\text{horizon}}\Big)

    Args:
      coefficient: c.
      kl: measured KL (nats, in the unit of the target).
      n: samples since the last update.
      target: where the KL is to be.
      horizon: samples over which the coefficient may change by its own size.
      clip: bound on the relative error.

    >>> print(f"{adaptive_kl_controller(1.0, 9.0, 1000, target=6.0):.2f}")
    1.02

    References:
      Ziegler et al., *Fine-Tuning Language Models from Human Preferences*, arXiv:1909.08593.
    """
    after, _ = signals.adaptive_kl(target, horizon, clip=clip).update(kl, coefficient, n)
    return after


class Coefficients(NamedTuple):
    """KL coefficients and their dual multipliers, one of each per bucket of difficulty."""

    coefficients: Array
    multipliers: Array


def ares_dynamic_kl(
    coefficients: Array,
    multipliers: Array,
    kl: Array,
    *,
    target: Sequence[float] | Array = (0.05, 0.1, 0.2),
    rate: float = 0.01,
    where: Array | None = None,
) -> Coefficients:
    r"""ARES's KL coefficients, one per difficulty: the coefficient compounds a multiplier found by dual ascent.

    .. math:: \lambda_d \leftarrow \max(0, \lambda_d + \eta\,(\mathrm{KL}_d - \epsilon_d)),\qquad
       \beta_d \leftarrow \lambda_d\,\beta_d

    As released: the *running* coefficient is multiplied at every step, not its initial value.

    Args:
      coefficients: ``[D]`` beta; the authors start at 0.002, 0.001, 0.0005 for easy, medium, hard.
      multipliers: ``[D]`` lambda, 1 at the start.
      kl: ``[D]`` measured KL (nats).
      target: ``[D]`` epsilon; the authors' for easy, medium, hard.
      rate: eta.
      where: ``[D]`` buckets that were observed; the others stay.

    Raises:
      UserError: the shapes disagree.

    >>> after = ares_dynamic_kl(jnp.array([1.0]), jnp.array([1.0]), jnp.array([3.0]), target=[1.0], rate=0.5)
    >>> print(*after)
    [2.] [2.]

    References:
      *ARES: Multimodal Adaptive Reasoning via Difficulty-Aware Token-Level Entropy Shaping*, arXiv:2510.08457.
    """
    check_shapes(coefficients=coefficients, multipliers=multipliers, kl=kl, where=where)
    seen = True if where is None else jnp.asarray(where)
    ascended = jnp.maximum(0, multipliers + rate * (constant(kl, where) - jnp.asarray(target)))
    after = jnp.where(seen, ascended, multipliers)
    return Coefficients(jnp.where(seen, after * coefficients, coefficients), after)


def ares_kl(initial: Sequence[float] | Array, target: Sequence[float] | Array, *, rate: float = 0.01) -> signals.Signal:
    """:func:`ares_dynamic_kl` as state: ``update(kl, state, where=None)`` gives the coefficients."""

    def init() -> Coefficients:
        start = jnp.asarray(initial, jnp.result_type(float))
        return Coefficients(start, jnp.ones_like(start))

    def update(value: Array, state: Coefficients, where: Array | None = None) -> tuple[Array, Coefficients]:
        state = ares_dynamic_kl(*state, value, target=target, rate=rate, where=where)
        return state.coefficients, state

    return signals.Signal(init, update)
