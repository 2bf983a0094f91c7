r"""A value head beside the policy: its loss joins that of any token-level method, its targets come with the responses.

.. math:: L = L_{policy} + c_v\,L_{value}

Both terms are means over the same tokens. The values at the time of the rollout, and the returns that are made of them,
are constants of all updates on it; a method that reads ``values`` (PPO's advantages) reads those of the rollout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from rlx.errors import UserError
from rlx.method import Constants, Method, PyTree
from rlx.policy.returns import gae_advantage
from rlx.policy.value import value_clip_loss
from rlx.train.blocks import block_of
from rlx.train.forward import Forward
from rlx.train.sharding import fetch
from rlx.types import Array, Batch

GIVEN = ("old_values", "returns")
"""Arrays that a batch needs beside those of the method."""


@dataclasses.dataclass(frozen=True)
class CriticSettings:
    """The block ``critic`` of rollouts.

    Attributes:
      coefficient: c_v, weight of the value loss.
      clip: how far values may move from those of the rollout, in units of reward; infinity: as they like.
      gamma: discount of the returns.
      lam: lambda of the returns; 1 is Monte Carlo.
    """

    coefficient: float = 0.5
    clip: float = 0.2
    gamma: float = 1.0
    lam: float = 1.0


def settings_of(block: Mapping[str, Any]) -> CriticSettings | None:
    """The settings of a block; None of an empty one.

    Raises:
      UserError: an unknown key, with close matches, or an impossible value.

    >>> settings_of({"coeficient": 1.0})
    Traceback (most recent call last):
    rlx.errors.UserError: config.rl.rollout.critic has an unknown key 'coeficient'. Did you mean 'coefficient'? ...
    """
    if not block:
        return None
    found = block_of(CriticSettings, block, "rl.rollout.critic")
    if found.coefficient <= 0 or found.clip <= 0:
        raise UserError("config.rl.rollout.critic: coefficient and clip must be above 0.")
    if not (0 <= found.gamma <= 1 and 0 <= found.lam <= 1):
        raise UserError("config.rl.rollout.critic: gamma and lam must be in [0, 1].")
    return found


def with_critic(method: Method, settings: CriticSettings) -> Method:
    """The method, and the loss of the value head with it: it reads ``values`` of the head, and :data:`GIVEN`."""

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        return method.prepare({**batch, "values": batch["old_values"]}, params, state, key)

    def apply(constants: Constants, batch: Batch, params: PyTree) -> tuple[Array, Array]:
        losses, where = method.apply(constants, batch, params)
        arrays = (batch["values"], batch["old_values"], batch["returns"])
        value = value_clip_loss(*arrays, clip=settings.clip, where=batch["where"], reduce=None)
        return losses + settings.coefficient * value, where

    prepare_needs = dict.fromkeys("old_values" if name == "values" else name for name in method.prepare_needs)
    return method._replace(
        prepare=prepare,
        apply=apply,
        needs=tuple(dict.fromkeys((*method.needs, "values", *GIVEN))),
        prepare_needs=tuple(dict.fromkeys((*prepare_needs, "old_values"))),
    )


def make_critic(forward: Forward, settings: CriticSettings) -> Callable[[Any, dict[str, Any]], dict[str, np.ndarray]]:
    """``(policy, batch with token_rewards and finished) -> old_values, returns``, both ``[P, K, M]``."""

    @jax.jit
    def judge(policy: Any, batch: dict[str, Array]) -> dict[str, Array]:
        found = forward(policy, batch, {}, ("values",))
        arrays = (batch["token_rewards"], found["values"], batch["finished"])
        targets = gae_advantage(*arrays, gamma=settings.gamma, lam=settings.lam, where=found["token_where"])
        return {"old_values": found["values"], "returns": targets.returns}

    return lambda policy, batch: fetch(judge(policy, batch))
