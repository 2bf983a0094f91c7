"""Adapters: discriminative and mixed policy losses, value losses, and corrections of the rollout's policy."""

from typing import Any

import jax.numpy as jnp

from rlx import numerics
from rlx.policy import corrections, value
from rlx.types import Array
from tests.adapters.policy import mask, reduction

Hyper = dict[str, Any]
Inputs = dict[str, Any]
Outputs = dict[str, Array]


def value_clip_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, arrays = mask(inputs), [inputs[name] for name in ("values", "old_values", "returns")]
    options = {"clip": hyper["clip_value"], "where": where}
    plain, clipped = value.squared_errors(*arrays, **options)
    reduce = reduction(hyper, hyper["aggregation"], where.shape[-1])
    return {
        "loss": value.value_clip_loss(*arrays, **options, reduce=reduce),
        "clip_fraction": numerics.mean(clipped > plain, where=where),
    }


def truncated_importance_sampling(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = inputs["logprobs"], inputs["rollout_logprobs"]
    options = {key: hyper[key] for key in ("level", "threshold", "batch_normalize")}
    return {"weights": corrections.truncated_importance_sampling(*arrays, **options, where=mask(inputs))}


def bounds(text: Any) -> Any:
    """verl's ``lower_upper`` or one number."""
    numbers = tuple(map(float, str(text).split("_")))
    return numbers if len(numbers) > 1 else numbers[0]


def rollout_rejection_sampling(hyper: Hyper, inputs: Inputs) -> Outputs:
    where = mask(inputs)
    pairs = zip(hyper["criteria"].split(","), str(hyper["thresholds"]).split(","), strict=True)
    criteria = {name.strip(): bounds(text) for name, text in pairs}
    arrays = inputs["logprobs"], inputs["rollout_logprobs"]
    kept = corrections.rollout_rejection_sampling(*arrays, criteria=criteria, where=where)
    return {"mask": kept, "masked_fraction": numerics.mean(~kept, where=where)}


def off_policy_sequence_mask(hyper: Hyper, inputs: Inputs) -> Outputs:
    """TRL counts a token whose difference is NaN as a difference of 0; of rlx's arrays it says ``where`` instead."""
    difference = inputs["sampling_logprobs"] - inputs["logprobs"]
    difference = jnp.where(jnp.isnan(difference), 0, difference)
    keep = corrections.off_policy_sequence_mask(
        jnp.zeros_like(difference),
        difference,
        inputs["advantages"][:, None],
        delta=hyper["off_policy_mask_threshold"],
        where=mask(inputs),
    )
    return {"keep": keep.all(-1)}


ADAPTERS = {
    "value_clip_loss": value_clip_loss,
    "truncated_importance_sampling": truncated_importance_sampling,
    "rollout_rejection_sampling": rollout_rejection_sampling,
    "off_policy_sequence_mask": off_policy_sequence_mask,
}

_MEAN = "the reference divides by n + 1e-8"
_PROPORTIONAL = (1e-6, 1e-15, _MEAN)
TOLERANCES = {
    "value_clip_loss": _PROPORTIONAL,
    "truncated_importance_sampling": _PROPORTIONAL,
    "rollout_rejection_sampling/masked_fraction": _PROPORTIONAL,
}
