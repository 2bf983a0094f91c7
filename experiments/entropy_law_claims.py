"""Claims and panels of the entropy law, from rows alone."""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from experiments import claims, parts
from experiments.parts import Row

LAW = "R = -a exp(H) + b, known early (arXiv:2505.22617)"
COVARIANCE = "covariance stays positive and drives the entropy (arXiv:2505.22617)"
LEMMA = "Lemma 1: the entropy falls by the covariance"
SHOWN = ("grpo", "dr_grpo", "entropy_bonus_0.1", "clip_cov", "kl_cov")
"""What the plot shows; the others lie on top of `grpo`."""
METHODS = "Clip-Cov and KL-Cov keep the entropy up (arXiv:2505.22617)"
GAIN = "and so improve performance (arXiv:2505.22617); no pass mark here"
LINE = "is it exponential? No paper claims it against a line"


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """The law on every run of the first learning rate; entropy and reward against GRPO at all of them."""
    runs = [{**row, "run": f"{row['method']} {row['seed']}"} for row in rows]
    scaled, rates = [row for row in runs if row["method"] != "dr_grpo"], (config.rates.all, *config.rates.more)
    found: list[parts.Tested] = []
    for rate in rates:
        cell, worst = {"learning_rate": rate}, f"rate {rate:g}, worst of all methods and seeds"
        found += [
            (claims.every(f"{worst}: R2 of the law", scaled, "r2_exp", cell, low=0.95, per="run"), LAW),
            (claims.every(f"{worst}: error on the last 64 %", scaled, "rmse_exp", cell, high=0.05, per="run"), LAW),
            (claims.every(f"{worst}: steps with Cov > 0", scaled, "positive", cell, low=0.9, per="run"), COVARIANCE),
        ]
    first = {"learning_rate": config.rates.all}
    for name in ("grpo", "dr_grpo", "clip_cov", "kl_cov"):
        text = f"rate {config.rates.all:g}, {name}: correlation of -Cov and change of entropy"
        found.append((claims.mean_within(text, rows, "correlation", first | {"method": name}, low=0.5), COVARIANCE))
    text = f"rate {config.rates.all:g}, worst of all methods and seeds: predicted over measured change of entropy"
    found.append((claims.every(text, runs, "identity", first, low=0.95, high=1.05, per="run"), LEMMA))
    for metric, source in (("entropy", METHODS), ("reward", GAIN)):
        for rate in rates:
            for name in ("clip_cov", "kl_cov"):
                ours, grpo = ({"learning_rate": rate, "method": m} for m in (name, "grpo"))
                text = f"rate {rate:g}: final {metric} of {name} > grpo"
                found.append((claims.greater(text, rows, metric, ours, grpo), source))
    for rate in rates:
        own = fits(row for row in rows if row["learning_rate"] == rate and row["method"] == "grpo")
        text = f"rate {rate:g}, grpo: R2 of the exponential > of the line"
        found.append((claims.greater(text, own, "r2", {"fit": "exp"}, {"fit": "line"}), LINE))
    return found


def fits(rows) -> list[Row]:
    """A row for each form of the law."""
    return [{**row, "fit": form, "r2": row[f"r2_{form}"]} for row in rows for form in ("exp", "line")]


def curves(rows: Sequence[Row]) -> list[Row]:
    """A row for every shown step of every run."""
    return [
        {"method": row["method"], "seed": row["seed"], **dict(zip(row["curve"], point, strict=True))}
        for row in rows
        for point in zip(*row["curve"].values(), strict=True)
    ]


def binned(points: Sequence[Row], width: float = 0.1) -> list[Row]:
    """Mean reward of the steps of a run whose entropy is within half a width of a multiple of it."""
    groups: dict[tuple, list[float]] = {}
    for point in points:
        key = (point["method"], point["seed"], round(round(point["entropy"] / width) * width, 3))
        groups.setdefault(key, []).append(point["reward"])
    keys = ("method", "seed", "entropy")
    return [{**dict(zip(keys, key, strict=True)), "reward": float(np.mean(own))} for key, own in groups.items()]


def panels(rows: Sequence[Row]) -> list[parts.Panel]:
    """Entropy and reward over the steps, reward over entropy, and how well both forms fit."""
    lowest = min(row["learning_rate"] for row in rows)
    points = curves([row for row in rows if row["learning_rate"] == lowest and row["method"] in SHOWN])
    shown: list[parts.Panel] = [
        (f"{metric}, learning rate {lowest:g}", points, ("method", "step"), metric) for metric in ("entropy", "reward")
    ]
    shown.append(("reward over entropy (methods set apart sideways)", binned(points), ("method", "entropy"), "reward"))
    grpo = fits(row for row in rows if row["method"] == "grpo")
    return [*shown, ("grpo, fit of the law by learning rate", grpo, ("learning_rate", "fit"), "r2")]
