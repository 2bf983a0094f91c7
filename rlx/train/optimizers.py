"""From a config block to an optax optimiser: names, schedules and keywords are checked at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from rlx import fields as types_of
from rlx.errors import UserError, close_matches

Builder = Callable[[optax.Schedule, "OptimizerConfig"], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The block ``optimizer`` of a stage.

    Attributes:
      name: a key of :data:`OPTIMIZERS`.
      learning_rate: its peak, reached after the warm-up.
      schedule: ``constant``, ``linear`` or ``cosine``: how it goes on after the warm-up, to the last step of the stage.
      warmup_steps: steps of a linear warm-up from 0; the rate of the first step is ``learning_rate / warmup_steps``.
      end_fraction: where ``linear`` and ``cosine`` end, as a fraction of the peak.
      weight_decay: decoupled decay of parameters with at least two dimensions (adamw, lion).
      clip_norm: bound on the global norm of the gradient; 0 or None does not clip.
      b1, b2, eps: moments of the Adam family.
      momentum: of sgd.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    end_fraction: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.0


def _decayed(params: Any) -> Any:
    """Which parameters decay: matrices, not norms and biases."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


OPTIMIZERS: dict[str, tuple[tuple[str, ...], Builder]] = {
    "adamw": (
        ("b1", "b2", "eps", "weight_decay"),
        lambda rate, c: optax.adamw(rate, c.b1, c.b2, c.eps, weight_decay=c.weight_decay, mask=_decayed),
    ),
    "adam": (("b1", "b2", "eps"), lambda rate, c: optax.adam(rate, c.b1, c.b2, c.eps)),
    "lion": (
        ("b1", "b2", "weight_decay"),
        lambda rate, c: optax.lion(rate, c.b1, c.b2, weight_decay=c.weight_decay, mask=_decayed),
    ),
    "rmsprop": (("b2", "eps"), lambda rate, c: optax.rmsprop(rate, decay=c.b2, eps=c.eps)),
    "sgd": (("momentum",), lambda rate, c: optax.sgd(rate, momentum=c.momentum or None)),
}
"""Name -> (the fields of :class:`OptimizerConfig` it reads beside those all read, how it is made)."""

SCHEDULES: dict[str, Callable[[float, int, float], optax.Schedule]] = {
    "constant": lambda peak, steps, end: optax.constant_schedule(peak),
    "linear": lambda peak, steps, end: optax.linear_schedule(peak, peak * end, steps),
    "cosine": lambda peak, steps, end: optax.cosine_decay_schedule(peak, steps, alpha=end),
}
"""Name -> (peak, steps after the warm-up, end fraction) -> schedule."""

_SHARED = ("name", "learning_rate", "schedule", "warmup_steps", "clip_norm")


def build(config: Mapping[str, Any], steps: int, where: str = "optimizer") -> optax.GradientTransformation:
    """The optimiser that a config block names.

    Args:
      config: keys of :class:`OptimizerConfig`.
      steps: length of the stage, where decaying schedules end.
      where: the block's name in messages.

    Raises:
      UserError: an unknown name or key, a key that the optimiser or the schedule does not read, or a bad value.

    >>> optimizer = build({"name": "sgd", "learning_rate": 0.5}, steps=10)
    >>> updates, _ = optimizer.update({"w": jnp.ones(1)}, optimizer.init({"w": jnp.ones(1)}))
    >>> print(updates["w"])
    [-0.5]
    """
    checked = check(config, steps, where)
    transform = OPTIMIZERS[checked.name][1](schedule(checked, steps), checked)
    return optax.chain(optax.clip_by_global_norm(checked.clip_norm), transform) if checked.clip_norm else transform


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the number of updates made so far."""
    peak, warmup = config.learning_rate, config.warmup_steps
    decay = SCHEDULES[config.schedule](peak, max(1, steps - warmup), config.end_fraction)
    if not warmup:
        return decay
    # the first update already moves: its rate is peak / warmup, not 0
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1)), decay], [warmup])


def check(config: Mapping[str, Any], steps: int, where: str = "optimizer") -> OptimizerConfig:
    """The block with every name, key and value checked; see :func:`build`."""
    fields = [field.name for field in dataclasses.fields(OptimizerConfig)]
    for key in config:
        if key not in fields:
            raise UserError(f"{where} has no key {key!r}.{close_matches(key, fields)} Keys: {', '.join(fields)}.")
    types_of.check(OptimizerConfig, config, where)
    checked = OptimizerConfig(**config)
    _known(f"{where}.name", checked.name, OPTIMIZERS)
    _known(f"{where}.schedule", checked.schedule, SCHEDULES)
    _refuse_unread(config, checked, where)
    _check_values(checked, steps, where)
    return checked


def _known(name: str, value: str, options: Mapping[str, Any]) -> None:
    if value not in options:
        raise UserError(f"unknown {name} {value!r}.{close_matches(value, options)} Known: {', '.join(options)}.")


def _refuse_unread(config: Mapping[str, Any], checked: OptimizerConfig, where: str) -> None:
    """A key that nothing reads is a mistake, unless it holds the default (or 0: switched off)."""
    read = {*_SHARED, *OPTIMIZERS[checked.name][0], *(() if checked.schedule == "constant" else ("end_fraction",))}
    default = OptimizerConfig()
    for key, value in config.items():
        if key not in read and value not in (0, None, getattr(default, key)):
            reader = f"schedule {checked.schedule!r}" if key == "end_fraction" else repr(checked.name)
            raise UserError(f"{where}.{key}={value} is not used by {reader}: remove it, or set it to 0.")


def _check_values(c: OptimizerConfig, steps: int, where: str) -> None:
    bounds = {
        "learning_rate": (0, math.inf),
        "warmup_steps": (0, steps or math.inf),  # a stage of 0 steps is left out as it stands
        "end_fraction": (0, 1),
        "weight_decay": (0, math.inf),
        "clip_norm": (0, math.inf),
        "b1": (0, 1),
        "b2": (0, 1),
        "eps": (0, math.inf),
        "momentum": (0, 1),
    }
    for key, (low, high) in bounds.items():
        value = getattr(c, key)
        if value is not None and not low <= value <= high:
            raise UserError(f"{where}.{key} must lie between {low} and {high}, not {value}.")
