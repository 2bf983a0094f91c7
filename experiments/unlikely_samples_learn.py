"""Countdown, whose prompts have several right answers: written answers, then rewards; and who of the samples is lifted.

The loop of :func:`learn` is that of the stage ``rl`` in its plainest form, written out because the trainer keeps no
log-probabilities of its samples from after an update.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import sums
from experiments.parts import Row
from rlx.data import pipeline
from rlx.data.dataset import Dataset
from rlx.evaluation.sampling import pass_at_k
from rlx.rollout import rewards
from rlx.train.assemble import Run, Stage, assemble
from rlx.train.fresh import make_state
from rlx.train.loop import HostBatch
from rlx.train.main import train
from rlx.train.responses import Responses, chosen_rows
from rlx.train.restore import restore
from rlx.train.sharding import put_batch
from rlx.train.step import make_score, make_train_step

TRIES = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of samples k of pass@k, the last of which are drawn."""
TESTS, START = 1, 2
"""Streams of random numbers beside those of the steps."""


class Problem(NamedTuple):
    """Prompts of a split, what draws and rewards responses, and ``(policy, batch) -> their log-probabilities``."""

    run: Run
    stage: Stage
    prompts: Dataset
    source: Responses
    score: Callable[[Any, Mapping[str, Any]], np.ndarray]


def settings(config: ConfigDict, seed: int, stage: str, split: str) -> ConfigDict:
    """configs/rl.py with one stage, the task of this experiment, and prompts of one of its splits."""
    chosen = sums.base(config.base, seed, stage, **config[stage])
    chosen.data.update(config.lengths)
    chosen.task = ConfigDict({**config.task, "split": split, "size": config.size[split], "seed": seed})
    return chosen


def learn_answers(config: ConfigDict, seed: int, folder: Path) -> Any:
    """The policy that has learnt written answers for a while, of a run in ``folder``."""
    chosen = settings(config, seed, "sft", "train")
    del chosen.method
    train(chosen, folder)
    return restore(folder).state.params["policy"]


def problem(config: ConfigDict, seed: int, split: str, method: Mapping[str, Any], epochs: int) -> Problem:
    """The prompts of a split, and the stage ``rl`` with a method."""
    chosen = settings(config, seed, "rl", split)
    chosen.method = ConfigDict(method)
    chosen.rl.rollout.update({**config.rollout, "epochs": epochs})
    run = assemble(chosen)
    (stage,) = run.stages
    assert stage.rollout is not None
    prompts = pipeline.load(stage.data, run.tokenizer, kind=stage.kind, seed=seed)[0]
    reward = rewards.build({"verifier": config.task.name}, run.tokenizer)
    source = Responses(run, stage.rollout, prompts, reward, stage.reads)
    score = make_score(run.model, mesh=run.mesh, prompt_length=source.prompt_length)
    return Problem(run, stage, prompts, source, lambda policy, batch: np.asarray(score(policy, batch)["logps"]))


def learn(own: Problem, start: Any) -> tuple[Any, Row]:
    """Learns from rewards; returns the policy, and rewards and lifted samples of the steps.

    As the authors do, a step learns from those of its groups that have right and wrong answers.
    """
    run, stage, settings = own.run, own.stage, own.stage.settings
    assert stage.rollout is not None
    update = make_train_step(
        run.model,
        stage.method,
        stage.optimizer,
        mesh=run.mesh,
        prompt_length=own.source.prompt_length,
        shared_prefix=True,  # prompts are as long as answers: each is evaluated once for its group
    )
    state = make_state(run, stage, len(own.prompts), start)
    found, curve = [], []
    batches = own.prompts.batches(settings.batch_size, seed=run.settings.seed)
    for step, batch in zip(range(settings.steps), batches, strict=False):
        key = jax.random.fold_in(state.key, step)
        drawn = own.source.collect(state.params["policy"], batch, key, group=stage.rollout.group)
        kept = chosen_rows(drawn.batch, settings.batch_size)
        rows = put_batch(kept, run.mesh)
        for _ in range(stage.rollout.epochs):
            state, _ = update(state, rows, {"reference": start})
        found.append(lifted(kept, own.score(state.params["policy"], rows)))
        curve.append({name: float(drawn.metrics[name].value) for name in ("reward", "rollout_entropy")})
    places, rises = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return state.params["policy"], {
        "curve": {name: [row[name] for row in curve] for name in curve[0]},
        **by_rank(places, rises, ""),
    }


