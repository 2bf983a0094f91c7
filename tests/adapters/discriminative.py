"""Adapters: discriminative and mixed policy losses, value losses, and corrections of the rollout's policy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from rlx import numerics
from rlx.policy import corrections, discriminative, mixed, value
from rlx.types import Array
from tests.adapters.policy import CANCELLING, PROPORTIONAL, TOKENS, groups, mask, reduction

Hyper = dict[str, Any]
Inputs = dict[str, Any]
Outputs = dict[str, Array]


def released_negatives(scores: Array, where: Array, tau: float) -> Array:
    """The released code prints tau in the place of tau log mean exp(s / tau), with the gradient of it."""
    paper = discriminative.log_mean_exp(scores, where, tau)
    return tau + paper - jax.lax.stop_gradient(paper)


def disco(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Value and gradient of the paper as ``value_with_logmeanexp``, the released surrogate as ``loss``."""
    index, real = groups(inputs["group_ids"])
    where = (inputs["mask"][index] > 0) & real[..., None]
    arrays = [inputs[name][index] for name in ("logprobs", "old_logprobs", "rewards")]
    named = {"estimator": {"kl": "k1", "low_var_kl": "k3"}[hyper["kl_type"]]}
    options = named | {key: hyper[key] for key in ("beta", "delta")} | {"score": hyper["score"], "where": where}
    options |= {"tau": hyper.get("tau", jnp.inf), "lam": hyper.get("Lambda")}
    paper = discriminative.disco(*arrays, **options)
    exact = "tau" not in hyper
    loss = paper if exact else discriminative.disco(*arrays, **options, negatives=released_negatives)
    divergence = numerics.mean(discriminative.divergence(*arrays[:2], named["estimator"], where), where=where)
    active = (divergence > hyper["delta"]).astype(loss.dtype)
    return {"loss": loss, "value_with_logmeanexp": paper, "kl": divergence, "constraint_active": active}


def scored(score: str, hyper: Hyper, inputs: Inputs) -> Outputs:
    return disco(hyper | {"score": score}, inputs)


def reg_grpo_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    index, real = groups(inputs["group_ids"])
    where = (inputs["mask"][index] > 0) & real[..., None]
    options = {"epsilon": hyper["epsilon"], "ddof": int(hyper["unbiased_std"])}
    arrays = [inputs[name][index] for name in ("logprobs", "old_logprobs", "rewards")]
    moved = numerics.sum(arrays[0] - arrays[1], -1, where=where)
    found = {"target_advantages": arrays[2], "predicted_advantages": moved}
    rows = where.any(-1)
    return {"loss": discriminative.reg_grpo_loss(*arrays, **options, where=where)} | {
        name: jnp.zeros(inputs["rewards"].shape, moved.dtype)
        .at[index[real]]
        .set(discriminative.standardize(x, **options, where=rows)[real])
        for name, x in found.items()
    }


def critique_grpo_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, refined = mask(inputs), inputs["refinement_mask"]
    losses = mixed.critique_grpo_loss(
        *(inputs[name] for name in TOKENS),
        refined,
        epsilon=None if hyper["remove_clip"] else hyper["clip"],
        clip_upper_bound=hyper["clip_upper_bound"],
        gamma=None if hyper["off_policy_reshape"] == "no_reshape" else hyper["gamma"],
        where=where,
        reduce=None,
    )
    return {
        "loss": numerics.mean(losses, where=where),
        "on_policy_loss": numerics.mean(losses, where=where & (refined <= 0)),
        "off_policy_loss": numerics.mean(losses, where=where & (refined > 0)),
    }


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
    "disco_logl_loss": functools.partial(scored, "log_likelihood"),
    "disco_lratio_loss": functools.partial(scored, "likelihood_ratio"),
    "discob_logl_loss": functools.partial(scored, "log_likelihood"),
    "discob_lratio_loss": functools.partial(scored, "likelihood_ratio"),
    "drpo_loss": functools.partial(scored, "log_likelihood"),
    "reg_grpo_loss": reg_grpo_loss,
    "critique_grpo_loss": critique_grpo_loss,
    "value_clip_loss": value_clip_loss,
    "truncated_importance_sampling": truncated_importance_sampling,
    "rollout_rejection_sampling": rollout_rejection_sampling,
    "off_policy_sequence_mask": off_policy_sequence_mask,
}

TOLERANCES = {
    "critique_grpo_loss": CANCELLING,
    "value_clip_loss": PROPORTIONAL,
    "truncated_importance_sampling": PROPORTIONAL,
    "rollout_rejection_sampling/masked_fraction": PROPORTIONAL,
}
for _method in ("disco_logl_loss", "disco_lratio_loss", "discob_logl_loss", "discob_lratio_loss", "drpo_loss"):
    TOLERANCES[_method] = CANCELLING
