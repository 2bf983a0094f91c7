"""A small language model tuned on flipped pairs of its own samples: the data of a seed, and one run of any method."""

import functools
import json
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import markov_language
from rlx.config import to_json

METRICS = ("reward", "kl", "pair_accuracy")


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


class Task:
    """The language task: trains the reference once, compiles a step once per method, draws each seed's data once.

    Args:
      config: sizes, as experiments/rdpo_noise_language.py has them.
    """

    def __init__(self, config: ConfigDict):
        self.config = config
        self.model = markov_language.build_model(config.model)
        self.reference = markov_language.train_reference(self.model, config)
        self.trainer = functools.cache(self._trainer)
        self._seeds: dict[int, Data] = {}
        self._lock = threading.Lock()

    def row(self, method: Mapping[str, Any], rate: float, seed: int) -> dict[str, float]:
        """Trains one method from the reference and measures it on samples, common random numbers throughout.

        Args:
          method: what ``rlx.build`` takes.
          rate: of flipped training pairs.
          seed: of data and batch order.
        """
        c = self.config
        data = self.data(seed)
        texts, reference_logps = (markov_language.flip(x[: c.pairs], rate, seed) for x in (data.pairs, data.logps))
        batch = markov_language.batch_of(texts, np.arange(c.pairs), reference_logps=reference_logps)
        trainer = self.trainer(to_json(dict(method)))
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

    def _trainer(self, method: str) -> markov_language.Trainer:
        return markov_language.trainer(self.model, json.loads(method), self.config.optimizer, self.config.steps)

    def _data(self, seed: int) -> Data:
        c, rng = self.config, np.random.default_rng([seed, 4])
        count = c.pairs + c.held_out_pairs
        drawn = rng.random((2 * count + c.samples, c.length), np.float32)
        texts = np.asarray(markov_language.sample(self.model, self.reference, drawn))
        texts, base = np.split(texts, [2 * count])
        pairs = markov_language.preference_pairs(texts.reshape(count, 2, c.length), c.label_scale, seed)
        reward = float(markov_language.true_reward(base).mean())
        return Data(pairs, self.logps(self.reference, pairs), drawn[2 * count :], reward)
