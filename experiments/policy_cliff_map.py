"""The map from reward to policy near ties, with and without entropy; float64, no sampling."""

from collections.abc import Iterable, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import claims, parts
from experiments.parts import Row
from rlx import numerics

NOISE, WEIGHTS = "noise", "weights"
CLIFF = "the optimal policy is no continuous function of the reward"
LIPSCHITZ = "with entropy it is Lipschitz: TV <= eps / alpha"
SEVERAL = "the same with an aggregate of rewards whose weights cross"


def get_config(size: str) -> ConfigDict:
    """States, actions and noise of the specification; alphas and grids are ours. Alpha 0 is the argmax."""
    config = ConfigDict(
        {
            "seeds": tuple(range(20)),
            "alphas": (0.0, 0.1, 1.0),
            "noises": (1e-1, 1e-2, 1e-3, 1e-4),
            "grids": (100, 1000, 5000),
            "problem": {"states": 100, "actions": 10},
        }
    )
    if size == "full":
        config.seeds = tuple(range(100))
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "noises": (1e-1, 1e-2), "grids": (10, 100)})
        config.problem.states = 10
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Noise on a reward with ties, and weights that sweep from one reward to another."""
    changes = [(NOISE, x) for x in config.noises] + [(WEIGHTS, 1 / grid) for grid in config.grids]
    return [
        {"table": table, "alpha": alpha, "change": change, "seed": seed}
        for table, change in changes
        for alpha in config.alphas
        for seed in config.seeds
    ]


def policies(rewards: np.ndarray, alpha: float) -> np.ndarray:
    """Optimal policies ``[..., K]``: softmax of reward / alpha; for alpha 0 uniform over the best actions."""
    if alpha == 0:
        best = rewards == rewards.max(-1, keepdims=True)
        return best / best.sum(-1, keepdims=True)
    with jax.enable_x64(True):
        return np.asarray(numerics.softmax(rewards / alpha))


def total_variation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Half of the absolute difference, ``[..., K] -> [...]``."""
    return np.abs(one - other).sum(-1) / 2


def noise(cell: Row, config: ConfigDict) -> tuple[np.ndarray, float]:
    """Total variation of every state between the policies of a reward and of its noisy copy, and their distance.

    The best two actions of a state have exactly the same reward.
    """
    problem = config.problem
    rng = np.random.default_rng([cell["seed"], 0])
    rewards = rng.standard_normal((problem.states, problem.actions))
    order = np.argsort(rewards, -1)
    second, first = order[:, -2:].T
    rewards[np.arange(problem.states), second] = rewards[np.arange(problem.states), first]
    moved = rewards + cell["change"] * rng.uniform(-1, 1, rewards.shape)
    alpha = cell["alpha"]
    return total_variation(policies(moved, alpha), policies(rewards, alpha)), cell["change"]


def weights(cell: Row, config: ConfigDict) -> tuple[np.ndarray, float]:
    """Largest total variation of every state between neighbours of a sweep, and how far a reward moves at most."""
    problem = config.problem
    rng = np.random.default_rng([cell["seed"], 1])
    pair = rng.standard_normal((2, problem.states, problem.actions))
    grid = round(1 / cell["change"])
    weight = (np.arange(grid + 1) / grid)[:, None, None]
    largest = []
    for one, other in zip(*(np.array_split(reward, 10) for reward in pair), strict=True):  # all at once: a gigabyte
        swept = policies(weight * one + (1 - weight) * other, cell["alpha"])
        largest.append(total_variation(swept[1:], swept[:-1]).max(0))
    return np.concatenate(largest), float(np.abs(pair[0] - pair[1]).max() / grid)


def rows(cells: Sequence[Row], config: ConfigDict) -> list[Row]:
    """Mean and largest total variation over the states, and how much of the bound it uses."""
    found = []
    for cell in cells:
        tv, moved = (noise if cell["table"] == NOISE else weights)(cell, config)
        used = float(tv.max() * cell["alpha"] / moved) if cell["alpha"] else None
        found.append({"tv": float(tv.mean()), "largest_tv": float(tv.max()), "of_bound": used})
    return found


