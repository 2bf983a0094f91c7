r"""Coefficients of a KL penalty and of an entropy bonus that a controller moves, beside any loss of tokens.

.. math:: L = L_{policy} + c_{KL}\,\mathrm{k3}(\pi, \pi_{ref}) - c_H\,H

The controllers (:mod:`rlx.signals`) measure the mean over the tokens of the global batch before every update; what they
hold is state of the method, and so saved and resumed with the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from rlx import errors, numerics, signals
from rlx.method import Constants, Method, PyTree
from rlx.parts import parse
from rlx.policy import ratios, regularize
from rlx.types import Array, Batch

CONTROLLERS: dict[str, dict[str, Callable[..., signals.Signal]]] = {
    "kl": {"adaptive_kl": signals.adaptive_kl, "dual_ascent": signals.dual_ascent},
    "entropy": signals.ENTROPY_CONTROLLERS,
}
"""Quantity -> controllers of it by name."""
READS = {"kl": ("logprobs", "reference_logprobs"), "entropy": ("entropy",)}
"""Quantity -> the arrays that it is measured on."""


def controllers(block: Mapping[str, str]) -> dict[str, signals.Signal]:
    """The controllers of a block such as ``{"kl": "adaptive_kl(0.1, 1000, initial=0.01)"}``.

    Raises:
      UserError: an unknown quantity or controller, with close matches, or arguments that it does not take.

    >>> controllers({"entropy": "stepp(0.5, 0.01)"})
    Traceback (most recent call last):
    rlx.errors.UserError: config.rl.rollout.control.entropy: unknown controller 'stepp'. Did you mean 'step'? ...
    """
    return {quantity: _controller(quantity, text) for quantity, text in block.items()}


def _controller(quantity: str, text: str) -> signals.Signal:
    key = f"config.rl.rollout.control.{quantity}"
    if quantity not in CONTROLLERS:
        raise errors.UserError(f"{key} is not known.{errors.close_matches(quantity, CONTROLLERS)} Known: kl, entropy.")
    call, known = parse(text), CONTROLLERS[quantity]
    if call.name not in known:
        hint = errors.close_matches(call.name, known)
        raise errors.UserError(f"{key}: unknown controller {call.name!r}.{hint} Known: {', '.join(known)}.")
    try:
        return known[call.name](*call.arguments, **call.keywords)
    except TypeError as error:
        raise errors.UserError(f"{key}={text!r}: {error}.") from None


def with_controls(
    method: Method, controls: Mapping[str, signals.Signal], axis_name: numerics.AxisName = None
) -> Method:
    """The method with a term of its own for every controlled quantity; ``axis_name`` is that of its batch."""

    measured = partial(numerics.mean, axis_name=axis_name)

    def init(key: Array, shapes: Any) -> tuple[PyTree, PyTree]:
        params, state = method.init(key, shapes)
        return params, {"method": state, "controls": {name: control.init() for name, control in controls.items()}}

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        constants, own = method.prepare(batch, params, state["method"], key)
        found = {
            name: control.update(measured(_units(name, batch), where=batch["where"]), state["controls"][name])
            for name, control in controls.items()
        }
        shared = constants.shared | {f"{name}_coefficient": value for name, (value, _) in found.items()}
        after = {"method": own, "controls": {name: held for name, (_, held) in found.items()}}
        return Constants(shared, constants.units), after

    def apply(constants: Constants, batch: Batch, params: PyTree) -> tuple[Array, Array]:
        own = {name: value for name, value in constants.shared.items() if name not in coefficients}
        losses, where = method.apply(Constants(own, constants.units), batch, params)
        for name, sign in (("kl", 1), ("entropy", -1)):
            if name in controls:
                losses = losses + sign * constants.shared[f"{name}_coefficient"] * _units(name, batch)
        return losses, where

    coefficients = [f"{name}_coefficient" for name in controls]
    reads = tuple(name for quantity in controls for name in READS[quantity])
    return method._replace(
        init=init,
        prepare=prepare,
        apply=apply,
        needs=tuple(dict.fromkeys((*method.needs, *reads))),
        prepare_needs=tuple(dict.fromkeys((*method.prepare_needs, *reads))),
        partition=None,
    )


def _units(quantity: str, batch: Batch) -> Array:
    """The quantity at every token, 0 where masked."""
    where = batch["where"]
    if quantity == "entropy":
        return numerics.clean(numerics.accumulate(batch["entropy"]), where)
    d = ratios.log_ratio(batch["logprobs"], batch["reference_logprobs"], where=where)
    return jnp.where(where, regularize.k3.estimate(d), 0)
