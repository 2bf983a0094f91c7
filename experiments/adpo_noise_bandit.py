r"""The contextual bandit of experiments/adpo_noise.py: lists of K candidates whose observed rewards are corrupted.

Contexts :math:`x \sim N(0, I)`, true rewards :math:`r(x) = \tanh(x W_1 / \sqrt{D})\, W_2` with standard normal weights,
divided by their standard deviation, so that every corruption is in units of it. What a learner sees is standardised by
median and MAD, which outliers do not move.
"""

from typing import NamedTuple

import numpy as np

SEVERITIES = ("light", "medium", "heavy")
CORRUPTIONS = {
    "heavy noise": [{"noise": n, "outliers": p} for n, p in ((0.5, 0.05), (1.0, 0.1), (2.0, 0.2))],
    "shift": [{"shift": m, "noise": n} for m, n in ((0.5, 0.3), (1.0, 0.5), (2.0, 0.8))],
    "adversarial": [{"flips": p, "noise": 0.3} for p in (0.1, 0.2, 0.3)],
    "cauchy": [{"cauchy": scale} for scale in (0.2, 0.5, 1.0)],
}
"""The keywords of :func:`observe` for each corruption, by severity."""
OUTLIER_SIZE = 8.0


class Bandit(NamedTuple):
    """A problem without its corruption.

    Attributes:
      seed: what everything was drawn from.
      inner: ``[D, units]``.
      outer: ``[units, K]``, scaled so that true rewards have standard deviation 1.
      contexts: ``[N, D]`` of training, before any shift.
      clean: ``[N, D]`` further contexts, on which the reference policy is trained.
      held_out: ``[M, D]`` of evaluation, never shifted.
    """

    seed: int
    inner: np.ndarray
    outer: np.ndarray
    contexts: np.ndarray
    clean: np.ndarray
    held_out: np.ndarray

    def rewards(self, contexts: np.ndarray) -> np.ndarray:
        """True rewards ``[..., K]`` of contexts ``[..., D]``."""
        return np.tanh(contexts @ self.inner / np.sqrt(contexts.shape[-1])) @ self.outer

    def best(self, contexts: np.ndarray) -> np.ndarray:
        """The truly best candidate ``[...]`` of contexts ``[..., D]``."""
        return self.rewards(contexts).argmax(-1).astype(np.int32)


def bandit(seed: int, candidates: int, *, dimension: int, units: int, contexts: int, held_out: int) -> Bandit:
    """Draws a problem; fewer candidates are the first of more, all else equal."""
    inner = stream(seed, "inner").standard_normal((dimension, units))
    outer = stream(seed, "outer").standard_normal((candidates, units)).T
    drawn = [
        stream(seed, name).standard_normal((count, dimension)).astype(np.float32)
        for name, count in (("contexts", contexts), ("clean", contexts), ("held out", held_out))
    ]
    raw = Bandit(seed, inner, outer, *drawn)
    return raw._replace(outer=outer / raw.rewards(raw.held_out).std())


def observe(
    problem: Bandit,
    *,
    noise: float = 0.0,
    outliers: float = 0.0,
    shift: float = 0.0,
    flips: float = 0.0,
    cauchy: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """What a learner is given: contexts ``[N, D]`` and standardised corrupted rewards ``[N, K]``, drawn once.

    The severities of a corruption share all random numbers.

    Args:
      problem: the bandit.
      noise: standard deviation of Gaussian noise.
      outliers: share of rewards that have 8 standard deviations added or taken away.
      shift: added to every coordinate of the training contexts.
      flips: share of lists whose rewards are all negated, before any noise.
      cauchy: scale of Cauchy noise.

    >>> problem = bandit(0, 3, dimension=2, units=4, contexts=5, held_out=50)
    >>> contexts, scores = observe(problem, flips=1.0)
    >>> bool(np.all(scores.argmin(-1) == problem.best(contexts)))
    True
    """
    contexts = problem.contexts + np.float32(shift)
    rewards = problem.rewards(contexts)
    flipped = stream(problem.seed, "flips").random(len(rewards)) < flips
    rewards = np.where(flipped[:, None], -rewards, rewards)
    is_outlier = stream(problem.seed, "outliers").random(rewards.shape) < outliers
    signs = np.sign(stream(problem.seed, "signs").random(rewards.shape) - 0.5)
    added = noise * stream(problem.seed, "noise").standard_normal(rewards.shape) + is_outlier * OUTLIER_SIZE * signs
    added += cauchy * stream(problem.seed, "cauchy").standard_cauchy(rewards.shape)
    return contexts, standardise(rewards + added).astype(np.float32)


def standardise(rewards: np.ndarray) -> np.ndarray:
    """Rewards less their median, over 1.4826 times their median absolute deviation, both over all lists.

    >>> print(standardise(np.array([1.0, 2.0, 3.0, 1e6])).round(2)[:3])
    [-1.01 -0.34  0.34]
    """
    centred = rewards - np.median(rewards)
    return centred / (1.4826 * np.median(np.abs(centred)))


def batches(seed: int, name: str, *, contexts: int, batch_size: int, steps: int) -> np.ndarray:
    """Indices ``[steps, batch_size]`` of batches: every pass over the contexts sees each of them once.

    >>> batches(0, "order", contexts=4, batch_size=2, steps=5).shape
    (5, 2)
    """
    rng, per_pass = stream(seed, name), contexts // batch_size
    passes = [rng.permutation(contexts)[: per_pass * batch_size] for _ in range(-(-steps // per_pass))]
    return np.stack(passes).reshape(-1, batch_size)[:steps].astype(np.int32)


def stream(seed: int, name: str) -> np.random.Generator:
    """A random stream of its own for every kind of number, so that none depends on how many others were drawn."""
    return np.random.default_rng([seed, *name.encode()])
