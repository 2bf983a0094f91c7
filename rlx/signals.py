"""State as a pair of pure functions: running statistics, controllers and per-example tables.

A :class:`Signal` is optax-shaped: ``init`` makes the state, ``update(value, state)`` returns what to use and the next
state. States are pytrees of arrays, leaves of the train state: sharded, donated and checkpointed with it. No signal is
differentiable: values pass through ``stop_gradient``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.types import Array


class Signal(NamedTuple):
    """``init(...) -> state`` and ``update(value, state, ...) -> (output, next state)``."""

    init: Callable[..., Any]
    update: Callable[..., tuple[Any, Any]]


class EmaState(NamedTuple):
    """Running mean and the number of updates behind it."""

    mean: Array
    count: Array


def ema(decay: float, *, debias: bool = False) -> Signal:
    r"""Exponential moving average :math:`m \leftarrow d\,m + (1-d)\,x`; the output is the new mean.

    Args:
      decay: weight of the past, in [0, 1).
      debias: divide the output by :math:`1 - d^n`, so that the first output is the first value.

    >>> signal = ema(0.9, debias=True)
    >>> value, state = signal.update(jnp.float32(2.0), signal.init())
    >>> print(f"{value:.1f}")
    2.0
    """
    if not 0 <= decay < 1:
        raise errors.UserError(f"ema: decay must be in [0, 1), got {decay}.")

    def init(shape: tuple[int, ...] = ()) -> EmaState:
        return EmaState(jnp.zeros(shape), jnp.zeros((), jnp.int32))

    def update(value: Array, state: EmaState) -> tuple[Array, EmaState]:
        mean = decay * state.mean + (1 - decay) * jax.lax.stop_gradient(value)
        count = state.count + 1
        return (mean / (1 - decay**count) if debias else mean), EmaState(mean, count)

    return Signal(init, update)


def running_mean() -> Signal:
    """Mean of every value seen so far, this one included: the output is the new mean."""

    def init(shape: tuple[int, ...] = ()) -> EmaState:
        return EmaState(jnp.zeros(shape), jnp.zeros((), jnp.int32))

    def update(value: Array, state: EmaState) -> tuple[Array, EmaState]:
        count = state.count + 1
        mean = state.mean + (jax.lax.stop_gradient(value) - state.mean) / count
        return mean, EmaState(mean, count)

    return Signal(init, update)


class HistoryState(NamedTuple):
    """A ring of the last values and how many were ever written."""

    values: Array
    count: Array


def history(length: int) -> Signal:
    """The last ``length`` values; the output is ``(values, where)``, newest last; ``where``: slots ever written."""

    def init(shape: tuple[int, ...] = ()) -> HistoryState:
        return HistoryState(jnp.zeros((length, *shape)), jnp.zeros((), jnp.int32))

    def update(value: Array, state: HistoryState) -> tuple[tuple[Array, Array], HistoryState]:
        value = jax.lax.stop_gradient(jnp.asarray(value, state.values.dtype))
        values = jnp.concatenate([state.values[1:], value[None]])
        count = state.count + 1
        return (values, jnp.arange(length) >= length - count), HistoryState(values, count)

    return Signal(init, update)


def integral_controller(
    target: float, rate: float, *, initial: float = 0.0, minimum: float = 0.0, maximum: float = jnp.inf
) -> Signal:
    r"""Integral control :math:`c \leftarrow \mathrm{clip}(c + r\,(\text{target} - x))`; the output is the new c.

    With ``target`` an entropy and the output an entropy bonus, the bonus grows while the entropy is below its target.
    """

    def init() -> Array:
        return jnp.asarray(initial, jnp.result_type(float))

    def update(value: Array, state: Array) -> tuple[Array, Array]:
        state = jnp.clip(state + rate * (target - jax.lax.stop_gradient(value)), minimum, maximum)
        return state, state

    return Signal(init, update)


def adaptive_kl(target: float = 0.1, horizon: float = 10_000, *, initial: float = 0.001, clip: float = 0.2) -> Signal:
    r"""Adaptive KL :math:`c \leftarrow c\,(1 + \mathrm{clip}(x/\text{target} - 1, \pm 0.2)\,n/\text{horizon})`.

    ``update(kl, state, n=1)`` with ``n`` the samples of the step; the output is the new coefficient.

    References:
      Ziegler et al., *Fine-Tuning Language Models from Human Preferences*, arXiv:1909.08593.
    """

    def init() -> Array:
        return jnp.asarray(initial, jnp.result_type(float))

    def update(value: Array, state: Array, n: float | Array = 1) -> tuple[Array, Array]:
        error = jnp.clip(jax.lax.stop_gradient(value) / target - 1, -clip, clip)
        state = state * (1 + error * n / horizon)
        return state, state

    return Signal(init, update)


def dual_ascent(bound: float, rate: float, *, initial: float = 0.0) -> Signal:
    r"""Multiplier of :math:`x \le b`: :math:`\lambda \leftarrow \max(0, \lambda + r\,(x - b))`, the output."""

    def init() -> Array:
        return jnp.asarray(initial, jnp.result_type(float))

    def update(value: Array, state: Array) -> tuple[Array, Array]:
        state = jnp.maximum(0, state + rate * (jax.lax.stop_gradient(value) - bound))
        return state, state

    return Signal(init, update)


class Coefficient(NamedTuple):
    """What a controller holds, and whether it is switched on."""

    value: Array
    active: Array


def entropy_step(target: float, rate: float, *, initial: float = 0.0) -> Signal:
    r"""Steps of equal size: the output is :math:`c\,[H \le \text{target}]`, then c moves by +-rate, without bounds."""

    def init() -> Array:
        return jnp.asarray(initial, jnp.result_type(float))

    def update(value: Array, state: Array) -> tuple[Array, Array]:
        value = jax.lax.stop_gradient(value)
        return jnp.where(value <= target, state, 0), jnp.where(value < target, state + rate, state - rate)

    return Signal(init, update)


def entropy_step_clipped(
    target: float, rate: float, *, initial: float = 0.0, minimum: float = 0.0, maximum: float = jnp.inf
) -> Signal:
    r"""The released controller of Skywork-OR1: c moves by +-rate inside bounds, and is on below the target.

    The output is what the measurement *before* this one has set: :math:`c\,[H_{k-1} < \text{target}]`, c at first.

    References:
      He et al., *Skywork Open Reasoner 1 Technical Report*, arXiv:2505.22312.
    """

    def init() -> Coefficient:
        return Coefficient(jnp.asarray(initial, jnp.result_type(float)), jnp.asarray(True))

    def update(value: Array, state: Coefficient) -> tuple[Array, Coefficient]:
        below = jax.lax.stop_gradient(value) < target
        moved = jnp.clip(jnp.where(below, state.value + rate, state.value - rate), minimum, maximum)
        return jnp.where(state.active, state.value, 0), Coefficient(moved, below)

    return Signal(init, update)


def log_dual_ascent(target: float, rate: float, *, initial: float = 0.05) -> Signal:
    r"""Positive coefficient :math:`\log c \leftarrow \log c + r\,(\text{target} - x)` (SAC); the output is c."""
    if initial <= 0:
        raise errors.UserError(f"log_dual_ascent: initial must be above 0 to have a logarithm, got {initial}.")

    def init() -> Array:
        return jnp.asarray(initial, jnp.result_type(float))

    def update(value: Array, state: Array) -> tuple[Array, Array]:
        state = state * jnp.exp(rate * (target - jax.lax.stop_gradient(value)))
        return state, state

    return Signal(init, update)


ENTROPY_CONTROLLERS: dict[str, Callable[..., Signal]] = {
    "step": entropy_step,
    "step_clipped": entropy_step_clipped,
    "dual_ascent": integral_controller,
    "log_dual": log_dual_ascent,
}
"""Rules that hold an entropy at a target, for :func:`entropy_controller`."""


def entropy_controller(
    rule: str,
    *,
    target: float,
    rate: float,
    initial: float = 0.0,
    minimum: float = 0.0,
    maximum: float = jnp.inf,
) -> Signal:
    """The controller of a name; rules without bounds do not use them. An unknown rule raises a UserError."""
    if rule not in ENTROPY_CONTROLLERS:
        hint = errors.close_matches(rule, ENTROPY_CONTROLLERS)
        raise errors.UserError(f"Unknown rule {rule!r}.{hint} Known: {', '.join(ENTROPY_CONTROLLERS)}.")
    bounds = {"minimum": minimum, "maximum": maximum} if rule in ("step_clipped", "dual_ascent") else {}
    return ENTROPY_CONTROLLERS[rule](target, rate, initial=initial, **bounds)


class Controlled(NamedTuple):
    """The coefficient that every update uses, and the one that is held after it."""

    applied: Array
    states: Array


def adaptive_entropy_coefficient(
    entropies: Array,
    *,
    rule: str = "step_clipped",
    target: float = 0.2,
    rate: float = 1e-4,
    initial: float = 0.0,
    minimum: float = 0.0,
    maximum: float = jnp.inf,
) -> Controlled:
    r"""A controller run over the entropies of a training: the coefficient c of the bonus :math:`-c\,\bar H`.

    ========================  =================================================================================
    ``step``                  uses :math:`c\,[H \le H^*]`, then :math:`c \pm \delta`, without bounds
    ``step_clipped``          the same inside bounds, and both used at the next update (:func:`entropy_step_clipped`)
    ``dual_ascent``           :math:`c \leftarrow \mathrm{clip}(c + \eta\,(H^* - H))`, used at once
    ``log_dual``              :math:`\log c \leftarrow \log c + \eta\,(H^* - H)`, used at once
    ========================  =================================================================================

    Args:
      entropies: ``[N]`` mean token entropy of every update (nats).
      rule: one of these.
      target: :math:`H^*`.
      rate: :math:`\delta` or :math:`\eta`.
      initial: first c.
      minimum: of the rules with bounds.
      maximum: of the rules with bounds.

    Raises:
      UserError: unknown rule.

    >>> print(adaptive_entropy_coefficient(jnp.array([0.1, 0.3, 0.1]), rate=0.5).applied)
    [0.  0.5 0. ]

    References:
      He et al., *Skywork Open Reasoner 1 Technical Report*, arXiv:2505.22312.
    """
    limits = {"target": target, "rate": rate, "initial": initial, "minimum": minimum, "maximum": maximum}
    controller = entropy_controller(rule, **limits)

    def step(state: Any, entropy: Array) -> tuple[Any, Controlled]:
        applied, state = controller.update(entropy, state)
        return state, Controlled(applied, state.value if isinstance(state, Coefficient) else state)

    return jax.lax.scan(step, controller.init(), numerics.accumulate(entropies))[1]


def first() -> Signal:
    """The first value ever seen, from then on: an anchor."""

    def init(shape: tuple[int, ...] = ()) -> EmaState:
        return EmaState(jnp.zeros(shape), jnp.zeros((), jnp.int32))

    def update(value: Array, state: EmaState) -> tuple[Array, EmaState]:
        kept = jnp.where(state.count > 0, state.mean, jax.lax.stop_gradient(value))
        return kept, EmaState(kept, state.count + 1)

    return Signal(init, update)


def means_by_slot(slots: int) -> Signal:
    """A mean per slot over the updates that had a value for it; the output is the means *before* this update.

    ``update((values, where), state)`` with ``[slots]`` each; a slot that no update had yet is -1 in the output.
    """

    def init() -> EmaState:
        return EmaState(jnp.zeros(slots), jnp.zeros(slots, jnp.int32))

    def update(value: tuple[Array, Array], state: EmaState) -> tuple[Array, EmaState]:
        values, where = value
        count = state.count + where
        change = jax.lax.stop_gradient(values).astype(state.mean.dtype) - state.mean
        mean = state.mean + jnp.where(where, change / jnp.maximum(count, 1), 0)
        return jnp.where(state.count > 0, state.mean, -1), EmaState(mean, count)

    return Signal(init, update)


def dynamic_labels(num_examples: int, gamma: float, *, initial: float = 1.0) -> Signal:
    r"""Per-example labels :math:`l_i \leftarrow (1-\gamma)\,l_i + \gamma\,p_i`, a table addressed by the dataset index.

    ``update(p, table, index, axis_name=None)`` returns the new labels of the batch and the new table. Entries are set,
    not added; an index outside the table (a padding row) is dropped. Under ``axis_name`` every shard gathers the
    updates of all shards, so that a replicated table stays the same everywhere.
    """

    def init() -> Array:
        return jnp.full((num_examples,), initial, jnp.result_type(float))

    def update(probability: Array, table: Array, index: Array, axis_name: Any = None) -> tuple[Array, Array]:
        old = table.at[index].get(mode="fill", fill_value=initial)
        new = (1 - gamma) * old + gamma * jax.lax.stop_gradient(probability).astype(table.dtype)
        rows, values = numerics.gather(index, axis_name), numerics.gather(new, axis_name)
        return new, table.at[rows].set(values, mode="drop")

    return Signal(init, update)


def lookup(table: Array, index: Array, *, initial: float = 1.0) -> Array:
    """The labels of the batch rows ``index``; ``initial`` for rows outside the table."""
    return table.at[index].get(mode="fill", fill_value=initial)
