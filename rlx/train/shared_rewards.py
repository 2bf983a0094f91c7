"""Rewards of a batch by several processes: each scores its share of the prompts, and all learn from the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlx.rollout.rewards import Reward, Rewards
from rlx.rollout.tasks import Example
from rlx.train import processes


def rewarded(
    reward: Reward, responses: Sequence[Sequence[Any]], examples: Sequence[Example], lengths: np.ndarray, where: Any
) -> Rewards:
    """What ``reward(responses, examples, lengths, where)`` says, the same on every process that has these arguments.

    A reward may be drawn, or come from elsewhere, and differ from call to call: what a process has scored is told to
    the others. A learned model runs on the devices of all, so that all call it; then the first one's word counts.

    Args:
      reward: of the responses.
      responses: ``[P][K]``, of different lengths and numbers.
      examples: P.
      lengths: ``[P, K]`` tokens, K the largest number of responses.
      where: ``[P]`` real examples.
    """
    group = processes.group()
    if group.count == 1:
        return reward(responses, examples, lengths, where=where)
    if reward.learned:
        return _told(group.gather(_plain(reward(responses, examples, lengths, where=where)))[:1], lengths.shape)
    mine = np.array_split(np.arange(len(examples)), group.count)[group.index]
    own = slice(mine[0], mine[-1] + 1) if len(mine) else slice(0)
    widest = max(map(len, responses[own]), default=0)
    return _told(
        group.gather(_plain(reward(responses[own], examples[own], lengths[own, :widest], where=where[own]))),
        lengths.shape,
    )


def _plain(found: Rewards) -> dict[str, Any]:
    """As JSON data, which holds every float32 exactly."""
    parts = {name: [str(x.dtype), x.tolist()] for name, x in found.components.items()}
    return {"total": [str(found.total.dtype), found.total.tolist()], "parts": parts, "failures": int(found.failures)}


def _told(said: Sequence[dict[str, Any]], shape: tuple[int, ...]) -> Rewards:
    """The rewards of all prompts from those of each process, one below the other."""

    def joined(parts: Sequence[tuple[str, list[list[float]]]]) -> np.ndarray:
        found = np.zeros(shape, parts[0][0])
        for p, row in enumerate(row for _, rows in parts for row in rows):
            found[p, : len(row)] = row
        return found

    components = {name: joined([one["parts"][name] for one in said]) for name in said[0]["parts"]}
    return Rewards(joined([one["total"] for one in said]), components, sum(one["failures"] for one in said))
