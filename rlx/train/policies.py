"""Policies that stand beside the trained one: reference, anchor, old, teacher, opponents, as a method reads them.

Each starts as the policy at the start of the stage, or as that of another run, and is fixed, or follows the policy: as
an exponential moving average or by snapshots. Followers are part of the train state, so that they are sharded, saved
and resumed with it; what is fixed is kept once, outside of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rlx.errors import UserError, close_matches
from rlx.method import Method
from rlx.train.blocks import block_of

ROLES = {
    "reference": "reference_",
    "anchor": "anchor_",
    "old": "old_",
    "teacher": "teacher_",
    "opponents": "opponent_",
}
"""Role -> prefix of the arrays that it gives."""
SAMPLER = "sampler"
"""The follower that responses are drawn from where it is not the policy of the moment; no loss reads it."""
UPDATES = ("fixed", "ema", "snapshot")
DTYPES = ("bfloat16", "float16", "float32")


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a role comes to its parameters: one entry of ``config.policies``.

    Attributes:
      update: ``fixed``; ``ema``: ``p <- decay p + (1 - decay) policy`` after each step; or ``snapshot``: the policy as
        it stands after every ``every`` steps.
      decay: of the moving average, in [0, 1).
      every: steps between snapshots.
      count: how many opponents there are: snapshots push the oldest out. 1 for the other roles.
      run: a run directory whose policy a fixed role is; it may be of another size, with the same tokens.
      dtype: type in which a fixed role is held: ``bfloat16`` takes half the memory of float32. None: as the policy.
    """

    update: str = "fixed"
    decay: float = 0.99
    every: int = 100
    count: int = 1
    run: str | None = None
    dtype: str | None = None

    @property
    def follows(self) -> bool:
        """Whether the policy moves it."""
        return self.update != "fixed"


def roles_of(method: Method) -> tuple[str, ...]:
    """The roles whose arrays a method reads.

    >>> from rlx import build
    >>> roles_of(build("dpo"))
    ('reference',)
    """
    reads = {*method.needs, *method.prepare_needs}
    return tuple(role for role, prefix in ROLES.items() if any(name.startswith(prefix) for name in reads))


def check(config: Mapping[str, Any], method: Method) -> dict[str, Rule]:
    """The rules of the roles that a method reads; those that the config does not name are fixed.

    Raises:
      UserError: an unknown or unused role, an unknown key or an impossible value.
    """
    used = roles_of(method)
    for role in config:
        if role not in ROLES:
            raise UserError(f"config.policies: unknown role {role!r}.{close_matches(role, ROLES)} Roles: {[*ROLES]}.")
        if role not in used:
            raise UserError(
                f"config.policies.{role} is not used: {method.name} reads {', '.join(used) or 'no other policy'}."
            )
    return {role: _rule(role, config.get(role, {})) for role in used}


def _rule(role: str, block: Mapping[str, Any]) -> Rule:
    name = f"config.policies.{role}"
    rule = block_of(Rule, block, f"policies.{role}")
    if rule.update not in UPDATES:
        raise UserError(
            f"{name}.update: unknown {rule.update!r}.{close_matches(rule.update, UPDATES)} Known: {UPDATES}."
        )
    if not 0 <= rule.decay < 1:
        raise UserError(f"{name}.decay must be in [0, 1), not {rule.decay}.")
    for key in ("every", "count"):
        if type(getattr(rule, key)) is not int or getattr(rule, key) < 1:
            raise UserError(f"{name}.{key} must be a whole number of at least 1, not {getattr(rule, key)!r}.")
    if rule.count > 1 and (role != "opponents" or rule.update != "snapshot"):
        raise UserError(f"{name}.count={rule.count}: only opponents that are snapshots can be several.")
    if rule.run is not None and (rule.follows or role == "opponents"):
        raise UserError(f"{name}.run: only a fixed reference, anchor or teacher can be the policy of another run.")
    if rule.dtype not in (None, *DTYPES):
        near = close_matches(str(rule.dtype), DTYPES)
        raise UserError(f"{name}.dtype: unknown {rule.dtype!r}.{near} Known: {', '.join(DTYPES)}.")
    if rule.dtype and rule.follows:
        raise UserError(f"{name}.dtype: a role that follows the policy is held as the policy is.")
    return rule


def keeps_start(rules: Mapping[str, Rule]) -> bool:
    """Whether a role is the policy as the stage started."""
    return any(not rule.follows and rule.run is None for rule in rules.values())


def held_as(rule: Rule, params: Any) -> Any:
    """Parameters of a fixed role in the type of its rule."""
    if rule.dtype is None:
        return params
    return jax.tree.map(lambda x: x.astype(rule.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params)


def followers(rules: Mapping[str, Rule], policy: Any) -> dict[str, Any]:
    """Parameters of the roles that follow the policy, as a stage starts; opponents are stacked, newest first."""
    return {role: start(role, policy, rule.count) for role, rule in rules.items() if rule.follows}


def start(role: str, policy: Any, count: int = 1) -> Any:
    """A role that begins as ``policy``."""
    if role != "opponents":
        return policy
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), policy)


def follow(rules: Mapping[str, Rule], current: Mapping[str, Any], policy: Any, step: jax.Array) -> dict[str, Any]:
    """The followers after a step: ``policy`` is what it led to, ``step`` the number of steps taken."""
    return {role: _moved(role, rules[role], old, policy, step) for role, old in current.items()}


def _moved(role: str, rule: Rule, old: Any, policy: Any, step: jax.Array) -> Any:
    if rule.update == "ema":
        newest = jax.tree.map(
            lambda o, p: (rule.decay * o + (1 - rule.decay) * p).astype(o.dtype), _newest(role, old), policy
        )
    else:
        due = step % rule.every == 0
        newest = jax.tree.map(lambda o, p: jnp.where(due, p, o), _newest(role, old), policy)
    if role != "opponents":
        return newest
    if rule.update == "ema":
        return jax.tree.map(lambda n: n[None], newest)
    return jax.tree.map(lambda o, n: jnp.where(due, jnp.concatenate([n[None], o[:-1]]), o), old, newest)


def _newest(role: str, params: Any) -> Any:
    return jax.tree.map(lambda x: x[0], params) if role == "opponents" else params
