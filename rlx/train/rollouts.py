"""Reinforcement learning in a stage: prompts -> responses of the policy -> rewards -> updates, as one step of the loop.

A step of the loop is one batch of prompts and all updates on its responses. Its random numbers follow from the key and
the number of updates in the train state alone, and it leaves nothing behind: a checkpoint between two steps resumes to
the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlx import metrics, stages
from rlx.data.dataset import Dataset
from rlx.errors import UserError
from rlx.metrics import Mean, Metrics
from rlx.rollout import Rollout, Sampling, sample
from rlx.rollout.tasks import Example
from rlx.rollout.verifiers import Scorer, responses_of
from rlx.train.assemble import Run, Stage, examples
from rlx.train.loop import HostBatch, Programs
from rlx.train.programs import standing, this_process
from rlx.train.settings import RolloutSettings
from rlx.train.sharding import put_batch
from rlx.train.state import TrainState
from rlx.train.step import make_train_step

DRAWS, ORDER, ESTIMATE = 1, 2, 3  # streams of random numbers of a step


class Rollouts:
    """Draws responses to prompts and rewards them.

    Args:
      run: model, tokenizer and mesh.
      settings: of the stage's rollouts.
      dataset: of the prompts; its records hold the answers.
    """

    def __init__(self, run: Run, settings: RolloutSettings, dataset: Dataset):
        self.run, self.settings, self.dataset = run, settings, dataset
        self.score = Scorer(settings.verifier_of(run.settings.task), run.tokenizer)
        self.examples = examples(run.settings.task) if run.settings.task else None

    def draw(self, policy: Any, batch: HostBatch, key: jax.Array, *, group: int, greedy: bool = False) -> Rollout:
        """Responses ``[P, group, M]`` of the policy to the prompts of a batch, on the host."""
        s = self.settings
        sampling = Sampling(
            s.max_new_tokens,
            temperature=0.0 if greedy else s.temperature,
            top_k=None if greedy else s.top_k,
            top_p=None if greedy else s.top_p,
            min_p=None if greedy else s.min_p,
            eos_id=self.run.tokenizer.eos_id,
            pad_id=self.run.tokenizer.pad_id,
        )
        mesh = self.run.mesh if self.run.mesh.size > 1 else None
        prompts = batch["tokens"][:, 0], batch["valid"][:, 0]
        drawn = sample(self.run.model, policy, *prompts, group=group, sampling=sampling, key=key, mesh=mesh)
        return jax.device_get(drawn)

    def rewards(self, drawn: Rollout, batch: HostBatch) -> np.ndarray:
        """What the verifier gives each response, ``[P, K]``; 0 for the rows that only fill up a batch."""
        examples = [self._example(int(index)) for index in batch["index"]]
        tokens, where = np.asarray(drawn.tokens), np.asarray(drawn.where)
        ids = responses_of(tokens, where & (tokens != self.run.tokenizer.eos_id))
        return self.score(ids, examples, where=batch["candidate_where"][:, 0])

    def _example(self, index: int) -> Example:
        if index >= len(self.dataset):
            return Example("", "")
        row = int(self.dataset.rows[index])
        if self.examples is not None:
            return self.examples[row]
        record = self.dataset.source[row]
        return Example(str(record.prompt), str(record.responses[0]) if record.responses else "")


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
        "correct": (rewards > 0.5).astype(np.float32),
        "finished": np.asarray(drawn.finished),
        "old_logprobs": np.asarray(drawn.logprobs),
        "rollout_logprobs": np.asarray(drawn.rollout_logprobs),
    }


OF_RESPONSES = ("rewards", "correct", "finished", "lengths", "group_where", "old_logprobs", "rollout_logprobs")
"""What an estimator of advantages outside of a recipe may read."""


def make_estimator(spec: str) -> Callable[[HostBatch, jax.Array], np.ndarray]:
    """``(training batch, key) -> advantages [P, K, 1]`` or ``[P, K, M]`` by an estimator of the catalogue.

    Raises:
      UserError: there is none of this name, it has no such keyword, or it reads what responses alone do not give.
    """
    (part,) = stages.parts_of("advantage", spec)
    lacking = [name for name in part.required if name not in OF_RESPONSES]
    if lacking:
        raise UserError(
            f"config.rl.rollout.advantage={spec!r} reads {', '.join(lacking)}, which responses alone do not give. "
            f"There are: {', '.join(OF_RESPONSES)}."
        )

    @jax.jit
    def estimate(arrays: dict[str, jax.Array], where: jax.Array, key: jax.Array) -> jax.Array:
        pool = arrays | {"lengths": where.sum(-1), "group_where": where.any(-1)}
        return stages.Run(pool, where, key, None).tokens(part)

    def advantages(batch: HostBatch, key: jax.Array) -> np.ndarray:
        where = batch["where"][..., -batch["old_logprobs"].shape[-1] :] & batch["candidate_where"][..., None]
        return np.asarray(estimate({k: batch[k] for k in OF_RESPONSES if k in batch}, where, key))

    return advantages


def measured(drawn: Rollout, rewards: np.ndarray, real: np.ndarray) -> Metrics:
    """What a step reports of its responses: reward, share of prompts with any success, length, entropy, ends."""
    of_responses = np.broadcast_to(real, rewards.shape)
    where = np.asarray(drawn.where) & of_responses[..., None]

    def mean(values: Any, selected: np.ndarray) -> Mean:
        return metrics.mean_of(jnp.asarray(np.asarray(values, np.float32)), jnp.asarray(selected))

    return {
        "reward": mean(rewards, of_responses),
        f"pass_at_{rewards.shape[1]}": mean((rewards > 0.5).any(-1), real[:, 0]),
        "length": mean(drawn.lengths, of_responses),
        "finished": mean(drawn.finished, of_responses),
        "rollout_entropy": mean(drawn.entropy, where),
    }


def make_rollout_programs(run: Run, stage: Stage, train_set: Dataset, held_out: Dataset, held: Any) -> Programs:
    """The functions that the loop of a stage of reinforcement learning calls; arguments as ``make_programs`` has them.

    The evaluation draws the most probable response to every held-out prompt; its ``accuracy`` is the share that the
    verifier gives more than a half.
    """
    settings = stage.rollout
    assert settings is not None  # a stage of this kind
    beside, models = standing(stage, held)
    rollouts, tests = (Rollouts(run, settings, dataset) for dataset in (train_set, held_out))
    update = make_train_step(
        run.model,
        stage.method,
        stage.optimizer,
        mesh=run.mesh,
        prompt_length=train_set.lengths.prompt,
        micro_batches=stage.settings.micro_batches,
        rules=stage.rules,
        models=models,
    )
    reads = {*stage.method.needs, *stage.method.prepare_needs}
    estimate = make_estimator(settings.advantage) if "advantages" in reads else None

    def step(state: TrainState, batch: HostBatch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        drawn = rollouts.draw(state.params["policy"], batch, jax.random.fold_in(key, DRAWS), group=settings.group)
        rewards = rollouts.rewards(drawn, batch)
        found = measured(drawn, rewards, batch["candidate_where"])
        whole = training_batch(batch, drawn, rewards)
        if estimate is not None:
            whole["advantages"] = estimate(whole, jax.random.fold_in(key, ESTIMATE))
        for rows in minibatches(len(rewards), settings, jax.random.fold_in(key, ORDER)):
            piece = {name: array[rows] for name, array in whole.items()}
            state, of_update = update(state, put_batch(piece, run.mesh), beside)
            found = metrics.merge(found, of_update)
        return state, found

    def evaluate(state: TrainState, batch: HostBatch) -> Mapping[str, Any]:
        drawn = tests.draw(state.params["policy"], batch, jax.random.PRNGKey(0), group=1, greedy=True)
        rewards, real = tests.rewards(drawn, batch), batch["candidate_where"]
        found = measured(drawn, rewards, real)
        correct = metrics.mean_of(jnp.asarray(rewards > 0.5), jnp.asarray(np.broadcast_to(real, rewards.shape)))
        return {name: found[name] for name in ("reward", "length")} | {"accuracy": correct}

    size = stage.settings.batch_size
    return Programs(step, evaluate, lambda: held_out.batches(size, **this_process()) if len(held_out) else ())


def minibatches(size: int, settings: RolloutSettings, key: jax.Array) -> Sequence[np.ndarray]:
    """Row numbers of every update: ``epochs`` times all prompts, in ``minibatches`` parts of an order of their own.

    >>> [rows.tolist() for rows in minibatches(4, RolloutSettings(max_new_tokens=1, epochs=2), jax.random.PRNGKey(0))]
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    if settings.minibatches == 1:
        return [np.arange(size)] * settings.epochs
    orders = (jax.random.permutation(jax.random.fold_in(key, epoch), size) for epoch in range(settings.epochs))
    return [rows for order in orders for rows in np.split(np.asarray(order), settings.minibatches)]
