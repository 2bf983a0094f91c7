"""Part `language` of experiments/preference_rankings.py: a small language model, tuned on chosen texts and on pairs."""

import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import claims, flipped_language, markov_language, parts
from experiments import preference_rankings_measures as measures
from experiments.preference_rankings_measures import METHODS, METRICS
from rlx.config import to_json

TUNED, CHECKPOINTS = "tuned", "steps"
TABLES = {
    TUNED: parts.Table(
        "Held-out pairs of the language model after tuning",
        ("method",),
        (
            "base_accuracy",
            "before",
            "ranking_accuracy",
            "idealised",
            "gap",
            "reward_accuracy",
            "start_loss",
            *METRICS[:1],
        )
        + (*METRICS[3:], "base_reward", "reference_reward", "reward", "kl"),
    ),
    CHECKPOINTS: parts.Table("Along the tuning of the language model", ("method", "step"), METRICS[:3] + METRICS[7:]),
}
Cell = dict[str, Any]


def get_config(size: str) -> ConfigDict:
    """Five seeds by default, ten at full size; optimiser and label scale are those of experiments/rdpo_noise.py."""
    config = ConfigDict(
        {
            "seeds": tuple(range(5)),
            "pairs": 2000,
            "held_out_pairs": 1000,
            "samples": 512,
            "length": 20,
            "label_scale": 10.0,
            "chain": {"seed": 0, "sharpness": 1.0},
            "model": {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64},
            "reference": {"seed": 0, "texts": 20_000, "steps": 300, "batch_size": 64},
            "reference_optimizer": {"name": "adam", "learning_rate": 1e-2, "schedule": "cosine"},
            "chosen": {"steps": 60, "batch_size": 64},
            "strength": 0.1,
            "steps": 120,
            "batch_size": 32,
            "checkpoint_every": 20,
            "optimizer": {"name": "adam", "learning_rate": 3e-3},
        }
    )
    if size == "full":
        config.update({"seeds": tuple(range(10)), "pairs": 3000, "samples": 2048, "steps": 240, "checkpoint_every": 40})
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "pairs": 64, "held_out_pairs": 32, "samples": 32, "length": 8})
        config.update({"steps": 3, "batch_size": 8, "checkpoint_every": 3})
        config.model.update({"hidden_size": 8, "num_layers": 1, "intermediate_size": 8})
        config.reference.update({"texts": 64, "steps": 3, "batch_size": 16})
        config.chosen.update({"steps": 3, "batch_size": 8})
    return config


def cells(config: ConfigDict) -> list[Cell]:
    """The tuned model, and every checkpoint on the way."""
    shown = range(0, config.steps + 1, config.checkpoint_every)
    found: list[Cell] = [{"table": TUNED, "method": method} for method in METHODS]
    found += [{"table": CHECKPOINTS, "method": method, "step": step} for method in METHODS for step in shown]
    return [{**cell, "seed": seed} for cell in found for seed in config.seeds]


def rows(own: Sequence[Cell], config: ConfigDict) -> list[dict[str, float]]:
    """All seeds of a cell; a model is tuned once for all its checkpoints."""
    task = _task(to_json(config.to_dict()))
    runs = [task.run(cell["method"], cell["seed"]) for cell in own]
    if own[0]["table"] == TUNED:
        return [run.final for run in runs]
    shown = TABLES[CHECKPOINTS].metrics
    return [{key: run.path[cell["step"]][key] for key in shown} for run, cell in zip(runs, own, strict=True)]


class Run(NamedTuple):
    """Measures after tuning, and of the pairs at every checkpoint."""

    final: dict[str, float]
    path: dict[int, dict[str, float]]


class Reference(NamedTuple):
    """The model tuned on the chosen texts of a seed.

    Attributes:
      policy: its parameters.
      logps: ``[N, 2]`` of all pairs, held-out ones last.
      reward: mean true reward of its samples.
    """

    policy: Any
    logps: np.ndarray
    reward: float


