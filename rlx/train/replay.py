r"""Selective sample replay: prompts whose responses taught something are learnt from again where a batch has too few.

Responses with an advantage become rare as a policy learns: groups that are all right, or all wrong, teach nothing.
Those with one enter a bounded buffer, and batches are refilled from it (VL-Rethinker, arXiv:2504.08837; Skywork's SSB,
arXiv:2504.16656), earlier ones drawn in proportion to the size of their advantages:

.. math:: p_i \propto \sum_k |A_{ik}| + \epsilon

with the mean over its tokens for a response k whose tokens differ in advantage. Choices of this module, where the
papers leave one or draw single samples:

* what is kept and drawn are prompts with all of their responses: a group-relative method needs the whole group to find
  the same advantages again
* the prompts of the batch that have an advantage all stay, once each
* others are replaced by earlier ones, all different, until ``share`` of the batch has an advantage

A prompt that is replayed brings along what it was drawn with (``old_logprobs``, ``rollout_logprobs``, rewards,
advantages), so that ratios are those to the policy that drew it.

The buffer is a part of the train state, of static shape: a resumed run draws the same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rlx.errors import UserError
from rlx.metrics import Mean, Metrics
from rlx.rollout import Rollout, segments
from rlx.rollout.rewards import Rewards
from rlx.train.assemble import Run, Stage
from rlx.train.draws import Drawn
from rlx.train.lessons import make_estimator
from rlx.train.loop import HostBatch
from rlx.train.responses import batch_of
from rlx.train.rollout_parts import ReplaySettings, candidates, replay_of, segments_of

Held = dict[str, Any]
"""``rows``: arrays of a batch ``[C, ...]``; of each: ``sizes`` of its advantages (0: none is there), ``steps``, the
updates before it was drawn, and ``order`` of arrival (-1: none is there)."""
EMPTY = -1
DRAW = 1
"""Stream of random numbers, beside that of the estimator."""


class Replay:
    """Refills batches from a buffer, and the buffer from batches.

    Args:
      stage: with the block ``replay``.

    Raises:
      UserError: the method learns from no advantages of tokens.
    """

    def __init__(self, stage: Stage):
        assert stage.rollout is not None  # the caller has looked at it
        found = replay_of(stage.rollout.replay)
        assert found is not None
        self.settings, self.updates, self.estimate = found, stage.rollout.updates, estimator_of(stage)

    def __call__(self, held: Held, batch: HostBatch, key: jax.Array, step: int) -> tuple[HostBatch, Held, Metrics]:
        """The batch with earlier rows in it, the buffer with those of the batch, and what is reported.

        Args:
          held: the buffer.
          batch: as the updates would read it.
          key: of the draw.
          step: updates before this batch was drawn.
        """
        sizes = sizes_of(batch, self._advantages(batch, key))
        into, rows = refill(held, sizes, self.settings, jax.random.fold_in(key, DRAW))
        found = {name: replaced(array, into, held["rows"][name][rows]) for name, array in batch.items()}
        ages = (step - held["steps"][rows]) / self.updates
        held, one = entered(held, batch, sizes, step), np.float64(1)
        reported: Metrics = {
            "replayed": Mean(np.float64(len(rows)), np.float64(len(sizes))),
            "replay_fill": Mean(np.float64((held["order"] >= 0).mean()), one),
            "replay_age": Mean(np.float64(ages.sum()), np.float64(len(rows))),
        }
        return found, held, reported

    def _advantages(self, batch: HostBatch, key: jax.Array) -> np.ndarray:
        return batch["advantages"] if self.estimate is None else self.estimate(batch, key)


def estimator_of(stage: Stage) -> Callable[[HostBatch, jax.Array], np.ndarray] | None:
    """What tells the advantages of a batch: None, where the method reads them off it; a recipe's own estimator.

    For losses that have none it is that of ``rollout.advantage``.

    Raises:
      UserError: the method learns from no advantages of tokens, or they are made of what responses alone do not give.
    """
    rollout, method = stage.rollout, stage.method
    assert rollout is not None  # the caller has looked at it
    if stage.compares or "win_rates" in stage.reads or "logprobs" not in method.needs:
        raise UserError(
            f"config.rl.rollout.replay draws by the size of advantages, and {method.name} has none: take a method of "
            "rewarded tokens, grpo for example."
        )
    if "advantages" in stage.reads:
        return None
    spec = method.hyperparameters.get("advantage") or rollout.advantage
    options = {"critic": bool(rollout.critic), "more": segments.ARRAYS if rollout.segments else ()}
    try:
        return make_estimator(spec, **options)
    except UserError as error:
        reason = f"config.rl.rollout.replay needs the advantages of {method.name} before an update: {error}"
        raise UserError(reason) from None


def blank(run: Run, stage: Stage, prompt_length: int) -> Held:
    """An empty buffer for the rows that a stage learns from."""
    assert stage.rollout is not None  # the caller has looked at it
    found = replay_of(stage.rollout.replay)
    assert found is not None
    count, row = found.capacity, like(run, stage, prompt_length)
    kinds = {name: jax.dtypes.canonicalize_dtype(array.dtype) for name, array in row.items()}
    return {
        "rows": {name: np.zeros((count, *array.shape[1:]), kinds[name]) for name, array in row.items()},
        "sizes": np.zeros(count, np.float32),
        "steps": np.zeros(count, np.int32),
        "order": np.full(count, EMPTY, np.int32),
    }


def like(run: Run, stage: Stage, prompt_length: int) -> HostBatch:
    """A batch of one prompt, as the updates read it, with nothing in it."""
    settings = stage.rollout
    assert settings is not None  # the caller has looked at it
    shape = (1, candidates(settings), settings.max_new_tokens)
    prompts = {"tokens": np.zeros((1, 1, prompt_length), np.int32), "index": np.zeros(1, np.int32)}
    prompts |= {"valid": np.ones((1, 1, prompt_length), bool), "candidate_where": np.ones((1, 1), bool)}
    where, numbers, none = np.zeros(shape, bool), np.zeros(shape, np.float32), np.zeros(shape[:2], np.float32)
    nothing: Any = (numbers.astype(np.int32), where, none.astype(np.int32), none > 0, numbers, numbers, numbers)
    drawn = Drawn(Rollout(*nothing), np.zeros(shape[:2], bool))
    tree = segments_of(settings.segments, settings.group, settings.max_new_tokens)
    if tree is not None:
        drawn = drawn._replace(trees=segments.tree_of(drawn.rollout, tree.length, tree.branching))
    parts = dict.fromkeys(settings.reward.get("components", ("verifier",)), none)
    batch = batch_of(run.tokenizer, stage.reads, prompts, drawn, Rewards(none, parts, 0))
    if "baseline_rewards" in stage.reads:
        batch |= {"baseline_rewards": none[:, 0]}
    if settings.critic:
        batch |= {"old_values": numbers, "returns": numbers}
    if "advantages" in stage.reads:
        options = {"critic": bool(settings.critic), "more": segments.ARRAYS if tree else ()}
        batch |= {"advantages": make_estimator(settings.advantage, **options)(batch, jax.random.PRNGKey(0))}
    return batch


def sizes_of(batch: HostBatch, advantages: np.ndarray) -> np.ndarray:
    """How much the responses to each prompt teach, ``[P]``: the sum over them of the size of their advantages.

    >>> batch = {"where": np.ones((2, 2, 3), bool), "candidate_where": np.array([[True, True], [True, False]])}
    >>> sizes_of(batch | {"old_logprobs": np.zeros((2, 2, 1))}, np.array([[[1.0], [-1.0]], [[0.0], [5.0]]])).tolist()
    [2.0, 0.0]
    """
    where = batch["where"][..., -batch["old_logprobs"].shape[-1] :] & batch["candidate_where"][..., None]
    sizes = np.sum(np.abs(np.broadcast_to(advantages, where.shape)), -1, where=where, dtype=np.float32)
    return (sizes / np.maximum(where.sum(-1), 1)).sum(-1)


def refill(held: Held, sizes: np.ndarray, settings: ReplaySettings, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a batch that are replaced, and those of the buffer that take their places, as many.

    Args:
      held: the buffer.
      sizes: of the advantages of the batch's own rows ``[P]``.
      settings: how many, and with what probability: drawn one after the other, none twice.
      key: of the draw.
    """
    there, barren = held["order"] >= 0, np.flatnonzero(sizes == 0)
    wanted = int(settings.share * len(sizes)) - (len(sizes) - len(barren))
    count = min(max(wanted, 0), np.count_nonzero(there))
    # the largest of log p plus Gumbel noise are draws without replacement
    noise = np.asarray(jax.random.gumbel(key, there.shape))
    score = np.full(there.shape, -np.inf)
    score[there] = np.log(held["sizes"][there] + settings.epsilon) + noise[there]
    return barren[:count], np.argsort(-score, kind="stable")[:count]


def entered(held: Held, batch: HostBatch, sizes: np.ndarray, step: int) -> Held:
    """The buffer with the rows of a batch that have an advantage, in the places of the oldest."""
    count = len(held["sizes"])
    rows = np.flatnonzero(sizes > 0)[-count:]
    places = np.argsort(held["order"], kind="stable")[: len(rows)]
    arrays = {name: replaced(array, places, batch[name][rows]) for name, array in held["rows"].items()}
    newest = held["order"].max() + 1
    return {
        "rows": arrays,
        "sizes": replaced(held["sizes"], places, sizes[rows]),
        "steps": replaced(held["steps"], places, np.full(len(rows), step)),
        "order": replaced(held["order"], places, newest + np.arange(len(rows))),
    }


def replaced(array: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A copy of an array with other values in some of its rows.

    >>> replaced(np.array([1, 2, 3]), np.array([2]), np.array([9])).tolist()
    [1, 2, 9]
    """
    found = np.array(array)
    found[places] = values
    return found
