"""A train state and the leaves of its policy that no step moves: apart in compiled steps and in checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from rlx.models import Model
from rlx.models.moving import join, staying
from rlx.train.state import TrainState, moving_params


def part_of(model: Model, state: TrainState) -> TrainState:
    """The state without the leaves of the policy that stay: what a step changes and a checkpoint holds."""
    return state._replace(params=moving_params(model, state.params))


def whole(part: TrainState, policy: Any) -> TrainState:
    """The state that :func:`part_of` has taken apart; the leaves that stay are those of ``policy``."""
    return part._replace(params={**part.params, "policy": join(part.params["policy"], policy)})


def donating(model: Model, step: Callable[..., tuple[TrainState, Any]]) -> Callable[..., tuple[TrainState, Any]]:
    """``step(state, ...) -> (state, found)``, jitted; the state is donated, but for leaves of the policy that stay.

    Those go in beside it and do not come out, so that whatever else has them may keep them.
    """
    return jax.jit(step, donate_argnums=0) if model.trainable is None else _Donating(model, step)


class _Donating:
    def __init__(self, model: Model, step: Callable[..., tuple[TrainState, Any]]):
        self.model = model

        def of_part(part: TrainState, policy: Any, *rest: Any) -> tuple[TrainState, Any]:
            state, found = step(whole(part, policy), *rest)
            return part_of(model, state), found

        self.jitted = jax.jit(of_part, donate_argnums=0)

    def _arguments(self, state: TrainState, rest: tuple[Any, ...]) -> tuple[Any, ...]:
        return part_of(self.model, state), staying(self.model, state.params["policy"]), *rest

    def __call__(self, state: TrainState, *rest: Any) -> tuple[TrainState, Any]:
        part, kept, *others = self._arguments(state, rest)
        part, found = self.jitted(part, kept, *others)
        return whole(part, kept), found

    def lower(self, state: TrainState, *rest: Any) -> Any:
        """As that of a jitted function."""
        return self.jitted.lower(*self._arguments(state, rest))
