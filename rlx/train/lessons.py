"""From what a source has collected to what the updates of a step learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from rlx import stages
from rlx.errors import UserError
from rlx.metrics import Metrics
from rlx.rollout import segments
from rlx.train import critic, response_arrays
from rlx.train.assemble import Run, Stage
from rlx.train.comparisons import compared, pairs_of
from rlx.train.episodes import OF_EPISODES
from rlx.train.forward import Forward
from rlx.train.loop import HostBatch
from rlx.train.programs import as_read
from rlx.train.responses import chosen_rows
from rlx.train.reward_models import RewardModel
from rlx.train.rollout_settings import COMPARISONS, RolloutSettings
from rlx.train.sharding import put_whole
from rlx.train.tempered import Tempered

ESTIMATE, TEMPERED = 3, 4
"""Streams of random numbers of a step, beside those of :mod:`rlx.train.rollouts`."""

OF_RESPONSES = (
    "rewards",
    "token_rewards",
    "values",
    "correct",
    "finished",
    "lengths",
    "group_where",
    "old_logprobs",
    "rollout_logprobs",
    "baseline_rewards",
    *response_arrays.ARRAYS,
)
"""What an estimator of advantages outside of a recipe may read."""


def make_estimator(
    spec: str, *, critic: bool = False, more: Sequence[str] = ()
) -> Callable[[HostBatch, jax.Array], np.ndarray]:
    """``(training batch, key) -> advantages [P, K, 1]`` or ``[P, K, M]`` by an estimator of the catalogue.

    Args:
      spec: the estimator, with or without arguments.
      critic: whether there are values.
      more: arrays that episodes give beside those of responses.

    Raises:
      UserError: there is none of this name, it has no such keyword, or it reads what responses alone do not give.
    """
    (part,) = stages.parts_of("advantage", spec)
    given = [name for name in (*OF_RESPONSES, *more) if critic or name != "values"]
    lacking = [name for name in part.reads if name not in given]
    if lacking:
        raise UserError(
            f"config.rl.rollout.advantage={spec!r} reads {', '.join(lacking)}, which responses alone do not give. "
            f"There are: {', '.join(given)}; a critic gives values."
        )

    @jax.jit
    def estimate(arrays: dict[str, jax.Array], where: jax.Array, key: jax.Array) -> jax.Array:
        pool = arrays | {"lengths": where.sum(-1), "group_where": where.any(-1)}
        return stages.Run(pool, where, key, None).tokens(part)

    def advantages(batch: HostBatch, key: jax.Array) -> np.ndarray:
        where = batch["where"][..., -batch["old_logprobs"].shape[-1] :] & batch["candidate_where"][..., None]
        given = batch | ({"values": batch["old_values"]} if "old_values" in batch else {})
        return np.asarray(estimate({k: given[k] for k in (*part.reads, *part.optional) if k in given}, where, key))

    return advantages


class Lessons:
    """Makes the batch of the updates: rows that are kept, pairs, values, advantages, tempered responses.

    Args:
      run: model and mesh.
      stage: says what the method reads.
      prompt_length: positions of a row before the response.
      tempered: responses at another temperature, where the config has them.
      models: finds the learned model that compares responses, where the config names one.
    """

    def __init__(
        self,
        run: Run,
        stage: Stage,
        prompt_length: int,
        tempered: Tempered | None = None,
        models: Callable[..., RewardModel] | None = None,
    ):
        assert stage.rollout is not None  # a stage of reinforcement learning
        self.run, self.stage, self.settings, self.tempered = run, stage, stage.rollout, tempered
        self.judge = make_judge(run, self.settings, prompt_length)
        self.compare = make_comparison(self.settings.preference, models)
        more = OF_EPISODES if "environment" in run.settings.task else segments.ARRAYS if self.settings.segments else ()
        options = {"critic": self.judge is not None, "more": more}
        reads = "advantages" in stage.reads
        self.estimate = make_estimator(self.settings.advantage, **options) if reads else None

    def __call__(self, policy: Any, prompts: HostBatch, batch: HostBatch, key: jax.Array) -> tuple[HostBatch, Metrics]:
        """The batch as the method reads it, and what is reported of it.

        Args:
          policy: that is trained.
          prompts: of the step.
          batch: what a source has collected on them.
          key: of the step.
        """
        found: Metrics = {}
        if self.settings.keep is not None:
            batch = chosen_rows(batch, self.settings.keep)
        if self.stage.compares or "win_rates" in self.stage.reads:
            batch = self.compare(batch)
        if self.stage.compares:
            batch = pairs_of(batch) if self.stage.compares == "pairs" else batch
            return as_read(batch | {"scores": batch["rewards"]}, self.stage.method), found
        if self.judge is not None:
            batch = batch | self.judge(policy, put_whole(batch, self.run.mesh))
        if self.estimate is not None:
            batch = batch | {"advantages": self.estimate(batch, jax.random.fold_in(key, ESTIMATE))}
        if self.tempered is not None:
            return self.tempered.mix(policy, prompts, batch, jax.random.fold_in(key, TEMPERED))
        return batch, found


def make_comparison(preference: str, models: Callable[..., RewardModel] | None) -> Callable[[HostBatch], HostBatch]:
    """What compares responses: their rewards, or a learned model, whose win rates then are their rewards."""
    if preference in COMPARISONS:
        return partial(compared, model=preference)
    assert models is not None  # a run has learned models
    model = models(preference, win_rate=True)

    def compare(batch: HostBatch) -> HostBatch:
        found = model.compare(batch)
        return found | {"rewards": found["win_rates"]}

    return compare


def make_judge(run: Run, settings: RolloutSettings, prompt_length: int) -> Callable[..., HostBatch] | None:
    """What gives the values at the time of the rollout, and returns; None without a value head to train."""
    own = critic.settings_of(settings.critic)
    if own is None:
        return None
    mesh = run.mesh if run.mesh.size > 1 else None
    return critic.make_critic(Forward(run.model, prompt_length=prompt_length, mesh=mesh), own)
