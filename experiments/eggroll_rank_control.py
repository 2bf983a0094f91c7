"""CartPole and a gridworld learnt from scratch by evolution strategies with noise of several ranks."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from experiments import claims, parts
from experiments.eggroll_rank_tasks import TASKS, Task, returns
from experiments.eggroll_rank_update import FULL, named
from experiments.parts import Row
from rlx.policy import evolution
from rlx.types import Array

ABSTRACT = "arXiv:2511.16652, abstract: no loss of performance in tabula-rasa RL (numbers not read)"
OURS = "ours: the way there as well"
Parameters = list[Array]


def get_config(size: str) -> ConfigDict:
    """Sizes of the specification; horizon, episodes, updates and the optimiser are ours."""
    config = ConfigDict(
        {
            "seeds": tuple(range(20 if size == "full" else 5)),
            "ranks": (1, 4, FULL),
            "tasks": {
                "cartpole": {"horizon": 200, "updates": 20, "episodes": 4},
                "gridworld": {"horizon": 30, "updates": 60, "episodes": 8},
            },
            "learner": {"sigma": 0.1, "learning_rate": 0.03, "members": 512},
            "width": 64,
            "test_episodes": 256,
        }
    )
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "ranks": (1,), "width": 4, "test_episodes": 4})
        config.learner.members = 8
        config.tasks = ConfigDict({"gridworld": {"horizon": 5, "updates": 2, "episodes": 4}})
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Every rank on every task."""
    return [
        {"table": "returns", "task": task, "rank": rank, "seed": seed}
        for task in config.tasks
        for rank in config.ranks
        for seed in config.seeds
    ]


def create(seed: int, sizes: Sequence[int]) -> Parameters:
    """Matrices of a multilayer perceptron: weights N(0, 1 / fan-in), and the biases, 0, as their last column."""
    rng = np.random.default_rng(seed)
    pairs = zip(sizes, sizes[1:], strict=False)
    drawn = [np.pad(rng.normal(size=(out, width)) * width**-0.5, [(0, 0), (0, 1)]) for width, out in pairs]
    return [jnp.asarray(matrix, jnp.float32) for matrix in drawn]


def scores(parameters: Parameters, noise: Any, x: Array, *, sigma: float | Array) -> Array:
    """Scores of actions for every member's own observations ``[N, E, observations]``; tanh between the layers."""
    for i, (matrix, e) in enumerate(zip(parameters, noise, strict=True)):
        x = jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1))], -1)
        x = evolution.perturbed_linear(x, matrix, e, sigma=sigma)
        x = jnp.tanh(x) if i < len(parameters) - 1 else x
    return x


@functools.partial(jax.jit, static_argnames=("task", "rank", "members", "episodes", "updates"))
def learn(
    key: Array,
    parameters: Parameters,
    *,
    sigma: float,
    learning_rate: float,
    task: Task,
    rank: int,
    members: int,
    episodes: int,
    updates: int,
) -> tuple[Parameters, Array]:
    """The policy after all updates, and the mean return of the population in each, ``[updates]``."""
    optimizer = optax.adam(learning_rate)
    noises, played = jax.random.split(key)

    def update(carry: tuple, epoch: Array) -> tuple[tuple, Array]:
        parameters, state = carry
        options = {"members": jnp.arange(members), "rank": rank or None, "epoch": epoch}
        noise = evolution.eggroll_noise(noises, parameters, **options)
        own = play(task, jax.random.fold_in(played, epoch), parameters, noise, sigma, (members, episodes))
        gradient = evolution.eggroll_gradient(noise, evolution.eggroll_fitness(own), sigma=sigma)
        moved, state = optimizer.update(gradient, state)
        return (optax.apply_updates(parameters, moved), state), own.mean()

    start = parameters, optimizer.init(parameters)
    (parameters, _), curve = jax.lax.scan(update, start, jnp.arange(updates))
    return parameters, curve


@functools.partial(jax.jit, static_argnames=("task", "shape"))
def play(
    task: Task, key: Array, parameters: Parameters, noise: Any, sigma: float | Array, shape: tuple[int, int]
) -> Array:
    """Mean return ``[N]`` of ``shape = (N, E)`` episodes, whose starts are the same for all members."""
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (shape[0], *x.shape)), task.start(key, shape[1:]))
    policy = lambda x: scores(parameters, noise, x, sigma=sigma)  # noqa: E731
    return returns(task, start, shape, policy).mean(-1)


@functools.cache
def task_of(name: str, horizon: int) -> Task:
    """The task of a name, the same object every time: programs are compiled once for it."""
    return TASKS[name](horizon=horizon)


def rows(cells: Sequence[Row], config: ConfigDict) -> list[Row]:
    """The return at the end, the mean over the updates on the way, and the curve."""
    name, rank = cells[0]["task"], cells[0]["rank"]
    options = {**config.learner, **config.tasks[name]}
    task, found, shape = task_of(name, options.pop("horizon")), [], (1, config.test_episodes)
    for cell in cells:
        learning, testing = jax.random.split(jax.random.key(cell["seed"]))
        start = create(cell["seed"], (task.observations, config.width, config.width, task.actions))
        learnt, curve = learn(learning, start, task=task, rank=rank, **options)
        still = [jnp.zeros((1, *matrix.shape)) for matrix in learnt]
        final = play(task, testing, learnt, still, 0.0, shape)[0]
        curve = np.asarray(curve, float)
        found.append({"final_return": float(final), "mean_return": float(curve.mean()), "curve": curve.tolist()})
    return found


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """Low rank ends where full rank ends, within 5%, and gets there as fast."""
    found: list[parts.Tested] = []
    for task in config.tasks:
        for rank in config.ranks[:-1]:
            pair = {"task": task, "rank": rank}, {"task": task, "rank": FULL}
            for metric, what, source in (
                ("final_return", "final return", ABSTRACT),
                ("mean_return", "mean return of the population during training", OURS),
            ):
                text = f"{task}, {named(rank)}: {what} within 5% of that of full rank"
                found.append((claims.ratio_within(text, rows, metric, *pair, 0.95, 1.05), source))
    return found


def panels(rows: Sequence[Row]) -> list[parts.Panel]:
    """The curves, a panel per task."""
    shown = []
    for task in dict.fromkeys(row["task"] for row in rows):
        points = [
            {"update": i, "noise": named(row["rank"]), "seed": row["seed"], "mean return": value}
            for row in rows
            if row["task"] == task
            for i, value in enumerate(row["curve"])
            if i % max(len(row["curve"]) // 20, 1) == 0  # intervals need room
        ]
        shown.append((task, points, ("update", "noise"), "mean return"))
    return shown


PART = parts.Part(
    get_config,
    cells,
    rows,
    tested,
    panels,
    {"returns": parts.Table("Returns", ("task", "rank"), ("final_return", "mean_return"))},
    note="A perceptron with two hidden layers of 64, the biases a column of the matrices; 512 members in antithetic "
    "pairs, Adam on the update; all members of an update start from the same states (4, in the gridworld 8). CartPole "
    "ends after 200 steps (return at most 200), the gridworld of 8 x 8 cells after 30 (at most 0.97). *final_return*: "
    "of the policy without noise in 256 episodes, *mean_return*: of the population, over all updates. Rank 0 is noise "
    "without factors.",
)