def after_all(tests: Problem, start: Any, trained: Any) -> Row:
    """Samples of the first policy to held-out prompts: which of the right ones have risen when all is done."""
    assert tests.stage.rollout is not None
    found = []
    for i, batch in enumerate(tests.prompts.batches(tests.stage.settings.batch_size)):
        key = jax.random.fold_in(jax.random.PRNGKey(START), i)
        drawn = tests.source.collect(start, batch, key, group=tests.stage.rollout.group).batch
        found.append(
            lifted(chosen_rows(drawn, len(drawn["tokens"])), tests.score(trained, put_batch(drawn, tests.run.mesh)))
        )
    places, rises = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return by_rank(places, rises, "_all")


def lifted(batch: HostBatch, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the right responses in real groups: their places (:func:`rarity`), and whether they have become likelier.

    Args:
      batch: ``correct [P, K]``, ``old_logprobs [P, K, M]``, ``where [P, K, T]``.
      after: ``[P, K]`` log-probabilities of the responses from after an update.
    """
    before, lengths = batch["old_logprobs"].sum(-1), batch["where"].sum(-1)
    right = (batch["correct"] > 0) & batch["candidate_where"]
    return rarity(before / np.maximum(lengths, 1))[right], (after > before)[right]


def rarity(logprobs: np.ndarray) -> np.ndarray:
    """Places in a group ``[..., K]`` by log-probability: 0 for the likeliest, 1 for the rarest; equal ones share one.

    >>> rarity(np.array([-1.0, -3.0, -2.0, -2.0])).tolist()
    [0.0, 1.0, 0.5, 0.5]
    """
    own, other = logprobs[..., :, None], logprobs[..., None, :]
    before = (other > own).sum(-1) + ((other == own).sum(-1) - 1) / 2
    return before / (logprobs.shape[-1] - 1)


def by_rank(places: np.ndarray, rises: np.ndarray, suffix: str, bins: int = 8) -> Row:
    """The share of samples that have risen: of all, in bins of their places, and its slope over them.

    The slope is that of a line by least squares: by how much the rarest are lifted less often than the likeliest. What
    there are too few samples for is None.

    >>> found = by_rank(np.array([0.0, 0.0, 1.0, 1.0]), np.array([True, True, False, True]), "", bins=2)
    >>> round(found["slope"], 6), found["risen"], found["by_place"]
    (-0.5, 0.75, [1.0, 0.5])
    """
    bin_of = np.minimum((places * bins).astype(int), bins - 1)
    shares = [float(rises[bin_of == i].mean()) if (bin_of == i).any() else None for i in range(bins)]
    slope = float(np.polyfit(places, rises, 1)[0]) if len({*places}) > 1 else None
    risen = float(rises.mean()) if len(rises) else None
    return {f"slope{suffix}": slope, f"risen{suffix}": risen, f"by_place{suffix}": shares}


def evaluate(tests: Problem, policy: Any) -> Row:
    """pass@k on held-out prompts from as many samples as the largest k, and the distinct right answers among them."""
    correct, distinct = [], []
    for i, batch in enumerate(tests.prompts.batches(tests.stage.settings.batch_size)):
        key = jax.random.fold_in(jax.random.PRNGKey(TESTS), i)
        drawn = tests.source.collect(policy, batch, key, group=TRIES[-1]).batch
        correct.append(drawn["correct"])
        distinct += distinct_right(drawn["tokens"][..., tests.source.prompt_length :], drawn["correct"])
    right = np.concatenate(correct)
    passes = {f"pass@{k}": float(pass_at_k(right, k=k).mean) for k in TRIES}
    return {**passes, "distinct": float(np.mean(distinct))}


def distinct_right(tokens: np.ndarray, correct: np.ndarray) -> list[int]:
    """Different right responses to each prompt; ``tokens [P, K, M]``, ``correct [P, K]``.

    >>> distinct_right(np.array([[[1, 2], [1, 2], [2, 1], [3, 3]]]), np.array([[1, 1, 1, 0]]))
    [2]
    """
    return [len({row.tobytes() for row in own[right > 0]}) for own, right in zip(tokens, correct, strict=True)]
