"""Two control problems in JAX without pixels, for a population of policies at once."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx.types import Array


class Task(NamedTuple):
    """A control problem; every function takes leading axes of any shape.

    Attributes:
      start: ``(key, shape) -> state``, random starts.
      observe: ``state -> [..., observations]``.
      step: ``(state, action [...]) -> (state, reward [...], done [...])``.
      observations: how many numbers a policy sees.
      actions: how many actions there are.
      horizon: steps until an episode ends by itself.
    """

    start: Callable[[Array, tuple[int, ...]], Any]
    observe: Callable[[Any], Array]
    step: Callable[[Any, Array], tuple[Any, Array, Array]]
    observations: int
    actions: int
    horizon: int


def cartpole(horizon: int = 200) -> Task:
    """The pole of Barto, Sutton and Anderson with the constants of OpenAI Gym; reward 1 a step until it falls."""
    gravity, pole_mass, total_mass, length, force, tau = 9.8, 0.1, 1.1, 0.5, 10.0, 0.02
    limits = jnp.array([2.4, math.inf, 12 * math.pi / 180, math.inf])

    def step(state: Array, action: Array) -> tuple[Array, Array, Array]:
        x, v, angle, omega = jnp.moveaxis(state, -1, 0)
        push = jnp.where(action == 1, force, -force)
        inner = (push + pole_mass * length * omega**2 * jnp.sin(angle)) / total_mass
        swing = gravity * jnp.sin(angle) - jnp.cos(angle) * inner
        swing = swing / (length * (4 / 3 - pole_mass * jnp.cos(angle) ** 2 / total_mass))
        pull = inner - pole_mass * length * swing * jnp.cos(angle) / total_mass
        after = jnp.stack([x + tau * v, v + tau * pull, angle + tau * omega, omega + tau * swing], -1)
        return after, jnp.ones(angle.shape), (jnp.abs(after) > limits).any(-1)

    return Task(
        lambda key, shape: jax.random.uniform(key, (*shape, 4), minval=-0.05, maxval=0.05),
        lambda state: state,
        step,
        observations=4,
        actions=2,
        horizon=horizon,
    )


def gridworld(size: int = 8, horizon: int = 30) -> Task:
    """Walk from one random cell to another: the reward at the goal is 1, less up to 0.9 for the time it took."""
    moves = jnp.array([[1, 0], [-1, 0], [0, 1], [0, -1]])

    def start(key: Array, shape: tuple[int, ...]) -> dict[str, Array]:
        cell = jax.random.randint(key, (*shape, 4), 0, size)
        # the goal is elsewhere: 1 to size - 1 columns on, around the edge
        goal = jnp.stack([(cell[..., 0] + 1 + cell[..., 2] % (size - 1)) % size, cell[..., 3]], -1)
        return {"at": cell[..., :2], "goal": goal, "time": jnp.zeros(shape)}

    def observe(state: dict[str, Array]) -> Array:
        return jnp.concatenate([state["at"], state["goal"] - state["at"]], -1) / (size - 1)

    def step(state: dict[str, Array], action: Array) -> tuple[dict[str, Array], Array, Array]:
        at = jnp.clip(state["at"] + moves[action], 0, size - 1)
        done = (at == state["goal"]).all(-1)
        time = state["time"] + 1
        return {**state, "at": at, "time": time}, jnp.where(done, 1 - 0.9 * time / horizon, 0), done

    return Task(start, observe, step, observations=4, actions=4, horizon=horizon)


TASKS: dict[str, Callable[..., Task]] = {"cartpole": cartpole, "gridworld": gridworld}


def returns(task: Task, start: Any, shape: tuple[int, ...], policy: Callable[[Array], Array]) -> Array:
    """Sum of rewards of an episode each, ``shape``; ``policy`` maps observations to the scores of actions."""

    def step(carry: tuple[Any, Array, Array], _: None) -> tuple[tuple[Any, Array, Array], None]:
        state, total, running = carry
        state, reward, done = task.step(state, jnp.argmax(policy(task.observe(state)), -1))
        return (state, total + jnp.where(running, reward, 0), running & ~done), None

    carry = start, jnp.zeros(shape), jnp.ones(shape, bool)
    return jax.lax.scan(step, carry, length=task.horizon)[0][1]
