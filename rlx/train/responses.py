"""Responses of one turn: drawn, rewarded, and laid out as a batch of the trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from rlx.data.dataset import Dataset
from rlx.metrics import Mean, Metrics
from rlx.ops.windows import trailing_entropy
from rlx.rollout import Rollout, Sampling, sample
from rlx.rollout import forks as forks_of_trees
from rlx.rollout.rewards import Reward, Rewards
from rlx.rollout.tasks import Example
from rlx.rollout.verifiers import responses_of
from rlx.train import response_arrays
from rlx.train.assemble import Run, examples
from rlx.train.loop import HostBatch
from rlx.train.rollout_settings import RolloutSettings

FORKS = 1
"""Stream of random numbers of a draw, for the branches of a tree."""
PHASES = ("early", "middle", "late")
"""Thirds of a response."""


class Collected(NamedTuple):
    """What a policy did with a batch of prompts.

    Attributes:
      batch: arrays of the trainer, ``[P, K, ...]``; ``correct [P, K]`` among them.
      metrics: what is reported of it.
      tokens: that were drawn.
    """

    batch: HostBatch
    metrics: Metrics
    tokens: int


class Source(Protocol):
    """Where a step of reinforcement learning gets its batch from.

    Attributes:
      prompt_length: positions of a row before the response.
    """

    prompt_length: int

    def collect(self, policy: Any, batch: HostBatch, key: jax.Array, *, group: int, greedy: bool = False) -> Collected:
        """Lets the policy act K = ``group`` times on each prompt of a batch; ``greedy`` takes the likeliest tokens."""
        ...


class Responses:
    """Draws responses to prompts and rewards them.

    Args:
      run: model, tokenizer and mesh.
      settings: of the stage's rollouts.
      dataset: of the prompts; its records hold the answers.
      reward: of the responses.
      reads: arrays that are read of the batches; those that cost something are made only then.
    """

    def __init__(
        self,
        run: Run,
        settings: RolloutSettings,
        dataset: Dataset,
        reward: Reward,
        reads: Collection[str] = (),
    ):
        self.run, self.settings, self.dataset, self.reward, self.reads = run, settings, dataset, reward, reads
        self.examples = examples(run.settings.task) if run.settings.task else None
        self.prompt_length = dataset.lengths.prompt

    def collect(self, policy: Any, batch: HostBatch, key: jax.Array, *, group: int, greedy: bool = False) -> Collected:
        """As :class:`Source` says."""
        drawn = self._drawn(policy, batch, key, group=group, greedy=greedy)
        found = self._rewards(drawn, batch)
        whole = training_batch(batch, drawn, found.total)
        whole["correct"] = (next(iter(found.components.values())) > 0.5).astype(np.float32)
        if not greedy:
            whole |= self._more(whole, drawn, found)
        if "baseline_rewards" in self.reads and not greedy:
            likeliest = self._drawn(policy, batch, key, group=1, greedy=True)
            whole["baseline_rewards"] = self._rewards(likeliest, batch).total[:, 0]
        return Collected(whole, measured(drawn, found, batch["candidate_where"]), int(drawn.lengths.sum()))

    def _drawn(self, policy: Any, batch: HostBatch, key: jax.Array, *, group: int, greedy: bool) -> Rollout:
        mesh = self.run.mesh if self.run.mesh.size > 1 else None
        prompts = batch["tokens"][:, 0], batch["valid"][:, 0]
        options = {"sampling": sampling_of(self.run, self.settings, greedy), "key": key, "mesh": mesh}
        forks = {} if greedy else self.settings.forks
        whole = forks_of_trees.trunks_of(group, **forks) if forks else group
        drawn = sample(self.run.model, policy, *prompts, group=whole, **options)
        if forks:
            options["key"] = jax.random.fold_in(key, FORKS)
            drawn = forks_of_trees.grow(self.run.model, policy, *prompts, drawn, **forks, **options)
        return jax.device_get(drawn)

    def _more(self, whole: HostBatch, drawn: Rollout, found: Rewards) -> HostBatch:
        told = response_arrays.Told(
            np.asarray(drawn.tokens),
            np.asarray(drawn.where),
            np.asarray(drawn.entropy),
            whole["correct"],
            found.components,
            whole["candidate_where"],
            self.run.tokenizer,
        )
        return response_arrays.make(self.reads, told)

    def _rewards(self, drawn: Rollout, batch: HostBatch) -> Rewards:
        own = [self._example(int(index)) for index in batch["index"]]
        tokens, where = np.asarray(drawn.tokens), np.asarray(drawn.where)
        ids = responses_of(tokens, where & (tokens != self.run.tokenizer.eos_id))
        return self.reward(ids, own, np.asarray(drawn.lengths), where=batch["candidate_where"][:, 0])

    def _example(self, index: int) -> Example:
        if index >= len(self.dataset):
            return Example("", "")
        row = int(self.dataset.rows[index])
        if self.examples is not None:
            return self.examples[row]
        record = self.dataset.source[row]
        return Example(str(record.prompt), str(record.responses[0]) if record.responses else "")


def sampling_of(run: Run, settings: RolloutSettings, greedy: bool) -> Sampling:
    """How a stage draws, or how it is evaluated: by the likeliest tokens."""
    numbers: dict[str, Any] = {
        name: None if greedy else getattr(settings, name) for name in ("top_k", "top_p", "min_p")
    }
    ends: dict[str, Any] = {"eos_id": run.tokenizer.eos_id, "pad_id": run.tokenizer.pad_id}
    return Sampling(settings.max_new_tokens, temperature=0.0 if greedy else settings.temperature, **numbers, **ends)


def training_batch(batch: HostBatch, drawn: Rollout, rewards: np.ndarray) -> HostBatch:
    """The responses as a batch of the trainer: the prompt stands before every one of its K responses.

    Args:
      batch: of prompts, ``tokens [P, 1, L]``.
      drawn: the responses.
      rewards: ``[P, K]``.
    """
    group = drawn.tokens.shape[1]

    def both(prompt: np.ndarray, response: Any) -> np.ndarray:
        return np.concatenate([np.repeat(prompt, group, 1), np.asarray(response)], -1)

    return {
        "tokens": both(batch["tokens"], drawn.tokens),
        "valid": both(batch["valid"], drawn.where),
        "where": both(np.zeros_like(batch["valid"]), drawn.where),
        "candidate_where": np.repeat(batch["candidate_where"], group, 1),
        "index": batch["index"],
        "rewards": rewards,
        "token_rewards": at_last(rewards, np.asarray(drawn.where)),
        "correct": (rewards > 0.5).astype(np.float32),
        "finished": np.asarray(drawn.finished),
        "old_logprobs": np.asarray(drawn.logprobs),
        "rollout_logprobs": np.asarray(drawn.rollout_logprobs),
    }


def at_last(rewards: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Rewards ``[...]`` as those of tokens ``[..., M]``, given at the last real one.

    >>> at_last(np.array([2.0]), np.array([[True, True, False]])).tolist()
    [[0.0, 2.0, 0.0]]
    """
    last = where & (np.cumsum(where, -1) == where.sum(-1, keepdims=True))
    return np.where(last, rewards[..., None], 0).astype(np.float32)


