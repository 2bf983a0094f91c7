"""Rotary embeddings that reach further than they were trained: what is done to their frequencies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rlx.errors import UserError, close_matches

TYPES = ("linear", "llama3")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """The block ``rope_scaling``; calling it scales frequencies.

    ``linear`` divides all of them by ``factor``. ``llama3`` divides those whose wavelength is above
    ``original_length / low_freq_factor``, keeps those below ``original_length / high_freq_factor`` and goes smoothly
    from one to the other between them (Llama 3.1, arXiv:2407.21783, section 3.4.2, and the released code).

    Attributes:
        type: ``linear`` or ``llama3``.
        factor: how much further.
        low_freq_factor: of ``llama3``.
        high_freq_factor: of ``llama3``.
        original_length: positions that the model was trained on first, of ``llama3``.

    >>> print(RopeScaling("linear", 8.0)(jnp.array([1.0, 0.5])))
    [0.125  0.0625]
    """

    type: str = "llama3"
    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_length: int = 8192

    def __post_init__(self):
        if self.type not in TYPES:
            hint = close_matches(str(self.type), TYPES)
            raise UserError(f"model.rope_scaling.type={self.type!r} must be one of {', '.join(TYPES)}.{hint}")
        for name in ("factor", "low_freq_factor", "high_freq_factor", "original_length"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise UserError(f"model.rope_scaling.{name} must be a number above 0, not {value!r}")
        if self.type == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise UserError(
                f"model.rope_scaling.high_freq_factor={self.high_freq_factor} must be above "
                f"low_freq_factor={self.low_freq_factor}"
            )

    def __call__(self, frequencies: jax.Array) -> jax.Array:
        if self.type == "linear":
            return frequencies / self.factor
        low, high = self.low_freq_factor, self.high_freq_factor
        turns = self.original_length * frequencies / (2 * jnp.pi)
        kept = jnp.clip((turns - low) / (high - low), 0, 1)
        return frequencies * (kept + (1 - kept) / self.factor)


def scaling_of(block: Mapping[str, Any] | RopeScaling | None) -> RopeScaling | None:
    """The block of a config, checked; None where it is empty.

    Raises:
        UserError: an unknown key or an impossible value.

    >>> scaling_of({"type": "llama3", "factr": 8})
    Traceback (most recent call last):
    rlx.errors.UserError: model.rope_scaling has no key 'factr'. Did you mean 'factor'? ...
    """
    if isinstance(block, RopeScaling):
        return block
    if not block:
        return None
    if not isinstance(block, Mapping):
        raise UserError(f"model.rope_scaling must be a block such as {{'type': 'llama3', ...}}, not {block!r}")
    known = [field.name for field in dataclasses.fields(RopeScaling)]
    for key in block:
        if key not in known:
            hint = close_matches(str(key), known)
            raise UserError(f"model.rope_scaling has no key {key!r}.{hint} Keys: {', '.join(known)}")
    return RopeScaling(**block)