class Task:
    """The model of the chain and its pairs, tuned on chosen texts and then by a method, once each."""

    def __init__(self, config: ConfigDict):
        self.config, self.base = config, flipped_language.Task(config)
        self.reference, self.run = functools.cache(self._reference), functools.cache(self._run)
        options = config.reference_optimizer, config.chosen.steps
        self.supervised = markov_language.trainer(self.base.model, {"name": "sft"}, *options)

    def _reference(self, seed: int) -> Reference:
        c, data = self.config, self.base.data(seed)
        batch = markov_language.batch_of(data.pairs[: c.pairs, :1], np.arange(c.pairs))
        policy, _ = markov_language.train(self.supervised, self.base.reference, batch, **c.chosen, seed=seed)
        return Reference(policy, self.base.logps(policy, data.pairs), self._samples(policy, seed)[1])

    def _samples(self, policy: Any, seed: int) -> tuple[Any, float]:
        texts = markov_language.sample(self.base.model, policy, self.base.data(seed).uniforms)
        return texts, float(markov_language.true_reward(np.asarray(texts)).mean())

    def _run(self, method: str, seed: int) -> Run:
        c, data, reference = self.config, self.base.data(seed), self.reference(seed)
        pairs, before = data.pairs[c.pairs :], reference.logps[c.pairs :]
        path = {0: measures.measure(method, before, before, c.strength)}

        def watch(step: int, policy: Any) -> None:
            if step % c.checkpoint_every == 0:
                path[step] = measures.measure(method, self.base.logps(policy, pairs), before, c.strength)

        batch = markov_language.batch_of(
            data.pairs[: c.pairs], np.arange(c.pairs), reference_logps=reference.logps[: c.pairs]
        )
        trainer = self.base.trainer(to_json(measures.config_of(method, c.strength)))
        options = {"batch_size": c.batch_size, "steps": c.steps, "seed": seed, "watch": watch}
        policy, _ = markov_language.train(trainer, reference.policy, batch, **options)
        texts, reward = self._samples(policy, seed)
        kl = markov_language.kl_to(self.base.model, policy, reference.policy, texts).mean()
        rewards = {"base_reward": data.reward, "reference_reward": reference.reward, "reward": reward, "kl": float(kl)}
        base = data.logps[c.pairs :]
        alpha = preferred(pairs, c.label_scale)
        accuracies = {
            "base_accuracy": float(np.mean(base[:, 0] > base[:, 1])),
            "before": path[0]["ranking_accuracy"],
            "start_loss": path[0]["loss"],
            "idealised": measures.idealised_accuracy(method, alpha, before, c.strength),
        }
        gap = accuracies["idealised"] - path[c.steps]["ranking_accuracy"]
        return Run({**path[c.steps], **accuracies, "gap": gap, **rewards}, path)


@functools.lru_cache(1)
def _task(plain: str) -> Task:
    return Task(ConfigDict(json.loads(plain)))


def preferred(pairs: np.ndarray, scale: float) -> np.ndarray:
    """The probability ``[N]`` with which the chosen text of a pair is preferred."""
    reward = scale * markov_language.true_reward(pairs)
    return (1 + np.tanh((reward[:, 0] - reward[:, 1]) / 2)) / 2


def tested(config: ConfigDict, rows: Sequence[Cell]) -> list[parts.Tested]:
    """The paper's statements on language models, tested on this one."""
    return [claim for method in METHODS for claim in tuning(config, rows, method)]


def tuning(config: ConfigDict, rows: Sequence[Cell], method: str) -> list[parts.Tested]:
    """What tuning does to loss, rewards and rankings."""
    everything = [{**row, "row": i} for i, row in enumerate(rows)]
    cell, path = ({"table": table, "method": method} for table in (TUNED, CHECKPOINTS))
    start, end = ({**path, "step": step} for step in (0, config.steps))
    agree, inside = ("agree", "") if method == "dpo" else ("agree_inside", ", margins up to 1/(2 tau)")
    holds = f"{method}: right if and only if the loss is at most the threshold, every checkpoint{inside}"
    seldom, table = "Figure 2: they seldom flip", "Table 1: 0.53-0.54 normalised, 0.40-0.42 raw; most below 0.6"

    def within(text: str, metric: str, low: float, high: float) -> claims.Claim:
        return claims.mean_within(f"{method}: {text}", rows, metric, cell, low=low, high=high)

    return [
        (claims.every(holds, everything, agree, path, low=1, high=1, per="row"), "proved, Theorem 4.1, A.5"),
        (claims.greater(f"{method}: the held-out loss falls", rows, "loss", start, end), "Figures 2, 3"),
        (measures.lags(f"{method}: reward accuracy > ranking accuracy", rows, cell), "Figures 2, 3"),
        (within("less than half of the wrong pairs flip", "flipped", 0, 0.5), seldom),
        (within("of the pairs right in the end at least 0.8 were right before", "right_before", 0.8, 1), "Figure 2"),
        (within("ranking accuracy is below 0.6", "ranking_accuracy", 0, 0.6), table),
        (within("R* exceeds it by 0.19 to 0.59", "gap", 0.19, 0.59), "Table 1: gaps of 19 to 59 points"),
    ]


def panels(rows: Sequence[Cell]) -> list[parts.Panel]:
    """Both accuracies along the tuning."""
    path, by = [row for row in rows if row["table"] == CHECKPOINTS], ("method", "step")
    return [("language: pairs", path, by, f"{kind}_accuracy") for kind in ("reward", "ranking")]


PART = parts.Part(
    config=get_config,
    cells=cells,
    rows=rows,
    tested=tested,
    panels=panels,
    tables=TABLES,
    note=(
        "Texts of an order-1 Markov chain over 32 tokens, pairs labelled by Bradley-Terry on the known reward. A small "
        "transformer of the chain is tuned on the chosen texts (the reference), then on the pairs. All texts have one "
        "length, so ranking accuracy is the same with and without length normalisation; R* uses the true probability "
        "of every label. Sizes, label scale and optimiser are ours."
    ),
)
