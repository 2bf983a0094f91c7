"""The train state that a stage starts with, and what one of it is read into."""

from __future__ import annotations

from typing import Any

from rlx.method import Shapes
from rlx.train.assemble import Run, Stage
from rlx.train.state import TrainState, blank_state, create_state


def make_state(run: Run, stage: Stage, examples: int, policy: Any = None) -> TrainState:
    """A fresh state of a stage."""
    parts, rest = _parts_of(run, stage, examples)
    return create_state(*parts, **rest, seed=run.settings.seed, policy=policy)


def make_blank(run: Run, stage: Stage, examples: int) -> TrainState:
    """What a checkpoint of a stage is read into: shapes and places, no array."""
    parts, rest = _parts_of(run, stage, examples)
    return blank_state(*parts, **rest)


def _parts_of(run: Run, stage: Stage, examples: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    shapes = Shapes(run.model.hidden_size, run.model.vocab_size, examples)
    rest = {"mesh": run.mesh, "rules": stage.rules, "memory": memory_of(run, stage, examples)}
    return (run.model, stage.method, stage.optimizer, shapes), rest


def memory_of(run: Run, stage: Stage, examples: int) -> dict[str, Any]:
    """What a stage remembers as it starts: nothing, unless it draws responses."""
    if stage.rollout is None:
        return {}
    from rlx.train import memory  # it brings the tasks along

    return memory.blank(run, stage, examples)