def slopes(rows: Iterable[Row], table: str, alpha: float, metric: str, most: float) -> list[Row]:
    """Slope of log ``metric`` over log change, of every seed; changes up to ``most``."""
    by_seed: dict[int, list[Row]] = {}
    for row in rows:
        if row["table"] == table and row["alpha"] == alpha and row["change"] <= most * (1 + 1e-9):
            by_seed.setdefault(row["seed"], []).append(row)
    return [
        {"seed": seed, "slope": float(np.polyfit(*np.log([[r[k] for r in own] for k in ("change", metric)]), 1)[0])}
        for seed, own in by_seed.items()
    ]


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """Jumps without entropy, whatever the change; with it a line, and a bound."""
    found: list[parts.Tested] = []
    for change in config.noises:
        text = f"noise {change:g}: mean TV of argmax policies"
        cell = {"table": NOISE, "alpha": 0.0, "change": change}
        found.append((claims.every(text, rows, "tv", cell, low=0.45), CLIFF))
    for change in (1 / grid for grid in config.grids):
        text = f"weights in steps of {change:g}: largest jump of an argmax policy"
        cell = {"table": WEIGHTS, "alpha": 0.0, "change": change}
        found.append((claims.every(text, rows, "largest_tv", cell, low=0.999), SEVERAL))
    for alpha in filter(None, config.alphas):
        for table, metric, most, source in (
            (NOISE, "tv", 0.1 * alpha, LIPSCHITZ),
            (WEIGHTS, "largest_tv", 0.01, SEVERAL),
        ):
            own = [row for row in rows if row["table"] == table and row["alpha"] == alpha]
            text = f"{table}, alpha {alpha:g}: slope of log TV over log change, changes <= {most:g}"
            line = slopes(rows, table, alpha, metric, most)
            found.append((claims.mean_within(text, line, "slope", {}, low=0.95, high=1.05), source))
            worst = [{"seed": i, "of_bound": row["of_bound"]} for i, row in enumerate(own)]
            text = f"{table}, alpha {alpha:g}: largest TV over the bound (change of the reward / alpha)"
            found.append((claims.every(text, worst, "of_bound", {}, high=1.0), source))
    return found


def panels(rows: Sequence[Row]) -> list[parts.Panel]:
    """Both tables on logarithmic axes."""
    found, shown = [], "log10 total variation"
    for table, metric, title in (
        (NOISE, "tv", "noise on a tie, mean over states"),
        (WEIGHTS, "largest_tv", "weights of two rewards, worst state"),
    ):
        own = [row for row in rows if row["table"] == table]
        names = [f"softmax, alpha {row['alpha']:g}" if row["alpha"] else "argmax" for row in own]
        lines = [{**row, "policy": n, shown: float(np.log10(row[metric]))} for row, n in zip(own, names, strict=True)]
        found.append((title, lines, ("change", "policy"), shown))
    return found


PART = parts.Part(
    get_config,
    cells,
    rows,
    tested,
    panels,
    {
        NOISE: parts.Table(
            "Uniform noise on a reward with two best actions", ("change", "alpha"), ("tv", "largest_tv", "of_bound")
        ),
        WEIGHTS: parts.Table(
            "Weights of two rewards sweep from 0 to 1 in steps", ("change", "alpha"), ("tv", "largest_tv", "of_bound")
        ),
    },
    note="Optimal policies of random rewards, N(0, 1), in 100 states with 10 actions; *alpha*: weight of the entropy, "
    "0 is the argmax (uniform over ties). *tv*: total variation between the policies of two rewards, mean over states "
    "(for weights, of the largest step of each); *largest_tv*: of the worst state; *of_bound*: its share of (largest "
    "change of a reward / alpha).",
    cell_keys=("seeds", "alphas", "noises", "grids"),
)
