"""Responses of one turn: drawn, rewarded, and laid out as a batch of the trainer."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from rlx.data.dataset import Dataset
from rlx.data.tokenizers import Tokenizer, end_ids
from rlx.metrics import Metrics
from rlx.rollout import Rollout, segments
from rlx.rollout.rewards import Reward, Rewards
from rlx.rollout.tasks import Example
from rlx.rollout.verifiers import responses_of
from rlx.train import response_arrays
from rlx.train.assemble import Run, examples
from rlx.train.draws import Drawn, draw
from rlx.train.loop import HostBatch
from rlx.train.response_metrics import measured, of_trees
from rlx.train.rollout_parts import budget_of
from rlx.train.rollout_settings import RolloutSettings
from rlx.train.shared_rewards import rewarded


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
        """As :class:`Source` says; prompts may bring along how many responses each gets (:mod:`rlx.train.draws`)."""
        reads = () if greedy else self.reads
        drawn = draw(self.run, self.settings, policy, batch, key, group=group, greedy=greedy)
        found = self._rewards(drawn, batch)
        whole = batch_of(self.run.tokenizer, reads, batch, drawn, found)
        if "baseline_rewards" in reads:
            likeliest = draw(self.run, self.settings, policy, batch, key, group=1, greedy=True)
            whole["baseline_rewards"] = self._rewards(likeliest, batch).total[:, 0]
        budget = None if greedy else budget_of(self.settings.budget, group)
        reported = measured(drawn.rollout, found, whole["candidate_where"], budget and budget.n_low)
        if drawn.trees is not None:
            reported |= of_trees(drawn, whole["candidate_where"])
        return Collected(whole, reported, int(np.count_nonzero(drawn.own)))

    def _rewards(self, drawn: Drawn, batch: HostBatch) -> Rewards:
        """Rewards ``[P, K]``; nobody sees what is absent behind the responses to a prompt, which gets 0."""
        own = [self._example(int(index)) for index in batch["index"]]
        tokens, where, lengths = (np.asarray(x) for x in drawn.rollout[:3])
        size = where.shape[1]
        counts = np.full(len(own), size) if drawn.trees else drawn.present.sum(-1)
        ids = responses_of(tokens, where & ~np.isin(tokens, end_ids(self.run.tokenizer)))
        ids = [group[:count] for group, count in zip(ids, counts, strict=True)]
        widest = int(counts.max(initial=0))
        found = rewarded(self.reward, ids, own, lengths[:, :widest], batch["candidate_where"][:, 0])
        total, *parts = (np.pad(x, ((0, 0), (0, size - widest))) for x in (found.total, *found.components.values()))
        return Rewards(total, dict(zip(found.components, parts, strict=True)), found.failures)

    def _example(self, index: int) -> Example:
        if index >= len(self.dataset):
            return Example("", "")
        row = int(self.dataset.rows[index])
        if self.examples is not None:
            return self.examples[row]
        record = self.dataset.source[row]
        answer = str(record.responses[0]) if record.responses else ""
        return Example(str(record.prompt), answer, {"place": f"row {row} of the data"})


def batch_of(tokenizer: Tokenizer, reads: Collection[str], batch: HostBatch, drawn: Drawn, found: Rewards) -> HostBatch:
    """Rewarded responses as a batch of the trainer, with those of the arrays ``reads`` that they give."""
    rollout = drawn.rollout
    whole = training_batch(batch, rollout, found.total)
    whole["candidate_where"] = whole["candidate_where"] & drawn.present
    whole["correct"] = (next(iter(found.components.values())) > 0.5).astype(np.float32)
    if drawn.trees is not None:
        size = drawn.own.shape[-1]
        learnt = np.concatenate([whole["where"][..., :-size], drawn.own], -1)  # each token of a tree once
        whole |= {"where": learnt, **segments.arrays_of(drawn.trees, found.total)}
    tokens, where, entropy = (np.asarray(x) for x in (rollout.tokens, rollout.where, rollout.entropy))
    rewarded = whole["correct"], found.components, whole["candidate_where"]
    told = response_arrays.Told(tokens, where, entropy, *rewarded, tokenizer)
    return whole | response_arrays.make([name for name in reads if name not in whole], told)


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
