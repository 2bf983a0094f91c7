"""Rotary keys of ``config.json``, in the old spelling and in that of transformers 5."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rlx.errors import UserError, close_matches, one_line
from rlx.models.rope import RopeScaling, scaling_of
from rlx.models.transformer import Config

TYPES = ("default", "linear", "llama3")
_KEYS = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_length",
}
_NAMES = ("rope_type", "type", "rope_theta")


def rotary_options(raw: Mapping[str, Any], *, local: bool) -> dict[str, Any]:
    """``rope_theta``, ``rope_scaling`` and, for layers that slide where ``local``, ``rope_local_theta``.

    Raises:
        UserError: a rotary embedding that the transformer does not have, by name.
    """
    block = raw.get("rope_parameters") or {}
    both = block if isinstance(block, Mapping) and isinstance(block.get("full_attention"), Mapping) else {}
    far = _mapping(both.get("full_attention") or block or raw.get("rope_scaling") or {})
    near = _mapping(both.get("sliding_attention") or {})
    found = {
        "rope_theta": _theta(far.get("rope_theta", raw.get("rope_theta")), 10_000.0),
        "rope_scaling": _scaling(far, raw),
        "rope_local_theta": 0.0,
    }
    if local:
        if _scaling(near, raw) is not None:
            raise UserError("config.json: rope_parameters.sliding_attention must be of rope_type 'default'")
        found["rope_local_theta"] = _theta(near.get("rope_theta", raw.get("rope_local_base_freq")), 10_000.0)
    return found


def _mapping(block: Any) -> Mapping[str, Any]:
    if not isinstance(block, Mapping):
        raise UserError(f"config.json: rope_scaling={one_line(block, 80)} must be an object or null")
    return block


def _theta(value: Any, default: float) -> float:
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e30:
        raise UserError(f"config.json: rope_theta={one_line(value, 80)} must be a number above 0")
    return float(value)


def _scaling(block: Mapping[str, Any], raw: Mapping[str, Any]) -> RopeScaling | None:
    kind = block.get("rope_type", block.get("type", "default"))
    if kind not in TYPES:
        hint = close_matches(str(kind), TYPES)
        raise UserError(
            f"config.json: rope_scaling type {one_line(kind, 80)!r} is not supported ({', '.join(TYPES)}).{hint}"
        )
    for key, value in {"partial_rotary_factor": raw.get("partial_rotary_factor"), **block}.items():
        if key == "partial_rotary_factor" and value in (None, 1, 1.0):
            continue
        if key not in (*_KEYS, *_NAMES):
            raise UserError(
                f"config.json: the rotary option {one_line(key, 80)}={one_line(value, 80)} is not supported"
            )
    if kind == "default":
        return None
    own = {ours: block[theirs] for theirs, ours in _KEYS.items() if block.get(theirs) is not None}
    if kind == "llama3":
        own.setdefault("original_length", raw.get("max_position_embeddings"))
    missing = [theirs for theirs, ours in _KEYS.items() if ours not in own and kind == "llama3"]
    if missing or "factor" not in own:
        raise UserError(f"config.json: rope_scaling of type {kind!r} lacks {(*missing, 'factor')[0]!r}")
    return scaling_of({"type": kind, **(own if kind == "llama3" else {"factor": own["factor"]})})


def rotary_keys(config: Config) -> dict[str, Any]:
    """The keys of a config, in the old spelling, which all versions read."""
    found: dict[str, Any] = {"rope_theta": config.rope_theta}
    if config.rope_local_theta:
        found["rope_local_base_freq"] = config.rope_local_theta
    scaling = scaling_of(config.rope_scaling)
    if scaling is not None:
        own = dataclasses.asdict(scaling)
        names = _KEYS if scaling.type == "llama3" else {"factor": "factor"}
        found["rope_scaling"] = {"rope_type": scaling.type, **{theirs: own[ours] for theirs, ours in names.items()}}
    return found
