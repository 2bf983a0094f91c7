"""Blocks within ``rl.rollout``: earlier responses again, a budget of rollouts, trees of segments; what they bar."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlx.errors import UserError
from rlx.train.blocks import block_of, integers

if TYPE_CHECKING:
    from rlx.train.rollout_settings import RolloutSettings


@dataclasses.dataclass(frozen=True)
class ReplaySettings:
    """The block ``rollout.replay``, see :mod:`rlx.train.replay`.

    Attributes:
      capacity: prompts, with all their responses, that are kept; the oldest go first.
      share: of a batch: prompts with an advantage are added until there are so many.
      epsilon: added to the size of the advantages, in whose proportion prompts are drawn.
    """

    capacity: int
    share: float = 0.5
    epsilon: float = 1e-4


@dataclasses.dataclass(frozen=True)
class BudgetSettings:
    """The block ``rollout.budget``, see :mod:`rlx.train.budget`.

    Attributes:
      n_low: fewest responses to a prompt.
      n_up: most responses to a prompt, for which updates have room; None: twice the group.
    """

    n_low: int = 2
    n_up: int | None = None


@dataclasses.dataclass(frozen=True)
class SegmentSettings:
    """The block ``rollout.segments``, see :mod:`rlx.rollout.segments`.

    Attributes:
      length: tokens of a segment; those of the last level go on to the end.
      branching: children of a node, level by level; their product is the group.
    """

    length: int
    branching: Sequence[int]


def replay_of(block: Mapping[str, Any]) -> ReplaySettings | None:
    """The block ``replay``, checked; None where it is empty.

    Raises:
      UserError: an unknown key, with close matches, or an impossible number.

    >>> replay_of({"capacity": 8, "shar": 1.0})
    Traceback (most recent call last):
    rlx.errors.UserError: config.rl.rollout.replay has an unknown key 'shar'. Did you mean 'share'? ...
    """
    if not block:
        return None
    found = block_of(ReplaySettings, block, "rl.rollout.replay")
    integers("config.rl.rollout.replay", found, {"capacity": 1})
    if not (_real(found.share) and _real(found.epsilon) and 0 < found.share <= 1 and found.epsilon >= 0):
        raise UserError(f"config.rl.rollout.replay needs 0 < share <= 1 and epsilon >= 0, not {found}.")
    return found


def budget_of(block: Mapping[str, Any], group: int) -> BudgetSettings | None:
    """The block ``budget`` of rollouts in groups of a size, checked; None where it is empty.

    Raises:
      UserError: an unknown key, with close matches, or an impossible number.

    >>> budget_of({"n_low": 1}, 4)
    BudgetSettings(n_low=1, n_up=8)
    """
    if not block:
        return None
    found = block_of(BudgetSettings, block, "rl.rollout.budget")
    found = dataclasses.replace(found, n_up=2 * group if found.n_up is None else found.n_up)
    integers("config.rl.rollout.budget", found, {"n_low": 1, "n_up": 1})
    if not found.n_low <= group <= found.n_up:
        raise UserError(
            f"config.rl.rollout.budget needs n_low <= group <= n_up, not {found.n_low}, {group} and {found.n_up}: "
            "group is the mean number of responses to a prompt."
        )
    return found


def segments_of(block: Mapping[str, Any], group: int, max_new_tokens: int) -> SegmentSettings | None:
    """The block ``segments`` of rollouts in groups of a size, checked; None where it is empty.

    Raises:
      UserError: an unknown key, with close matches, or an impossible number.

    >>> segments_of({"length": 2, "branching": (2, 3)}, 8, 6)
    Traceback (most recent call last):
    rlx.errors.UserError: config.rl.rollout.group=8 must be the leaves of a tree, 2 x 3 = 6: set it, or branching.
    """
    if not block:
        return None
    found, name = block_of(SegmentSettings, block, "rl.rollout.segments"), "config.rl.rollout.segments"
    integers(name, found, {"length": 1})
    given = found.branching
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise UserError(f"{name}.branching is one number for each level, (6, 6, 6) for example, not {given!r}.")
    if any(type(children) is not int or children < 1 for children in given):
        raise UserError(f"{name}.branching must hold whole numbers of at least 1, not {given!r}.")
    if math.prod(given) != group:
        product = f"{' x '.join(map(str, given))} = {math.prod(given)}"
        raise UserError(
            f"config.rl.rollout.group={group} must be the leaves of a tree, {product}: set it, or branching."
        )
    if found.length * (len(given) - 1) >= max_new_tokens:
        raise UserError(
            f"{name}: {len(given)} levels of {found.length} tokens leave none of max_new_tokens={max_new_tokens} to "
            "the last one: take a smaller length, or fewer levels."
        )
    return dataclasses.replace(found, branching=tuple(given))


def candidates(settings: RolloutSettings) -> int:
    """K, the places for responses to a prompt in a batch."""
    budget = budget_of(settings.budget, settings.group)
    return settings.group if budget is None or budget.n_up is None else budget.n_up


def check(found: RolloutSettings, task: Mapping[str, Any]) -> None:
    """Makes sure that the blocks are possible, and go with the rest of ``rl.rollout``.

    Raises:
      UserError: names what does not go with what.
    """
    replay_of(found.replay)
    budget_of(found.budget, found.group)
    segments_of(found.segments, found.group, found.max_new_tokens)
    others = {
        "task.environment": "environment" in task,
        "evolution": bool(found.evolution),
        "forks": bool(found.forks),
        "tempered": bool(found.tempered),
        "segments": bool(found.segments),
        "critic": bool(found.critic),
        "stop": bool(found.stop),  # a text that begins in one segment and ends in the next would be missed
    }
    barred = {
        "replay": ("task.environment", "evolution", "tempered"),
        "budget": ("task.environment", "evolution", "forks", "tempered", "segments"),
        "segments": ("task.environment", "evolution", "forks", "tempered", "critic", "stop"),
    }
    for block, names in barred.items():
        for name in names if getattr(found, block) else ():
            if others[name]:
                raise UserError(f"config.rl.rollout.{block} does not go with {name}: leave out one of them.")
    components = found.reward.get("components", {}).items() if found.budget else ()
    for name, component in components:
        if hasattr(component, "keys") and (component.get("options") or {}).get("win_rate"):
            raise UserError(
                f"config.rl.rollout.budget does not go with win_rate of the reward {name!r}, which counts wins against "
                "as many responses to every prompt: leave out one of them."
            )


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
