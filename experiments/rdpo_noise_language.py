"""Part B of experiments/rdpo_noise.py: a small language model tuned on flipped pairs; its cells, rows and claims."""

import functools
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import claims, markov_language
from rlx.config import config_hash

PART, TITLE = "B", "B. Language model on the Markov language, sampled"
METHODS = ("rdpo", "dpo", "cdpo")
METRICS = ("reward", "kl", "pair_accuracy")
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


class Data(NamedTuple):
    """What all cells of a seed share.

    Attributes:
      pairs: ``[N, 2, R]``, correctly labelled; the last ``held_out_pairs`` are not trained on.
      logps: ``[N, 2]`` under the reference.
      uniforms: ``[samples, R]``, the numbers that every policy's samples are made of.
      reward: mean true reward of the reference's samples, made of the same numbers.
    """

    pairs: np.ndarray
    logps: np.ndarray
    uniforms: np.ndarray
    reward: float


class Runner:
    """Computes rows: trains the reference once, compiles one step per method and rate, draws each seed's data once."""

    def __init__(self, config: ConfigDict):
        self.config = config
        self.model = markov_language.build_model(config.model)
        self.reference = markov_language.train_reference(self.model, config)
        self.trainer = functools.cache(self._trainer)
        self._seeds: dict[int, Data] = {}
        self._lock = threading.Lock()

    def program(self, cell: Cell) -> tuple[str, float]:
        """What the compiled step depends on: dpo's does not depend on the rate."""
        return cell["method"], 0.0 if cell["method"] == "dpo" else cell["epsilon"]

    def row(self, cell: Cell) -> dict[str, float]:
        """Trains one cell from the reference and measures it on samples, common random numbers throughout."""
        c, seed, rate = self.config, cell["seed"], cell["flip_rate"]
        data = self.data(seed)
        texts, reference_logps = (markov_language.flip(x[: c.pairs], rate, seed) for x in (data.pairs, data.logps))
        batch = markov_language.batch_of(texts, np.arange(c.pairs), reference_logps=reference_logps)
        trainer = self.trainer(*self.program(cell))
        options = {"batch_size": c.batch_size, "steps": c.steps, "seed": seed}
        policy, training = markov_language.train(trainer, self.reference, batch, **options)
        samples = markov_language.sample(self.model, policy, data.uniforms)
        log_ratios = self.logps(policy, data.pairs[c.pairs :]) - data.logps[c.pairs :]
        return {
            "reward": float(markov_language.true_reward(np.asarray(samples)).mean()),
            "kl": float(markov_language.kl_to(self.model, policy, self.reference, samples).mean()),
            "pair_accuracy": float(np.mean(log_ratios[:, 0] > log_ratios[:, 1])),
            "reference_reward": data.reward,
            "reference_entropy": float(-data.logps.mean() / c.length),
            "train_loss": training["loss"],
        }

    def data(self, seed: int) -> Data:
        """The data of a seed, drawn when first asked for; a second thread waits for the first."""
        with self._lock:
            if seed not in self._seeds:
                self._seeds[seed] = self._data(seed)
            return self._seeds[seed]

    def logps(self, params: Any, texts: np.ndarray) -> np.ndarray:
        """Summed log-probabilities ``[N, K]`` of texts ``[N, K, R]``."""
        batch = markov_language.batch_of(texts, np.arange(len(texts)))
        return np.asarray(markov_language.scorer(self.model)(params, batch)["logps"])

    def _trainer(self, method: str, epsilon: float) -> markov_language.Trainer:
        c = self.config
        keywords = {"beta": c.beta} if method == "dpo" else {"beta": c.beta, "epsilon": epsilon}
        return markov_language.trainer(self.model, {"name": method, **keywords}, c.optimizer, c.steps)

    def _data(self, seed: int) -> Data:
        c, rng = self.config, np.random.default_rng([seed, 4])
        count = c.pairs + c.held_out_pairs
        drawn = rng.random((2 * count + c.samples, c.length), np.float32)
        texts = np.asarray(markov_language.sample(self.model, self.reference, drawn))
        texts, base = np.split(texts, [2 * count])
        pairs = markov_language.preference_pairs(texts.reshape(count, 2, c.length), c.label_scale, seed)
        reward = float(markov_language.true_reward(base).mean())
        return Data(pairs, self.logps(self.reference, pairs), drawn[2 * count :], reward)


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
