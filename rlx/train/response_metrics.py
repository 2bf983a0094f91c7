"""What a step of reinforcement learning reports of the responses that it drew."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from rlx.evaluation.sampling import any_correct
from rlx.metrics import Mean, Metrics
from rlx.ops.windows import trailing_entropy
from rlx.rollout import Rollout
from rlx.rollout.rewards import Rewards
from rlx.train.draws import Drawn

PHASES = ("early", "middle", "late")
"""Thirds of a response."""


def measured(drawn: Rollout, found: Rewards, real: np.ndarray, tries: int | None = None) -> Metrics:
    """What a step reports of its responses: rewards and their parts, share of prompts with any success, length, ends.

    ``real`` is ``[P, 1]`` or ``[P, K]``. Where prompts have different numbers of responses, the share with any success
    is that among ``tries``, estimated without bias (:func:`rlx.evaluation.sampling.any_correct`).

    The entropy of the policy at the tokens that it drew comes as the mean over all tokens, over each third of the
    responses, and as the largest mean of four tokens in a row.
    """
    rewards, entropy = found.total, np.asarray(drawn.entropy)
    of_responses = np.broadcast_to(real, rewards.shape)
    where = np.asarray(drawn.where) & of_responses[..., None]
    of_parts = {f"reward/{name}": mean(values, of_responses) for name, values in found.components.items()}
    place = np.cumsum(where, -1) - 1
    third = np.minimum(place * len(PHASES) // np.maximum(where.sum(-1, keepdims=True), 1), len(PHASES) - 1)
    phases = {f"entropy_{name}": mean(entropy, where & (third == i)) for i, name in enumerate(PHASES)}
    return {
        "reward": mean(rewards, of_responses),
        **(of_parts if len(of_parts) > 1 else {}),
        "reward_failures": Mean(np.float64(found.failures), np.float64(1)),
        f"pass_at_{tries or rewards.shape[1]}": mean(_any(rewards > 0.5, of_responses, tries), real[:, 0]),
        "length": mean(drawn.lengths, of_responses),
        "finished": mean(drawn.finished, of_responses),
        "rollout_entropy": mean(entropy, where),
        "entropy_window": mean(widest(entropy, where), of_responses),
        **phases,
    }


def _any(right: np.ndarray, real: np.ndarray, tries: int | None) -> np.ndarray:
    counts, found = real.sum(-1), (right & real).sum(-1)
    return found > 0 if tries is None else any_correct(counts, found, k=tries)


def of_trees(drawn: Drawn, real: np.ndarray) -> Metrics:
    """What is reported of trees: leaves of a prompt, and the share of the tokens of responses that serves several."""
    own, every = (where & real[..., None] for where in (drawn.own, np.asarray(drawn.rollout.where)))
    return {"leaves": mean(real.sum(-1), np.any(real, -1, keepdims=True)[:, 0]), "shared_tokens": mean(~own, every)}


def mean(values: Any, selected: np.ndarray) -> Mean:
    """A metric of host arrays."""
    return Mean(np.sum(np.asarray(values, np.float64), where=selected), np.float64(np.count_nonzero(selected)))


@jax.jit
def widest(entropy: jax.Array, where: jax.Array) -> jax.Array:
    """The largest mean entropy of four tokens in a row: ``[..., M] -> [...]``."""
    return trailing_entropy(entropy, where=where).max(-1)
