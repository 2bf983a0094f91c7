"""Part B of experiments/rdpo_noise.py: a small language model tuned on flipped pairs; its cells, rows and claims."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import claims, flipped_language
from experiments.flipped_language import METRICS
from rlx.config import config_hash

PART, TITLE = "B", "B. Language model on the Markov language, sampled"
METHODS = ("rdpo", "dpo", "cdpo")
TABLE = "flip rates"
CELL_KEYS = ("seeds", "flip_rates")
Cell = dict[str, Any]


def get_config(size: str) -> ConfigDict:
    """Quickstart by default; ``full`` has the seeds and pairs of the specification.

    The learning rate is the one of 3e-4, 1e-3 and 3e-3 with the highest mean reward at flip rate 0, where the methods
    coincide, on the seeds 1000 and 1001. More steps than the quickstart's still raise it, there and at full size.
    """
    config = ConfigDict(
        {
            "seeds": tuple(range(5)),
            "flip_rates": (0.0, 0.2, 0.4),
            "pairs": 2000,
            "held_out_pairs": 500,
            "samples": 512,
            "length": 16,
            "label_scale": 10.0,
            "chain": {"seed": 0, "sharpness": 1.0},
            "model": {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64},
            "reference": {"seed": 0, "texts": 20_000, "steps": 300, "batch_size": 64},
            "reference_optimizer": {"name": "adam", "learning_rate": 1e-2, "schedule": "cosine"},
            "beta": 0.1,
            "steps": 120,
            "batch_size": 32,
            "optimizer": {"name": "adam", "learning_rate": 3e-3},
        }
    )
    if size == "full":
        config.update({"seeds": tuple(range(10)), "pairs": 3000, "held_out_pairs": 1000, "samples": 2048, "steps": 240})
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "flip_rates": (0.2,), "pairs": 64, "held_out_pairs": 32, "samples": 32})
        config.update({"length": 8, "steps": 3, "batch_size": 8})
        config.model.update({"hidden_size": 8, "num_layers": 1, "intermediate_size": 8})
        config.reference.update({"texts": 64, "steps": 3, "batch_size": 16})
    return config


def cells(config: ConfigDict) -> list[Cell]:
    """Every method at every flip rate with every seed; rDPO and cDPO are told the true rate."""
    settings = config_hash({key: value for key, value in config.to_dict().items() if key not in CELL_KEYS})
    common = {"part": PART, "config": settings, "table": TABLE}
    return [
        {**common, "method": m, "flip_rate": rate, "epsilon": rate, "pairs": config.pairs, "seed": seed}
        for rate in config.flip_rates
        for m in METHODS
        for seed in config.seeds
    ]


class Runner:
    """Computes rows: a compiled step per method and rate serves all seeds."""

    def __init__(self, config: ConfigDict):
        self.beta, self.task = config.beta, flipped_language.Task(config)

    def program(self, cell: Cell) -> tuple[str, float]:
        """What the compiled step depends on: dpo's does not depend on the rate."""
        return cell["method"], 0.0 if cell["method"] == "dpo" else cell["epsilon"]

    def row(self, cell: Cell) -> dict[str, float]:
        """Trains one cell and measures it."""
        method = {"name": cell["method"], "beta": self.beta}
        told = {} if cell["method"] == "dpo" else {"epsilon": cell["epsilon"]}
        return self.task.row(method | told, cell["flip_rate"], cell["seed"])


def tested(config: ConfigDict, rows: Sequence[Cell]) -> list[claims.Claim]:
    """The paper's claims about language models, and the order of the methods."""

    def cell(method: str, rate: float) -> Cell:
        return {"method": method, "flip_rate": rate}

    found = [claims.equal("without flips the three agree", rows, METRICS, [cell(m, 0.0) for m in METHODS], 1e-6)]
    for rate in config.flip_rates[1:]:
        for better, worse in zip(METHODS, METHODS[1:], strict=False):
            text = f"flip rate {rate:g}: reward of {better} > {worse}"
            found.append(claims.greater(text, rows, "reward", cell(better, rate), cell(worse, rate)))
    last = config.flip_rates[-1]
    text = f"rdpo is flat: reward at flip rate {last:g} > 0.95 of that at 0"
    return [*found, claims.greater(text, rows, "reward", cell("rdpo", last), cell("rdpo", 0.0), factor=0.95)]


def setting(config: ConfigDict, rows: Sequence[Cell]) -> str:
    """What stands above the table."""
    c = config
    base, entropy = (np.mean([row[f"reference_{name}"] for row in rows]) for name in ("reward", "entropy"))
    return (
        f"Texts of {c.length} tokens, {c.pairs} pairs, labels Bradley-Terry on {c.label_scale:g} x reward; beta "
        f"{c.beta:g}, {c.steps} steps of {c.batch_size} pairs, {c.optimizer.name} at {c.optimizer.learning_rate:g}; "
        f"seeds {c.seeds[0]}-{c.seeds[-1]}. The reference model has reward {base:.3f} and {entropy:.3f} nats of "
        "entropy a token. Mean ± half of the 95 % interval.\n"
    )


def plotted(rows: Sequence[Cell]) -> tuple[str, list[Cell]]:
    """The panel's title and its rows, with what is drawn under ``value``; the untuned reference is one more line."""
    tuned = [{**row, "value": row["reward"]} for row in rows]
    base = [{**row, "method": "reference", "value": row["reference_reward"]} for row in rows if row["method"] == "dpo"]
    return "B: true reward", tuned + base
