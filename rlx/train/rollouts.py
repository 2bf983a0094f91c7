"""Reinforcement learning in a stage: prompts -> responses of the policy -> rewards -> updates, as one step of the loop.

A step of the loop is one batch of prompts and all updates on its responses. Its random numbers follow from the key and
the number of updates in the train state alone, and it leaves nothing behind: a checkpoint between two steps resumes to
the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from rlx import metrics, stages
from rlx.data.dataset import Dataset
from rlx.errors import UserError
from rlx.metrics import Mean, Metrics
from rlx.rollout import rewards
from rlx.rollout.rewards import Reward
from rlx.train import critic, response_arrays
from rlx.train.assemble import Run, Stage
from rlx.train.comparisons import compared, pairs_of
from rlx.train.episodes import OF_EPISODES, Episodes
from rlx.train.forward import Forward
from rlx.train.loop import HostBatch, Programs
from rlx.train.policies import SAMPLER
from rlx.train.programs import as_read, standing, this_process
from rlx.train.responses import Responses, Source, Speed, chosen_rows, mean
from rlx.train.reward_models import finder
from rlx.train.settings import RolloutSettings
from rlx.train.sharding import put_batch
from rlx.train.state import TrainState
from rlx.train.step import make_train_step

DRAWS, ORDER, ESTIMATE = 1, 2, 3  # streams of random numbers of a step


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


def make_rollout_programs(
    run: Run, stage: Stage, train_set: Dataset, held_out: Dataset, held: Any, reward_model: Any = None
) -> Programs:
    """The functions that the loop of a stage of reinforcement learning calls; arguments as ``make_programs`` has them.

    ``reward_model`` is what the stage ``reward`` has trained. The evaluation draws the most probable response to every
    held-out prompt; its ``accuracy`` is the share that is correct.
    """
    settings = stage.rollout
    assert settings is not None  # a stage of this kind
    beside, models = standing(stage, held)
    lengths = train_set.lengths.prompt, settings.max_new_tokens
    reward = reward_of(settings, run, finder(run, lengths, reward_model))
    source, tests = (source_of(run, stage, dataset, reward) for dataset in (train_set, held_out))
    update = make_train_step(
        run.model,
        stage.method,
        stage.optimizer,
        mesh=run.mesh,
        prompt_length=source.prompt_length,
        micro_batches=stage.settings.micro_batches,
        rules=stage.rules,
        models=models,
    )
    reads_advantages = "advantages" in stage.reads
    more = OF_EPISODES if "environment" in run.settings.task else ()
    options = {"critic": bool(settings.critic), "more": more}
    estimate = make_estimator(settings.advantage, **options) if reads_advantages else None
    judge = _critic(run, settings, source.prompt_length)
    speed = Speed()

    def learn_from(policy: Any, batch: HostBatch, key: jax.Array) -> HostBatch:
        """The batch as the method reads it: of the rows that are kept, with what responses alone do not give."""
        if settings.keep is not None:
            batch = chosen_rows(batch, settings.keep)
        if stage.compares or "win_rates" in stage.reads:
            batch = compared(batch, settings.preference)
        if stage.compares:
            batch = pairs_of(batch) if stage.compares == "pairs" else batch
            return as_read(batch | {"scores": batch["rewards"]}, stage.method)
        if judge is not None:
            batch = batch | judge(policy, put_batch(batch, run.mesh))
        if estimate is not None:
            batch = batch | {"advantages": estimate(batch, jax.random.fold_in(key, ESTIMATE))}
        return batch

    def step(state: TrainState, batch: HostBatch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        began = time.perf_counter()
        policy = jax.block_until_ready(state.followers.get(SAMPLER, state.params["policy"]))
        ready = time.perf_counter()
        drawn = source.collect(policy, batch, jax.random.fold_in(key, DRAWS), group=settings.group)
        speed.add(drawn.tokens, time.perf_counter() - ready, ready - began)
        whole = learn_from(state.params["policy"], drawn.batch, key)
        found = drawn.metrics | {"staleness": staleness(state, settings)}
        began = time.perf_counter()
        for rows in minibatches(len(whole["tokens"]), settings, jax.random.fold_in(key, ORDER)):
            piece = {name: array[rows] for name, array in whole.items()}
            state, of_update = update(state, put_batch(piece, run.mesh), beside)
            found = metrics.merge(found, of_update)
        speed.add(0, 0.0, time.perf_counter() - began)
        return state, found

    def evaluate(state: TrainState, batch: HostBatch) -> Mapping[str, Any]:
        drawn = tests.collect(state.params["policy"], batch, jax.random.PRNGKey(0), group=1, greedy=True)
        correct = mean(drawn.batch["correct"], drawn.batch["candidate_where"])
        return {name: drawn.metrics[name] for name in ("reward", "length")} | {"accuracy": correct}

    size = stage.settings.batch_size
    batches = lambda: held_out.batches(size, **this_process()) if len(held_out) else ()  # noqa: E731
    return Programs(step, evaluate, batches, speed.take)


def source_of(run: Run, stage: Stage, dataset: Dataset, reward: Reward) -> Source:
    """What the config draws: episodes of an environment, or responses of one turn."""
    assert stage.rollout is not None  # a stage of this kind
    if "environment" in run.settings.task:
        return Episodes(run, stage.rollout, dataset, stage.reads)
    return Responses(run, stage.rollout, dataset, reward, stage.reads)


def _critic(run: Run, settings: RolloutSettings, prompt_length: int) -> Callable[..., HostBatch] | None:
    """What gives the values at the time of the rollout, and returns; None without a value head to train."""
    own = critic.settings_of(settings.critic)
    if own is None:
        return None
    mesh = run.mesh if run.mesh.size > 1 else None
    return critic.make_critic(Forward(run.model, prompt_length=prompt_length, mesh=mesh), own)


def staleness(state: TrainState, settings: RolloutSettings) -> Mean:
    """Steps since the policy that draws was the one that is trained."""
    return Mean(state.step // settings.updates % settings.sync_every, jax.numpy.ones(()))


def reward_of(settings: RolloutSettings, run: Run, models: rewards.Models) -> Reward:
    """The composed reward of a config, or the verifier of its task."""
    config = settings.reward or {"verifier": settings.verifier_of(run.settings.task)}
    return rewards.build(config, run.tokenizer, models)


def minibatches(size: int, settings: RolloutSettings, key: jax.Array) -> Sequence[np.ndarray]:
    """Row numbers of every update: ``epochs`` times all prompts, in ``minibatches`` parts of an order of their own.

    >>> [rows.tolist() for rows in minibatches(4, RolloutSettings(max_new_tokens=1, epochs=2), jax.random.PRNGKey(0))]
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    if settings.minibatches == 1:
        return [np.arange(size)] * settings.epochs
    orders = (jax.random.permutation(jax.random.fold_in(key, epoch), size) for epoch in range(settings.epochs))
    return [rows for order in orders for rows in np.split(np.asarray(order), settings.minibatches)]
