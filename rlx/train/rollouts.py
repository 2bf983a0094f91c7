"""Reinforcement learning in a stage: prompts -> responses of the policy -> rewards -> updates, as one step of the loop.

A step of the loop is one batch of prompts and all updates on its responses. Its random numbers follow from the key and
the number of updates in the train state alone, and it leaves nothing behind: a checkpoint between two steps resumes to
the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from rlx import metrics
from rlx.data.dataset import Dataset
from rlx.metrics import Mean, Metrics
from rlx.models.moving import join
from rlx.rollout import rewards
from rlx.rollout.rewards import Reward
from rlx.train import packing, tempered
from rlx.train.assemble import Run, Stage
from rlx.train.episodes import Episodes
from rlx.train.lessons import Lessons
from rlx.train.loop import HostBatch, Programs
from rlx.train.memory import Memory
from rlx.train.policies import SAMPLER
from rlx.train.programs import standing
from rlx.train.response_metrics import mean
from rlx.train.responses import Responses, Source, Speed
from rlx.train.reward_models import finder
from rlx.train.rollout_settings import RolloutSettings
from rlx.train.state import TrainState
from rlx.train.updates import make_updates

DRAWS, ORDER, MEMORY = 1, 2, 5  # streams of random numbers of a step, beside those of rlx.train.lessons


def make_rollout_programs(
    run: Run, stage: Stage, train_set: Dataset, held_out: Dataset, held: Any, reward_model: Any = None
) -> Programs:
    """The functions that the loop of a stage of reinforcement learning calls; arguments as ``make_programs`` has them.

    ``reward_model`` is what the stage ``reward`` has trained. The evaluation draws the most probable response to every
    held-out prompt; its ``accuracy`` is the share that is correct.
    """
    settings = stage.rollout
    assert settings is not None  # a stage of this kind
    beside, models_of_roles = standing(stage, held, run)
    lengths = train_set.lengths.prompt, settings.max_new_tokens
    models = finder(run, lengths, reward_model)
    reward = reward_of(settings, run, models)
    source, tests = (source_of(run, stage, dataset, reward) for dataset in (train_set, held_out))
    updates = make_updates(run, stage, beside, models_of_roles, source.prompt_length)
    lay = packing.make_packer(stage.settings, stage.name, prompt_length=source.prompt_length, mesh=run.mesh)
    lessons = Lessons(run, stage, source.prompt_length, tempered.make(run, stage, train_set, reward), models)
    speed, memory = Speed(), Memory(stage)
    learnt: HostBatch = {}

    def step(state: TrainState, batch: HostBatch) -> tuple[TrainState, Metrics]:
        own = updates.plain(state._replace(opt_state=()))  # which nobody reads here
        key = jax.device_get(jax.random.fold_in(own.key, own.step))  # what the host draws, every process draws
        began = time.perf_counter()
        policy = jax.block_until_ready(sampler_of(own))
        ready = time.perf_counter()
        held = jax.device_get(own.memory)
        asked = memory.ask(held, batch)
        drawn = source.collect(policy, asked, jax.random.fold_in(key, DRAWS), group=settings.group)
        speed.add(drawn.tokens, time.perf_counter() - ready, ready - began)
        whole, found = lessons(own.params["policy"], batch, drawn.batch, key)
        place = jax.random.fold_in(key, MEMORY), int(own.step)
        whole, held, remembered = memory.learn(held, batch, drawn.batch, whole, *place)
        found = drawn.metrics | found | remembered | {"staleness": staleness(own, settings)}
        began, state = time.perf_counter(), state._replace(memory={})  # no update reads it
        for rows in minibatches(len(whole["tokens"]), settings, jax.random.fold_in(key, ORDER)):
            state, of_update = updates.step(state, lay({name: array[rows] for name, array in whole.items()}))
            found = metrics.merge(found, of_update)
        speed.add(0, 0.0, time.perf_counter() - began)
        learnt.update(whole)
        return state._replace(memory=held), found

    return Programs(
        step,
        evaluation(tests),
        held_out_batches(held_out, stage),
        speed.take,
        learnt=lambda: dict(learnt),
        begin=updates.begin,
        plain=updates.plain,
    )


def sampler_of(state: TrainState) -> Any:
    """The policy that draws: one that follows, where the stage has it, and its own."""
    policy = state.params["policy"]
    return join(state.followers[SAMPLER], policy) if SAMPLER in state.followers else policy


def evaluation(source: Source) -> Callable[[TrainState, HostBatch], Metrics]:
    """``(state, batch) -> reward, length and accuracy`` of the most probable responses."""

    def evaluate(state: TrainState, batch: HostBatch) -> Metrics:
        drawn = source.collect(state.params["policy"], batch, jax.random.PRNGKey(0), group=1, greedy=True)
        correct = mean(drawn.batch["correct"], drawn.batch["candidate_where"])
        return {name: drawn.metrics[name] for name in ("reward", "length")} | {"accuracy": correct}

    return evaluate


def held_out_batches(held_out: Dataset, stage: Stage) -> Callable[[], Iterable[HostBatch]]:
    """The batches of an evaluation, called anew for each."""
    size = stage.settings.batch_size
    return lambda: held_out.batches(size) if len(held_out) else ()


def source_of(run: Run, stage: Stage, dataset: Dataset, reward: Reward) -> Source:
    """What the config draws: episodes of an environment, or responses of one turn."""
    assert stage.rollout is not None  # a stage of this kind
    if "environment" in run.settings.task:
        return Episodes(run, stage.rollout, dataset, stage.reads)
    return Responses(run, stage.rollout, dataset, reward, stage.reads)


def staleness(state: TrainState, settings: RolloutSettings) -> Mean:
    """Steps since the policy that draws was the one that is trained."""
    return Mean(state.step // settings.updates % settings.sync_every, jax.numpy.ones(()))


def reward_of(settings: RolloutSettings, run: Run, models: rewards.Models) -> Reward:
    """The composed reward of a config, or the verifier of its task."""
    config = settings.reward or {"verifier": settings.verifier_of(run.settings.task)}
    return rewards.build(config, run.tokenizer, models, settings.calls)


def minibatches(size: int, settings: RolloutSettings, key: jax.Array) -> Sequence[np.ndarray]:
    """Row numbers of every update: ``epochs`` times all prompts, in ``minibatches`` parts of an order of their own.

    >>> [rows.tolist() for rows in minibatches(4, RolloutSettings(max_new_tokens=1, epochs=2), jax.random.PRNGKey(0))]
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    if settings.minibatches == 1:
        return [np.arange(size)] * settings.epochs
    orders = (jax.random.permutation(jax.random.fold_in(key, epoch), size) for epoch in range(settings.epochs))
    return [rows for order in orders for rows in np.split(np.asarray(order), settings.minibatches)]
