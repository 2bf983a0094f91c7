"""Part A of experiments/rdpo_noise.py: the exact log-linear problem, its cells, its rows and its claims."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import claims, loglinear
from rlx.config import config_hash

PART, TITLE = "A", "A. Log-linear policies, exact expectations"
METHODS = ("rdpo", "dpo", "cdpo")
METRICS = ("reward", "share_of_optimum", "kl", "parameter_error")
MAIN, WRONG, SCALING = "flip rates", "wrong flip rate assumed", "growing data"
Cell = dict[str, Any]


def get_config(size: str) -> ConfigDict:
    """Sizes of the specification; complete already in the quickstart."""
    config = ConfigDict(
        {
            "seeds": tuple(range(8)),
            "flip_rates": (0.0, 0.1, 0.2, 0.3, 0.4),
            "pairs": (4000,),
            "wrong_by": 0.1,
            "scaling": {"seeds": (100, 101, 102, 103, 104), "flip_rates": (0.25, 0.4), "pairs": (4000, 16000)},
            "problem": {"contexts": 50, "actions": 10, "dimension": 20, "scale": 3.0},
            "fit": {"beta": 1.0, "steps": 1500, "learning_rate": 2.0, "ridge": 1e-4},
        }
    )
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "flip_rates": (0.2,), "pairs": (400,), "wrong_by": 0.0})
        config.scaling.update({"seeds": ()})
        config.fit.update({"steps": 50})
    return config


def cells(config: ConfigDict) -> list[Cell]:
    """The main table, wrong flip rates assumed by rDPO, and growing data, in this order."""
    settings = config_hash({"problem": config.problem.to_dict(), "fit": config.fit.to_dict()})

    def product(table: str, methods: Sequence[str], rates: Iterable[float], wrong: float = 0.0, data: Any = config):
        common = {"part": PART, "config": settings, "table": table}
        return [
            {**common, "method": m, "flip_rate": r, "epsilon": round(r + wrong, 6), "pairs": pairs, "seed": seed}
            for r in rates
            for m in methods
            for pairs in data.pairs
            for seed in data.seeds
        ]

    by = config.wrong_by
    inner = [rate for rate in config.flip_rates if by and by <= rate < 0.5 - by]
    wrong = [cell for sign in (-1, 1) for cell in product(WRONG, ["rdpo"], inner, sign * by)]
    scaling = product(SCALING, METHODS, config.scaling.flip_rates, data=config.scaling)
    return product(MAIN, METHODS, config.flip_rates) + wrong + scaling


class Runner:
    """Computes rows; ``program`` tells which cells share a compiled function."""

    def __init__(self, config: ConfigDict):
        self.config = config

    def program(self, cell: Cell) -> Any:
        """The loss with its flip rate bound: what is compiled."""
        return loglinear.bind(cell["method"], cell["epsilon"])

    def row(self, cell: Cell) -> dict[str, float]:
        """Fits one cell and evaluates it exactly."""
        options = self.config.fit.to_dict()
        problem = loglinear.problem(cell["seed"], **self.config.problem)
        counts = loglinear.preference_counts(problem, cell["seed"], pairs=cell["pairs"], flip_rate=cell["flip_rate"])
        arrays = problem.features.astype(np.float32), counts.astype(np.float32)
        fitted = loglinear.fit(*arrays, loss=self.program(cell), **options)
        measured = loglinear.evaluate(problem, np.asarray(fitted.theta), beta=options["beta"])
        best = loglinear.evaluate(problem, problem.theta / options["beta"], beta=options["beta"])["reward"]
        training = {"train_loss": float(fitted.loss), "gradient_norm": float(fitted.gradient_norm)}
        return {**measured, "share_of_optimum": measured["reward"] / best, "optimal_reward": best, **training}


def tested(config: ConfigDict, rows: Sequence[Cell]) -> list[claims.Claim]:
    """What the paper says of this problem, tested on the rows."""

    def cell(method: str, rate: float) -> Cell:
        return {"table": MAIN, "method": method, "flip_rate": rate}

    same = [cell(method, 0.0) for method in METHODS]
    found = [claims.equal("without flips the three agree: reward, KL, parameters", rows, METRICS, same, 1e-6)]
    for rate in config.flip_rates[1:]:
        for better, worse in zip(METHODS, METHODS[1:], strict=False):
            text = f"flip rate {rate:g}: reward of {better} > {worse}"
            found.append(claims.greater(text, rows, "reward", cell(better, rate), cell(worse, rate)))
    text = "rdpo is flat: reward at flip rate 0.3 > 0.95 of that at 0"
    found.append(claims.greater(text, rows, "reward", cell("rdpo", 0.3), cell("rdpo", 0.0), factor=0.95))
    for rate in config.flip_rates[1:]:
        growth = 1 / (1 - 2 * rate)
        beyond = " (small samples dominate beyond 0.3)" if rate > 0.3 else ""
        text = f"rdpo's error at {rate:g} over that at 0 is 1 / (1 - 2 eps) = {growth:.3g} within a factor 2{beyond}"
        ends = (growth / 2, growth * 2)
        found.append(claims.ratio_within(text, rows, "parameter_error", cell("rdpo", rate), cell("rdpo", 0.0), *ends))
    for rate in config.scaling.flip_rates:
        found += _scaling_claims(rows, rate, *config.scaling.pairs)
    return found


def _scaling_claims(rows: Sequence[Cell], rate: float, few: int, many: int) -> list[claims.Claim]:
    """Bias stays when the data grow fourfold, noise halves."""
    title = f"{few} -> {many} pairs at flip rate {rate:g}"
    data = {"table": SCALING, "flip_rate": rate}
    robust, biased = ([{**data, "method": m, "pairs": pairs} for pairs in (many, few)] for m in ("rdpo", "dpo"))
    error = "parameter_error"
    return [
        claims.greater(f"{title}: dpo's error stays above 0.9 of itself", rows, error, *biased, factor=0.9),
        claims.greater(f"{title}: rdpo's error shrinks", rows, error, *robust[::-1]),
        claims.ratio_within(f"{title}: rdpo's error becomes about 1/2 of itself", rows, error, *robust, 1 / 3, 3 / 4),
    ]


def setting(config: ConfigDict, rows: Sequence[Cell]) -> str:
    """What stands above the table."""
    p, f = config.problem, config.fit
    best = np.mean([row["optimal_reward"] for row in rows if row["table"] == MAIN])
    return (
        f"{p.contexts} contexts, {p.actions} actions, {p.dimension} features; beta {f.beta:g}, {f.steps} steps of "
        f"gradient descent at {f.learning_rate:g}, ridge {f.ridge:g}; seeds {_ends(config.seeds)}"
        + (f", growing data {_ends(config.scaling.seeds)}" if config.scaling.seeds else "")
        + f". Reward of the optimum: {best:.3f}. Mean ± half of the 95 % interval.\n"
    )


def _ends(seeds: Sequence[int]) -> str:
    return f"{seeds[0]}-{seeds[-1]}"


def plotted(rows: Sequence[Cell]) -> tuple[str, list[Cell]]:
    """The panel's title and its rows, with what is drawn under ``value``."""
    own = [{**row, "value": row["share_of_optimum"]} for row in rows if row["table"] == MAIN]
    return "A: reward / optimum", own
