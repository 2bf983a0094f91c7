"""AEPO-arbitrary (arXiv:2510.08141): good responses drawn at another temperature take places in the batch.

Reinforcing what was drawn hot raises the entropy of the policy, reinforcing what was drawn cold lowers it: the
temperature of every step follows from the entropy of the responses to its prompts, and from nothing that a checkpoint
would have to hold. (The released code takes the entropy of the update before.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rlx.data.dataset import Dataset
from rlx.errors import UserError
from rlx.metrics import Mean, Metrics
from rlx.policy.advantages import grpo_advantage
from rlx.policy.aepo import Tempered as Chosen
from rlx.policy.aepo import aepo_arbitrary, replace_rows
from rlx.rollout.rewards import Reward
from rlx.train.assemble import Run, Stage
from rlx.train.blocks import block_of
from rlx.train.loop import HostBatch
from rlx.train.responses import Responses, Source
from rlx.train.sharding import batch_shards


@dataclasses.dataclass(frozen=True)
class TemperedSettings:
    """The block ``rollout.tempered``; the other defaults are those of the released code.

    Attributes:
      target: entropy (nats) that is held: the mean of -log pi over drawn tokens.
      high: temperature below the target.
      low: temperature above it.
      number: tempered responses that join the batch at most; half as many above the target.
      threshold: a response is good above this advantage in its group.
      share: of the prompts, the first of the batch, that get tempered responses; over several devices, rounded to as
        many for each of them, one at least.
    """

    target: float
    high: float = 1.2
    low: float = 0.8
    number: int = 60
    threshold: float = 0.05
    share: float = 0.25


def settings_of(block: Mapping[str, Any]) -> TemperedSettings | None:
    """The block, checked; None where it is empty.

    Raises:
      UserError: an unknown key, no target, or numbers out of range.

    >>> settings_of({"target": 0.5}).high
    1.2
    """
    if not block:
        return None
    found = block_of(TemperedSettings, block, "rl.rollout.tempered")
    if not (0 < found.low <= found.high and 0 < found.share <= 1 and found.number >= 1):
        raise UserError(
            f"config.rl.rollout.tempered needs 0 < low <= high, 0 < share <= 1 and number >= 1, not {found}."
        )
    return found


class Tempered:
    """Draws tempered responses and puts the good ones in the first places of a batch, with advantage 1.

    Args:
      sources: what draws, by temperature: ``settings.low`` and ``settings.high``.
      settings: when, how hot and how many.
      shards: over how many shards the prompts are spread.
    """

    def __init__(self, sources: Mapping[float, Source], settings: TemperedSettings, shards: int = 1):
        self.sources, self.settings, self.shards = sources, settings, shards

    def mix(self, policy: Any, prompts: HostBatch, batch: HostBatch, key: jax.Array) -> tuple[HostBatch, Metrics]:
        """The batch with tempered responses in it, and what is reported of them.

        Args:
          policy: that draws.
          prompts: of the step.
          batch: responses to these prompts, with ``advantages``.
          key: of the draws.
        """
        entropy, group = surprise(batch), batch["rewards"].shape[1]
        temperature = self._select(np.zeros(0), entropy).temperature
        count = self.shards * max(1, round(self.settings.share * len(prompts["tokens"]) / self.shards))
        some = {name: array[:count] for name, array in prompts.items()}
        drawn = self.sources[temperature].collect(policy, some, key, group=group).batch
        rewards, real = (jax.numpy.asarray(drawn[name]) for name in ("rewards", "candidate_where"))
        good = np.asarray(grpo_advantage(rewards, where=real))[..., 0]  # 0 for responses to no real prompt
        rows = self._select(good.ravel(), entropy).rows
        flat = {name: array for name, array in batch.items() if array.shape[:2] == batch["rewards"].shape}
        mixed = replace_rows(_flat(flat), _flat({name: drawn[name] for name in flat if name != "advantages"}), rows)
        found = {name: array.reshape(flat[name].shape) for name, array in mixed.items()}
        one = np.float64(1)
        reported: Metrics = {
            "tempered": Mean(np.float64(len(rows) / good.size), one),
            "temperature": Mean(np.float64(temperature), one),
        }
        return batch | found, reported

    def _select(self, advantages: np.ndarray, entropy: float) -> Chosen:
        s = self.settings
        return aepo_arbitrary(
            advantages, entropy, target=s.target, high=s.high, low=s.low, number=s.number, threshold=s.threshold
        )


def make(run: Run, stage: Stage, dataset: Dataset, reward: Reward) -> Tempered | None:
    """What draws tempered responses for a stage; None where its config has none.

    Raises:
      UserError: the method does not read advantages, or the config has what does not go with it.
    """
    settings = stage.rollout
    assert settings is not None  # a stage of reinforcement learning
    if not settings.tempered:
        return None
    chosen = check(run, stage)
    at = {t: dataclasses.replace(settings, temperature=t) for t in (chosen.low, chosen.high)}
    sources = {t: Responses(run, own, dataset, reward, stage.reads) for t, own in at.items()}
    return Tempered(sources, chosen, batch_shards(run.mesh))


def check(run: Run, stage: Stage) -> TemperedSettings:
    """The settings of a stage that has them.

    Raises:
      UserError: the method does not read advantages, or the config has what does not go with it.
    """
    rollout = stage.rollout
    found = settings_of(rollout.tempered) if rollout else None
    assert rollout is not None and found is not None  # the caller has looked at it
    if "advantages" not in stage.reads:
        raise UserError(
            f"config.rl.rollout.tempered sets advantages to 1, which {stage.method.name} does not read: take a method "
            "that does, ppo_clip_loss for example."
        )
    unlike = {
        "critic": bool(rollout.critic),
        "keep": rollout.keep is not None,
        "sync_every": rollout.sync_every > 1,
        "shared_prefix": rollout.shared_prefix,  # a response may take a place in the group of another prompt
        "task.environment": "environment" in run.settings.task,
    }
    for name, present in unlike.items():
        if present:
            raise UserError(f"config.rl.rollout.tempered does not go with {name}: leave out one of them.")
    return found


def surprise(batch: HostBatch) -> float:
    """The mean of -log pi over the real response tokens of a batch: its entropy as it was sampled, in nats."""
    logprobs = batch["old_logprobs"]
    where = batch["where"][..., -logprobs.shape[-1] :] & batch["candidate_where"][..., None]
    return float(-np.mean(logprobs, where=where)) if where.any() else 0.0


def _flat(arrays: Mapping[str, np.ndarray]) -> HostBatch:
    """``[P, K, ...] -> [P K, ...]``."""
    return {name: array.reshape(-1, *array.shape[2:]) for name, array in arrays.items()}
