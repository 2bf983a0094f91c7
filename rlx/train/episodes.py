"""Episodes of several turns as training data: played by the policy, or by the expert of the environment.

A row is the prompt and then all turns; what the policy wrote is scored, what the environment answered is only read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rlx.data.dataset import Dataset
from rlx.data.tokenizers import Tokenizer
from rlx.rollout import Rollout, environments
from rlx.rollout.episode_arrays import to_arrays
from rlx.rollout.episode_graphs import ARRAYS as OF_GROUPS
from rlx.rollout.episodes import Episode, Shape, demonstrations, play, sampled
from rlx.rollout.rewards import Rewards
from rlx.rollout.tool_rewards import rematch
from rlx.train import response_arrays
from rlx.train.assemble import Run
from rlx.train.draws import engine_of, sampling_of
from rlx.train.loop import HostBatch
from rlx.train.response_metrics import mean, measured
from rlx.train.responses import Collected
from rlx.train.rollout_settings import RolloutSettings

OF_EPISODES = (
    "turn_ids",
    "state_ids",
    "step_rewards",
    "step_ends",
    "tree_parent",
    "node_rewards",
    "node_ids",
    "edges",
    "edge_ids",
    "agent_rewards",
)
"""Arrays that episodes give beside those of responses."""
LONGEST = 10_000
"""Tokens of an action or an observation that are more than any demonstration has."""


class Episodes:
    """Plays episodes; a source of batches as :class:`rlx.train.responses.Source` says.

    Args:
      run: model, tokenizer, mesh, and the environment in the block ``task``.
      settings: of the stage's rollouts.
      dataset: of the prompts, each of which stands for an example of the environment.
      reads: arrays that are read of the batches; trees and graphs are made only then.
    """

    def __init__(self, run: Run, settings: RolloutSettings, dataset: Dataset, reads: Collection[str] = ()):
        self.run, self.settings, self.dataset, self.reads = run, settings, dataset, reads
        self.environment = environments.of_task(run.settings.task)
        self.examples = environments.starts(run.settings.task)
        turns = min(settings.turns or self.environment.turns, self.environment.turns)
        self.prompt_length = dataset.lengths.prompt
        self.shape = Shape(self.prompt_length, settings.max_new_tokens, settings.observation_tokens or 0, turns)

    def collect(self, policy: Any, batch: HostBatch, key: jax.Array, *, group: int, greedy: bool = False) -> Collected:
        """As :class:`~rlx.train.responses.Source` says."""
        last = len(self.dataset) - 1  # rows that fill up a batch play along, and count for nothing
        played = play(
            self.environment,
            [self.examples[int(self.dataset.rows[min(int(index), last)])] for index in batch["index"]],
            sampled(self._engine(greedy), policy, key),
            group=group,
            shape=self.shape,
            tokenizer=self.run.tokenizer,
        )
        if self.settings.matching is not None:
            rematch(played, matching=self.settings.matching)
        real = np.repeat(batch["candidate_where"], group, 1)
        arrays = to_arrays(played, batch["index"]) | {"candidate_where": real}
        entropy = arrays.pop("entropy")  # of the policy that played; the one that is trained has its own
        arrays |= {name: arrays[name].astype(np.float32) for name in ("rewards", "correct")}
        for name, make in OF_GROUPS.items():
            arrays |= make(played) if name in self.reads else {}
        found = self._report(arrays, entropy, played)
        told = self._told(arrays, entropy)
        arrays |= response_arrays.make([name for name in self.reads if name not in arrays], told)
        return Collected(arrays, found, int(told.where.sum()))

    def _engine(self, greedy: bool) -> Any:
        stop, mesh = self.environment.stop, self.run.mesh if self.run.mesh.size > 1 else None
        ends = (tuple(self.run.tokenizer.encode(stop)),) if stop else ()
        sampling = sampling_of(self.run, self.settings, greedy)._replace(stop=ends)
        return engine_of(self.settings.engine, self.run.model, sampling, mesh)

    def _told(self, arrays: HostBatch, entropy: np.ndarray) -> response_arrays.Told:
        tokens, where = (arrays[name][..., self.prompt_length :] for name in ("tokens", "where"))
        parts = {"reward": arrays["rewards"]}
        return response_arrays.Told(
            tokens, where, entropy, arrays["correct"], parts, arrays["candidate_where"], self.run.tokenizer
        )

    def _report(self, arrays: HostBatch, entropy: np.ndarray, played: Sequence[Sequence[Episode]]) -> dict[str, Any]:
        told = self._told(arrays, entropy)
        lengths, logprobs = told.where.sum(-1), (arrays["old_logprobs"], arrays["rollout_logprobs"])
        drawn = Rollout(told.tokens, told.where, lengths, arrays["finished"], *logprobs, entropy)  # type: ignore[arg-type]
        failures = sum(episode.failure != "" for group in played for episode in group)
        found = measured(drawn, Rewards(arrays["rewards"], dict(told.components), failures), told.real[:, :1])
        return found | {
            f"pass_at_{lengths.shape[1]}": mean((arrays["correct"] > 0).any(-1), told.real[:, 0]),
            "turns": mean((arrays["state_ids"] >= 0).sum(-1), told.real),
        }


class Demonstrations(Dataset):
    """Episodes of the environment's expert, as examples of a supervised stage.

    Args:
      dataset: of the prompts.
      task: the block of the config.
    """

    def __init__(self, dataset: Dataset, task: Mapping[str, Any]):
        shape, self.arrays = demonstrated(task, dataset.tokenizer, dataset.lengths.prompt)
        lengths = dataset.lengths._replace(response=shape.response)
        super().__init__(dataset.source, dataset.rows, dataset.kind, dataset.tokenizer, lengths)

    def _collate(self, rows: np.ndarray) -> dict:
        real = rows < len(self)
        numbers = self.rows[np.minimum(rows, len(self) - 1)]
        batch = {name: self.arrays[name][numbers] for name in ("tokens", "valid", "where")}
        batch["where"] &= real[:, None, None]
        return batch | {"candidate_where": real[:, None], "index": rows.astype(np.int32)}


def demonstrated(task: Mapping[str, Any], tokenizer: Tokenizer, prompt: int) -> tuple[Shape, HostBatch]:
    """The expert's episodes as arrays, and the smallest shape that they fit into.

    Raises:
      UserError: the environment has no expert, or too few turns for it.
    """
    environment = environments.of_task(task)
    wide = Shape(prompt, LONGEST, LONGEST, environment.turns)
    played = demonstrations(environment, environments.starts(task), shape=wide, tokenizer=tokenizer)
    steps = [step for (episode,) in played for step in episode.steps]
    widths = (max(len(step.action) for step in steps), max(len(step.observation) for step in steps))
    shape = Shape(prompt, *widths, max(len(episode.steps) for (episode,) in played))
    for (episode,) in played:
        episode.shape = shape
    return shape, to_arrays(played)
