"""What a method may read of responses beside rewards and log-probabilities: arrays that are made where they are read.

A response of one turn counts as one step. ``ARRAYS`` names them; shapes are those of :data:`rlx.types.VOCABULARY`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlx import numerics
from rlx.data.tokenizers import Tokenizer
from rlx.ops.windows import window_counts, window_threshold
from rlx.reward import entropy as of_entropy
from rlx.rollout import answers as final
from rlx.train.loop import HostBatch

CLOSING = "</think>"
"""What ends the thinking part of a response."""


class Told(NamedTuple):
    """What is known of the responses to a batch of prompts.

    Attributes:
      tokens: ``[P, K, M]``.
      where: ``[P, K, M]`` tokens that the policy wrote.
      entropy: ``[P, K, M]`` of the policy that wrote them, nats.
      correct: ``[P, K]``.
      components: name -> ``[P, K]``: the parts of a composed reward.
      real: ``[P, K]`` responses to real prompts.
      tokenizer: of the tokens.
    """

    tokens: np.ndarray
    where: np.ndarray
    entropy: np.ndarray
    correct: np.ndarray
    components: Mapping[str, np.ndarray]
    real: np.ndarray
    tokenizer: Tokenizer

    def texts(self) -> list[list[str]]:
        """The responses as text."""
        rows = zip(self.tokens, self.where, strict=True)
        return [[self.tokenizer.decode(t[w].tolist()) for t, w in zip(*row, strict=True)] for row in rows]


def make(names: Collection[str], told: Told) -> HostBatch:
    """Those of ``ARRAYS`` that are among ``names``."""
    return {name: array(told) for name, array in ARRAYS.items() if name in names}


def turn_ids(told: Told) -> np.ndarray:
    """0 at every token of a response, -1 after its end."""
    return np.where(told.where, 0, -1).astype(np.int32)


def step_ends(told: Told) -> np.ndarray:
    """``[P, K, 1]`` place of the last token of a response; -1 for one without tokens."""
    places = np.arange(told.where.shape[-1])
    return np.where(told.where, places, -1).max(-1, keepdims=True).astype(np.int32)


def objective_rewards(told: Told) -> np.ndarray:
    """``[P, K, E]`` the parts of the reward, in the order of the config and before their weights."""
    return np.stack([*told.components.values()], -1).astype(np.float32)


def answers(told: Told) -> np.ndarray:
    """Numbers of final answers, as :mod:`rlx.rollout.answers` compares them; equal ones of a prompt are alike.

    A response that gives no final answer is, as a whole, its own.
    """
    return np.array([numbered(group) for group in told.texts()], np.int32)


def numbered(texts: list[str]) -> list[int]:
    """The number of the first response with an equal answer, for each of them.

    >>> numbered(["#### 1/2", "so 0.5", "The answer is 0.5", "#### 7"])
    [0, 1, 0, 3]
    """
    given = [final.extract(text) or text.strip() for text in texts]
    return [next(i for i, other in enumerate(given) if other == one or final.equal(one, other)) for one in given]


def think_ends(told: Told) -> np.ndarray:
    """Place of the token that closes the thinking, with the last token of ``</think>``; -1 where nothing does."""
    closing = np.array(told.tokenizer.encode(CLOSING), np.int32)
    size = told.tokens.shape[-1]
    found = np.full(told.tokens.shape[:-1], -1, np.int32)
    for start in range(size - len(closing), -1, -1):  # the first one counts
        part = slice(start, start + len(closing))
        closes = (told.tokens[..., part] == closing).all(-1) & told.where[..., part].all(-1)
        found = np.where(closes, start + len(closing) - 1, found)
    return found


def difficulty(told: Told) -> np.ndarray:
    """0, 1 or 2 by the share of right responses to the prompt, for each of them."""
    of_prompts = of_entropy.difficulty(jnp.asarray(told.correct), where=jnp.asarray(told.real))
    return np.broadcast_to(np.asarray(of_prompts), told.correct.shape)


def high_entropy_counts(told: Told) -> np.ndarray:
    """Tokens that uncertain ones follow: above the batch's threshold, the median of those of its responses."""
    return np.asarray(_counts(told.entropy, told.where & told.real[..., None]))


@jax.jit
def _counts(entropy: jax.Array, where: jax.Array) -> jax.Array:
    thresholds = window_threshold(entropy, where=where)
    threshold = numerics.quantile(thresholds.ravel(), 0.5, where=where.any(-1).ravel())
    return window_counts(entropy, where, threshold, where=where).high


def refined(told: Told) -> np.ndarray:
    """0: every response is the policy's own, none was refined after a critique."""
    return np.zeros(told.where.shape, np.float32)


ARRAYS: dict[str, Callable[[Told], np.ndarray]] = {
    "turn_ids": turn_ids,
    "step_ends": step_ends,
    "objective_rewards": objective_rewards,
    "answers": answers,
    "think_ends": think_ends,
    "difficulty": difficulty,
    "high_entropy_counts": high_entropy_counts,
    "refined": refined,
}
"""Array -> what makes it."""
