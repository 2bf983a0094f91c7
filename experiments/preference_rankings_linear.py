"""Part `linear` of experiments/preference_rankings.py: theorems on free policies, flips under shared parameters."""

import functools
import itertools
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import claims, parts
from experiments import preference_rankings_measures as measures
from experiments.preference_rankings_measures import METHODS, METRICS
from rlx.aggregate import total
from rlx.config import to_json
from rlx.types import Array

OPTIMUM, FLIPS, CHECKPOINTS = "optimum", "flips", "checkpoints"
SETTING = ("labels", "method", "sigma")
LABELS = ("certain", "noisy")
WORST = ("least_agree", "least_agree_inside")
"""The worst checkpoint of all."""
TABLES = {
    OPTIMUM: parts.Table(
        "Theorem 3.1: the policy that minimises the loss when a share alpha of annotators agrees with the label",
        ("method", "alpha", "strength"),
        ("ratio_error", "ranking_accuracy", "idealised", "accuracy_gap"),
    ),
    FLIPS: parts.Table(
        "Held-out pairs at the lowest held-out loss", SETTING, ("best_step", "before", *METRICS[:9], *WORST)
    ),
    CHECKPOINTS: parts.Table("Along the descent", (*SETTING, "step"), METRICS[:3] + METRICS[7:9]),
}
Cell = dict[str, Any]


def get_config(size: str) -> ConfigDict:
    """Sizes of the specification.

    Learning rates: of 30, 100, 300 (dpo) and 0.03, 0.1, 0.3 (ipo) those with the lowest held-out loss, on the seeds
    1000 to 1004.
    """
    config = ConfigDict(
        {
            "seeds": tuple(range(10)),
            "sigmas": (1.0, 5.0, 20.0),
            "alphas": (0.55, 0.7, 0.9),
            "strengths": (0.05, 0.1, 0.5),
            "optimum": {"pairs": 200, "sigma": 5.0, "steps": 2000},
            "problem": {"pairs": 1000, "train": 600, "features": 64, "label_scale": 4.0},
            "fit": {"strength": 0.1, "steps": 4000, "checkpoints": 40, "dpo": 100.0, "ipo": 0.1},
        }
    )
    if size == "full":
        config.seeds = tuple(range(40))
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "sigmas": (1.0, 20.0), "alphas": (0.7,), "strengths": (0.1,)})
        config.optimum.update({"pairs": 10, "steps": 50})
        config.problem.update({"pairs": 60, "train": 40, "features": 8})
        config.fit.update({"steps": 50, "checkpoints": 4})
    return config


