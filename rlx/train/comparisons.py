"""Responses of a group set against each other by their rewards: what preference methods and games learn from."""

from __future__ import annotations

import numpy as np

from rlx.train.loop import HostBatch


def compared(batch: HostBatch, model: str = "order") -> HostBatch:
    """The batch with the ``preferences`` that its rewards give by one of ``COMPARISONS``; see :func:`preferring`.

    >>> batch = {"rewards": np.array([[1.0, 0.0, 0.0]]), "candidate_where": np.array([[True, True, True]])}
    >>> compared(batch)["win_rates"].tolist()
    [[1.0, 0.25, 0.25]]
    """
    rewards = batch["rewards"].astype(np.float64)
    difference = rewards[:, :, None] - rewards[:, None, :]
    beats = (np.sign(difference) + 1) / 2 if model == "order" else 1 / (1 + np.exp(-np.clip(difference, -60, 60)))
    return preferring(batch, beats)


def preferring(batch: HostBatch, beats: np.ndarray) -> HostBatch:
    """The batch with ``preferences [P, K, K]``, the probability that i beats j, and their ``win_rates [P, K]``.

    A win rate is the mean over the other real responses to the prompt: an estimate of the probability to beat the
    policy that drew them. Half where there is no other one.

    >>> batch = {"candidate_where": np.array([[True, True, False]])}
    >>> preferring(batch, np.array([[[0.5, 0.75, 1.0], [0.25, 0.5, 1.0], [0.0, 0.0, 0.5]]]))["win_rates"].tolist()
    [[0.75, 0.25, 0.0]]
    """
    others = batch["candidate_where"][:, None, :] & ~np.eye(beats.shape[-1], dtype=bool)
    count = others.sum(-1)
    rates = np.where(count > 0, np.sum(beats, -1, where=others) / np.maximum(count, 1), 0.5)
    return batch | {"preferences": beats.astype(np.float32), "win_rates": rates.astype(np.float32)}


def pairs_of(batch: HostBatch) -> HostBatch:
    """The best and the worst response to each prompt, as a preference method reads them; ties are no pair.

    >>> batch = {"rewards": np.array([[0.0, 1.0, 0.5], [1.0, 1.0, 1.0]]), "candidate_where": np.ones((2, 3), bool)}
    >>> pairs = pairs_of(compared(batch))
    >>> pairs["rewards"].tolist(), pairs["candidate_where"].tolist(), pairs["preference_probs"].tolist()
    ([[1.0, 0.0], [1.0, 1.0]], [[True, True], [False, False]], [1.0, 0.5])
    """
    real, rewards = batch["candidate_where"], batch["rewards"]
    best = np.argmax(np.where(real, rewards, -np.inf), -1)
    worst = np.argmin(np.where(real, rewards, np.inf), -1)
    place = np.arange(len(rewards))
    rows = place[:, None], np.stack([best, worst], -1)
    of_candidates = {name: array for name, array in batch.items() if array.ndim > 1 and name != "preferences"}
    of_prompts = {name: array for name, array in batch.items() if array.ndim == 1}
    both = {name: array[rows] for name, array in of_candidates.items()}
    differ = both["rewards"][:, :1] > both["rewards"][:, 1:]
    of_pairs = {"preference_probs": batch["preferences"][place, best, worst]}
    return of_prompts | both | of_pairs | {"candidate_where": both["candidate_where"] & differ}