def measured(drawn: Rollout, found: Rewards, real: np.ndarray) -> Metrics:
    """What a step reports of its responses: rewards and their parts, share of prompts with any success, length, ends.

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
        f"pass_at_{rewards.shape[1]}": mean((rewards > 0.5).any(-1), real[:, 0]),
        "length": mean(drawn.lengths, of_responses),
        "finished": mean(drawn.finished, of_responses),
        "rollout_entropy": mean(entropy, where),
        "entropy_window": mean(widest(entropy, where), of_responses),
        **phases,
    }


def mean(values: Any, selected: np.ndarray) -> Mean:
    """A metric of host arrays."""
    return Mean(np.sum(np.asarray(values, np.float64), where=selected), np.float64(np.count_nonzero(selected)))


@jax.jit
def widest(entropy: jax.Array, where: jax.Array) -> jax.Array:
    """The largest mean entropy of four tokens in a row: ``[..., M] -> [...]``."""
    return trailing_entropy(entropy, where=where).max(-1)


def chosen_rows(batch: HostBatch, keep: int) -> HostBatch:
    """``keep`` rows of a batch, those whose responses differ in reward first; others of them count for nothing.

    DAPO's dynamic sampling in a static shape: more prompts are drawn than learnt from. Rows keep their order, so that
    the rest of a step knows nothing of it.

    >>> batch = {"rewards": np.array([[1, 1], [0, 1], [0, 0]]), "candidate_where": np.ones((3, 2), bool)}
    >>> chosen_rows(batch, 2)["candidate_where"].tolist()
    [[False, False], [True, True]]
    """
    real = batch["candidate_where"]
    high = np.where(real, batch["rewards"], -np.inf).max(-1)
    varied = high > np.where(real, batch["rewards"], np.inf).min(-1)
    rows = np.sort(np.argsort(~varied, kind="stable")[:keep])
    kept = {name: array[rows] for name, array in batch.items()}
    return kept | {"candidate_where": kept["candidate_where"] & varied[rows, None]}


@dataclasses.dataclass
class Speed:
    """Tokens and seconds since the last row, for the rates that are shown; no part of what a run computes."""

    sampled: float = 0.0
    sample_s: float = 0.0
    update_s: float = 0.0

    def add(self, sampled: int, sample_s: float, update_s: float) -> None:
        """Counts tokens drawn, and seconds of drawing and of updates."""
        self.sampled += sampled
        self.sample_s += sample_s
        self.update_s += update_s

    def take(self) -> dict[str, float]:
        """Tokens per second of sampling and of updates, and a new start."""
        rates = [self.sampled / seconds if seconds else 0.0 for seconds in (self.sample_s, self.update_s)]
        self.sampled = self.sample_s = self.update_s = 0.0
        return {"sample_tokens_per_s": rates[0], "update_tokens_per_s": rates[1]}
