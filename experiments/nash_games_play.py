"""Self-play of experiments/nash_games.py: a method on all games in one program, and what is measured of it."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rlx
from experiments import nash_games_methods as methods
from rlx.errors import UserError
from rlx.game import win_rate
from rlx.types import Array

ROUNDING = 1e-16
"""Gaps below it are rounding: they count as this."""

EXACT, SAMPLED, COMPARED = "exact", "sampled", "exact at the setting of the samples"
Row = dict[str, Any]


class Trajectory(NamedTuple):
    """What is measured of self-play on a game.

    Attributes:
      gaps: ``[steps + 1]`` exploitability in the regularised game.
      plain_last: the same of the last policy without regularisation.
      plain_average: the same of the average policy.
      distance: largest difference of a probability of the last policy from the equilibrium.
      twin_error: largest difference of a probability from the twin (:data:`nash_games_methods.TWINS`) on the way.
    """

    gaps: Array
    plain_last: Array
    plain_average: Array
    distance: Array
    twin_error: Array | None


@functools.partial(jax.jit, static_argnames=("sampled", "method", "steps", "samples"))
def play(
    preferences: Array,
    references: Array,
    equilibria: Array,
    seeds: Array,
    beta: Array,
    step_size: Array,
    *,
    sampled: bool,
    method: str,
    steps: int,
    samples: int,
) -> Trajectory:
    """Plays every game ``[G, N, N]`` for some steps, from its reference ``[G, N]``; all are log-probabilities."""
    update = (methods.SAMPLED if sampled else methods.EXACT)[method]
    twin = None if sampled else methods.TWINS.get(method)
    helper = methods.AUXILIARY.get(method)

    def one(preferences: Array, reference: Array, equilibrium: Array, seed: Array) -> Trajectory:
        game, key = methods.Game(preferences, reference, beta), jax.random.key(seed)

        def gap(policy: Array) -> Array:
            return win_rate.exploitability(preferences, policy, reference, beta=beta)

        def advance(update: methods.Update, step: methods.Step, played: methods.Played) -> methods.Played:
            policy = jax.nn.log_softmax(update(game, step, played))
            assistant = played.auxiliary if helper is None else jax.nn.log_softmax(helper(game, step, played))
            return methods.Played(jnp.concatenate([policy[None], played.policies[:-1]]), assistant)

        def body(carry: tuple, t: Array) -> tuple[tuple, Array]:
            played, other, total, error = carry
            step = methods.Step(step_size, jax.random.fold_in(key, t), samples)
            played = advance(update, step, played)
            other = other if twin is None else advance(twin, step, other)
            policy, beside = (jnp.exp(x.policies[0]) for x in (played, other))
            error = error if twin is None else jnp.maximum(error, jnp.abs(policy - beside).max())
            return (played, other, total + policy, error), gap(played.policies[0])

        start = methods.Played(jnp.tile(reference, (methods.MEMORY, 1)), reference)
        carry = (start, start, jnp.zeros_like(reference), jnp.zeros_like(beta))
        (played, _, total, error), gaps = jax.lax.scan(body, carry, jnp.arange(steps))
        last = played.policies[0]
        plain = [win_rate.exploitability(preferences, x) for x in (last, jnp.log(total))]
        distance = jnp.abs(jnp.exp(last) - jnp.exp(equilibrium)).max()
        gaps = jnp.concatenate([gap(reference)[None], gaps])
        return Trajectory(gaps, *plain, distance, None if twin is None else error)

    return jax.vmap(one)(preferences, references, equilibria, seeds)


@functools.cache
def games(seeds: tuple[int, ...], actions: int, beta: float) -> tuple[Array, Array, Array]:
    """Preferences, references and equilibria of games, in float64.

    Raises:
      UserError: an equilibrium was not found.
    """
    drawn = [methods.draw(seed, actions) for seed in seeds]
    preferences, references = (jnp.asarray(np.stack(arrays)) for arrays in zip(*drawn, strict=True))
    references = jax.nn.log_softmax(references)
    solve = functools.partial(rlx.nash_equilibrium, beta=beta, tolerance=1e-20, max_steps=10**6)
    found = jax.jit(solve)(preferences, references)
    if not found.converged.all():
        raise UserError(f"the equilibrium at beta {beta:g} was not found; is the regularisation too weak?")
    return preferences, references, found.policy_logps


def rows(cells: Sequence[Mapping[str, Any]], game: Mapping[str, Any]) -> list[Row]:
    """Plays cells that differ in nothing but the seed, and measures each game."""
    cell, seeds = cells[0], tuple(cell["seed"] for cell in cells)
    static = {"sampled": cell["part"] == SAMPLED, "samples": game["samples"]}
    static |= {key: cell[key] for key in ("method", "steps")}
    with jax.enable_x64(True):
        arrays = games(seeds, game["actions"], cell["beta"])
        options = jnp.asarray(seeds), jnp.asarray(cell["beta"]), jnp.asarray(cell["step_size"])
        played = jax.device_get(play(*arrays, *options, **static))
    measured = []
    for i in range(len(seeds)):
        one = {name: values[i] for name, values in played._asdict().items() if values is not None}
        measured.append(trace(one.pop("gaps"), game["points"]) | {name: float(value) for name, value in one.items()})
    return measured


def trace(gaps: np.ndarray, points: int) -> Row:
    """The gap at the end, its mean over the last tenth, its decay, and its values on the way.

    >>> shown = trace(np.exp(-0.1 * np.arange(401)), points=3)
    >>> f"{shown['rate']:.3f} {shown['r2']:.3f} {shown['curve_steps']}"
    '0.100 1.000 [0, 200, 400]'
    """
    gaps = np.maximum(gaps, ROUNDING)
    shown = np.unique(np.linspace(0, len(gaps) - 1, points).round().astype(int))
    ends = {"gap": float(gaps[-1]), "floor": float(gaps[-max(1, len(gaps) // 10) :].mean())}
    curve = {"curve_steps": shown.tolist(), "curve": [float(f"{gap:.4g}") for gap in gaps[shown]]}
    return ends | decay(gaps) | curve


def decay(gaps: np.ndarray, until: float = 1e-10) -> dict[str, float]:
    """Straight line through the logarithm of the gap, from the start until it falls below ``until``."""
    below = np.flatnonzero(gaps < until)
    logs = np.log(gaps[: below[0] + 1 if len(below) else len(gaps)])
    t = np.arange(len(logs))
    slope, intercept = np.polyfit(t, logs, 1)
    spread = np.sum(np.square(logs - logs.mean()))
    return {"rate": float(-slope), "r2": float(1 - np.sum(np.square(logs - slope * t - intercept)) / spread)}
