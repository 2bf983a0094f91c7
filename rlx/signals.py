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
