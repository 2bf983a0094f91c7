"""What a stage of reinforcement learning remembers from step to step, as a part of the train state.

Earlier responses to learn from again (:mod:`rlx.train.replay`), and how often every prompt was answered rightly when it
was last drawn (:mod:`rlx.train.budget`). Arrays of static shape on the host; a checkpoint holds them with the rest.
"""

from __future__ import annotations

from typing import Any

import jax

from rlx.data import pipeline
from rlx.errors import UserError
from rlx.metrics import Metrics
from rlx.train import budget, replay
from rlx.train.assemble import Run, Stage
from rlx.train.draws import SHARES
from rlx.train.loop import HostBatch
from rlx.train.rollout_parts import budget_of

REPLAY, RATES = "replay", "success_rates"
"""Names within ``TrainState.memory``."""


def blank(run: Run, stage: Stage, examples: int) -> dict[str, Any]:
    """The memory of a stage as it starts; empty where its config needs none."""
    settings, found = stage.rollout, {}
    if settings and settings.replay:
        length = pipeline.check(stage.data, stage.kind)["max_prompt_length"]
        found[REPLAY] = replay.blank(run, stage, length)
    if settings and settings.budget:
        found[RATES] = budget.blank(examples)
    return found


def check(stage: Stage) -> None:
    """Makes sure that the method of a stage goes with its blocks ``replay`` and ``segments``.

    Raises:
      UserError: it does not.
    """
    settings = stage.rollout
    if settings and settings.replay:
        replay.estimator_of(stage)
    if settings and settings.segments and "tree_parent" not in stage.reads:
        raise UserError(
            f"config.rl.rollout.segments draws trees, and {stage.method.name} reads none, so that it would take a "
            "segment for the response of its first leaf: set config.method.advantage='spo_tree', or "
            "config.rl.rollout.advantage for a method that reads advantages."
        )


class Memory:
    """Uses the memory of a stage in its steps.

    Args:
      stage: says what is remembered.
    """

    def __init__(self, stage: Stage):
        assert stage.rollout is not None  # a stage of reinforcement learning
        self.group = stage.rollout.group
        self.replay = replay.Replay(stage) if stage.rollout.replay else None
        self.budget = budget_of(stage.rollout.budget, self.group)

    def ask(self, held: dict[str, Any], prompts: HostBatch) -> HostBatch:
        """The prompts of a step, with the number of responses to each where these differ."""
        if self.budget is None:
            return prompts
        rates = budget.rates_of(held[RATES], prompts)
        return prompts | {SHARES: budget.allocate(rates, self.group, self.budget)}

    def learn(
        self, held: dict[str, Any], prompts: HostBatch, drawn: HostBatch, batch: HostBatch, key: jax.Array, step: int
    ) -> tuple[HostBatch, dict[str, Any], Metrics]:
        """The batch that updates learn from, the memory after the step, and what is reported of both.

        Args:
          held: the memory before.
          prompts: of the step.
          drawn: the responses to them.
          batch: as the updates would read it.
          key: of what is drawn here.
          step: updates before this step.
        """
        found, after = {}, dict(held)
        if self.budget is not None:
            found |= budget.measured(budget.rates_of(held[RATES], prompts), drawn)
            after[RATES] = budget.remember(held[RATES], drawn)
        if self.replay is not None:
            batch, after[REPLAY], of_replay = self.replay(held[REPLAY], batch, key, step)
            found |= of_replay
        return batch, after, found