def cells(config: ConfigDict) -> list[Cell]:
    """The optimum over alpha and strength, the flips over sigma, and every checkpoint on the way."""
    c = config
    shown = checkpoints(c.fit.steps, c.fit.checkpoints)[:: max(1, c.fit.checkpoints // 5)]
    settings = [dict(zip(SETTING, values, strict=True)) for values in itertools.product(LABELS, METHODS, c.sigmas)]
    free = itertools.product(METHODS, c.alphas, c.strengths)
    found: list[Cell] = [{"table": OPTIMUM, "method": m, "alpha": alpha, "strength": s} for m, alpha, s in free]
    found += [{"table": FLIPS, **setting} for setting in settings]
    found += [{"table": CHECKPOINTS, **setting, "step": step} for setting in settings for step in shown]
    return [{**cell, "seed": seed} for cell in found for seed in c.seeds]


def checkpoints(steps: int, count: int) -> list[int]:
    """Numbers of steps, in ratios about equal, from 0 to ``steps``.

    >>> checkpoints(100, 4)
    [0, 1, 5, 22, 100]
    """
    return [0, *dict.fromkeys(np.rint(np.geomspace(1, steps, count)).astype(int).tolist())]


def rows(own: Sequence[Cell], config: ConfigDict) -> list[dict[str, float]]:
    """All seeds of a cell; the descents are computed once for all checkpoints of a method and sigma."""
    first, seeds, plain = own[0], tuple(cell["seed"] for cell in own), to_json(config.to_dict())
    if first["table"] == OPTIMUM:
        return [optimum(config, first["method"], first["alpha"], first["strength"], seed) for seed in seeds]
    found = _descents(plain, *(first[key] for key in SETTING), seeds)
    if first["table"] == CHECKPOINTS:
        return [{key: path[first["step"]][key] for key in TABLES[CHECKPOINTS].metrics} for path in found]
    result = []
    for path in found:
        best = min(path, key=lambda step: path[step]["loss"])
        least = {name: min(measured[name.removeprefix("least_")] for measured in path.values()) for name in WORST}
        result.append({**path[best], "before": path[0]["ranking_accuracy"], "best_step": best, **least})
    return result


def optimum(config: ConfigDict, method: str, alpha: float, strength: float, seed: int) -> dict[str, float]:
    """Gradient descent on the logits of free policies over two responses, against the closed form; in float64."""
    c, rng = config.optimum, np.random.default_rng([seed, 10])
    reference = c.sigma / np.sqrt(2) * rng.standard_normal((c.pairs, 2))
    with jax.enable_x64(True):
        solved = np.asarray(_solve(jnp.asarray(reference), jnp.asarray(alpha), method, strength, c.steps))
    reached, wanted = np.exp(solved @ [1.0, -1.0]), np.exp(reference @ [1.0, -1.0] + _margin(method, alpha, strength))
    accuracy = float(np.mean(solved[:, 0] > solved[:, 1]))
    idealised = measures.idealised_accuracy(method, np.asarray(alpha), reference, strength)
    return {
        "ratio_error": float(np.abs(reached / wanted - 1).max()),
        "ranking_accuracy": accuracy,
        "idealised": idealised,
        "accuracy_gap": abs(accuracy - idealised),
    }


def _margin(method: str, alpha: float, strength: float) -> np.ndarray:
    return measures.optimal_margin(method, np.asarray(alpha), strength)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _solve(reference: Array, alpha: Array, method: str, strength: float, steps: int) -> Array:
    """Log-probabilities ``[N, 2]``; each pair descends alone, with a step that the largest curvature allows."""
    loss = functools.partial(measures.loss_of(method, strength), reduce=total)

    def aggregated(logits: Array) -> Array:
        policy, base = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
        both = [loss(p, q) for p, q in ((policy, base), (policy[:, ::-1], base[:, ::-1]))]
        return alpha * both[0] + (1 - alpha) * both[1]

    rate = 2 / strength**2 if method == "dpo" else 0.2
    logits = jax.lax.fori_loop(0, steps, lambda _, x: x - rate * jax.grad(aggregated)(x), reference)
    return jax.nn.log_softmax(logits)


@functools.lru_cache(16)
def _descents(
    plain: str, labels: str, method: str, sigma: float, seeds: tuple[int, ...]
) -> list[dict[int, dict[str, float]]]:
    """By seed: checkpoint -> measures of the held-out pairs."""
    config = ConfigDict(json.loads(plain))
    c, fit = config.problem, config.fit
    drawn = [problem(config, labels, sigma, seed) for seed in seeds]
    features, reference = (np.stack(x).astype(np.float32) for x in zip(*drawn, strict=True))
    steps = checkpoints(fit.steps, fit.checkpoints)
    gaps = jnp.diff(jnp.array([*steps]))
    arrays = features[:, : c.train], reference[:, : c.train]
    path = np.asarray(_descend(*arrays, gaps, method, fit.strength, fit[method]), np.float64)
    found = []
    for theta, (own, base) in zip(path, drawn, strict=True):
        held_out, base = own[c.train :], base[c.train :]
        policies = base + np.einsum("npd,td->tnp", held_out, theta)
        found.append({t: measures.measure(method, p, base, fit.strength) for t, p in zip(steps, policies, strict=True)})
    return found


def problem(config: ConfigDict, labels: str, sigma: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features ``[N, 2, D]`` and reference log-probabilities ``[N, 2]`` of pairs, the chosen response first.

    The true reward is linear in the features; the reference's log-probability is that reward, of unit scale between
    the two of a pair, plus noise that makes its log-ratio differ by ``sigma``. Noise of all sigmas is the same draw.
    Certain labels choose the truly better response, noisy ones by Bradley-Terry on the scaled reward.
    """
    c, rng = config.problem, np.random.default_rng([seed, 11])
    features = rng.standard_normal((c.pairs, 2, c.features)) / np.sqrt(2)
    truth = rng.standard_normal(c.features)
    reward = features @ (truth / np.linalg.norm(truth))
    reference = reward + sigma / np.sqrt(2) * rng.standard_normal((c.pairs, 2))
    margin = reward[:, 0] - reward[:, 1]
    chance = margin > 0 if labels == "certain" else 1 / (1 + np.exp(-c.label_scale * margin))
    order = np.where((rng.random(c.pairs) < chance)[:, None], [0, 1], [1, 0])
    return np.take_along_axis(features, order[..., None], 1), np.take_along_axis(reference, order, 1)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _descend(
    features: Array, reference: Array, gaps: Array, method: str, strength: float, learning_rate: float
) -> Array:
    """Parameters ``[seeds, checkpoints, D]`` of plain gradient descent from the reference."""
    loss = measures.loss_of(method, strength)

    def one(features: Array, reference: Array) -> Array:
        def step(_: Array, theta: Array) -> Array:
            return theta - learning_rate * jax.grad(lambda x: loss(reference + features @ x, reference))(theta)

        def until(theta: Array, gap: Array) -> tuple[Array, Array]:
            theta = jax.lax.fori_loop(0, gap, step, theta)
            return theta, theta

        start = jnp.zeros(features.shape[-1], features.dtype)
        return jnp.concatenate([start[None], jax.lax.scan(until, start, gaps)[1]])

    return jax.vmap(one)(features, reference)


def tested(config: ConfigDict, rows: Sequence[Cell]) -> list[parts.Tested]:
    """What the paper proves and shows, tested on the rows."""
    return theorems(rows) + [
        claim for labels in LABELS for method in METHODS for claim in flips(config, rows, labels, method)
    ]


def theorems(rows: Sequence[Cell]) -> list[parts.Tested]:
    """On every seed of every cell."""
    rows = [{**row, "row": i} for i, row in enumerate(rows)]

    def everywhere(text: str, metric: str, table: str, method: str, **ends: float) -> claims.Claim:
        return claims.every(f"{method}: {text}", rows, metric, {"table": table, "method": method}, **ends, per="row")

    ratio, holds = (
        "the optimum has the ratio that theory gives",
        "right if and only if the loss is at most the threshold",
    )
    return [
        (everywhere(ratio, "ratio_error", OPTIMUM, "dpo", high=1e-6), "proved, Theorem 3.1"),
        (everywhere(ratio, "ratio_error", OPTIMUM, "ipo", high=1e-6), "ours"),
        (everywhere("its ranking accuracy is R*", "accuracy_gap", OPTIMUM, "dpo", high=0), "proved, Corollary 3.3"),
        (everywhere(f"{holds}, every checkpoint", "least_agree", FLIPS, "dpo", low=1, high=1), "proved, Theorem 4.1"),
        (
            everywhere(f"{holds}, every checkpoint", "least_agree", FLIPS, "ipo", low=1, high=1),
            "A.5, read as: the same for ipo",
        ),
        (
            everywhere(f"{holds}, margins up to 1/(2 tau)", "least_agree_inside", FLIPS, "ipo", low=1, high=1),
            "A.5, where the square still falls (ours)",
        ),
    ]


def flips(config: ConfigDict, rows: Sequence[Cell], labels: str, method: str) -> list[parts.Tested]:
    """How rankings lag behind the loss as the reference gets worse."""

    def cell(sigma: float) -> Cell:
        return {"table": FLIPS, "labels": labels, "method": method, "sigma": sigma}

    found, name = [], f"{method}, {labels} labels"
    for small, large in zip(config.sigmas, config.sigmas[1:], strict=False):
        text = f"{name}: fewer wrong pairs flip at sigma {large:g} than at {small:g}"
        found.append((claims.greater(text, rows, "flipped", cell(small), cell(large)), "Figure 2: they seldom flip"))
    last = config.sigmas[-1]
    text = f"{name}, sigma {last:g}: reward accuracy > ranking accuracy"
    found.append((measures.lags(text, rows, cell(last)), "Figures 2, 3: the loss falls, rankings stay"))
    text = f"{name}, sigma {last:g}: of the pairs right in the end at least 0.8 were right before"
    return [*found, (claims.mean_within(text, rows, "right_before", cell(last), low=0.8, high=1), "Figure 2")]


def panels(rows: Sequence[Cell]) -> list[parts.Panel]:
    """Ranking accuracy along the descents on certain labels, and the flips at the lowest loss."""
    path = [row for row in rows if row["table"] == CHECKPOINTS and row["labels"] == "certain" and row["step"]]
    best, by = [row for row in rows if row["table"] == FLIPS], ("sigma", "step")
    drawn = [
        (f"linear, {m}, certain labels, by sigma", [row for row in path if row["method"] == m], by, "ranking_accuracy")
        for m in METHODS
    ]
    return [*drawn, ("linear: share of wrong pairs that flip", best, SETTING, "flipped")]


PART = parts.Part(
    config=get_config,
    cells=cells,
    rows=rows,
    tested=tested,
    panels=panels,
    tables=TABLES,
    note=(
        "Pairs with a true linear reward; log-linear policies that share 64 parameters, plain gradient descent. The "
        "reference's log-ratio is the reward's (unit scale) plus noise of size sigma. Noisy labels were added after a "
        "first run with certain ones. Ours: how reference and labels are drawn, and the learning rates; the pairs, "
        "features, sigmas, beta and steps are those of the specification."
    ),
    cell_keys=("seeds", "sigmas", "alphas", "strengths"),
)
