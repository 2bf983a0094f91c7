"""Adapters of policy losses with a ratio or a weight, as verl, Trinity-RFT and SPO have them."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from rlx import aggregate, numerics
from rlx.policy import clipped, diagnostics, group_reinforce, importance, ratios, small_parts, weighted
from rlx.types import Array
from tests.adapters.policy import CANCELLING, PROPORTIONAL, TOKENS, mask, reduction

Hyper = dict[str, Any]
Inputs = dict[str, Any]
Outputs = dict[str, Array]

NOTHING_CLIPPED = {"clip_fraction": jnp.zeros(()), "clip_fraction_lower": jnp.zeros(())}
TOKEN = functools.partial(ratios.token, bound=np.inf)


def arrays_of(inputs: Inputs) -> list[Array]:
    return [inputs[name] for name in TOKENS]


def reduce_of(hyper: Hyper, inputs: Inputs) -> aggregate.Aggregation:
    return reduction(hyper, hyper.get("aggregation", "token-mean"), inputs["mask"].shape[-1])


def cispo_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, arrays = mask(inputs), arrays_of(inputs)
    bounds = {"clip_low": hyper["clip_low"], "clip_high": hyper["clip_high"]}
    options = {"where": where, "reduce": reduce_of(hyper, inputs)}
    ratio = ratios.token(*arrays[:2], where=where)
    changed = ratio != importance.truncated(hyper["clip_low"], hyper["clip_high"])(ratio, arrays[2])
    return NOTHING_CLIPPED | {
        "loss": weighted.cispo_loss(*arrays, inputs.get("rollout_is_weights"), **bounds, **options),
        "clip_fraction": numerics.mean(changed.astype(ratio.dtype), where=where),
        "approx_kl": diagnostics.approximate_kl(*arrays[:2], where=where),
    }


def sapo_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, arrays = mask(inputs), arrays_of(inputs)
    taus = {"tau_positive": hyper["tau_pos"], "tau_negative": hyper["tau_neg"]}
    return NOTHING_CLIPPED | {
        "loss": weighted.sapo_loss(*arrays, inputs.get("rollout_is_weights"), **taus, where=where),
        "approx_kl": diagnostics.approximate_kl(*arrays[:2], where=where),
    }


def reinforce_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    """GPG, and REINFORCE with rollout weights: old log-probabilities are not used, those of the sampler reported."""
    where, weights = mask(inputs), inputs.get("rollout_is_weights")
    arrays = (inputs["logprobs"], inputs["advantages"], weights)
    outputs = {"loss": weighted.reinforce_loss(*arrays, where=where, reduce=reduce_of(hyper, inputs))}
    if "rollout_logprobs" in inputs:
        both = (inputs["logprobs"], inputs["rollout_logprobs"])
        outputs["approx_kl"] = diagnostics.approximate_kl(*both, bound=np.inf, where=where)
    return outputs


def opmd_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = (inputs["logprobs"], inputs["advantages"])
    return {"loss": weighted.opmd_loss(*arrays, tau=hyper.get("tau", 1.0), where=mask(inputs))}


def topr_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The reference takes the ratio of the token, the paper that of the response."""
    options = {"threshold": hyper.get("advantage_threshold", 0.0), "ratio": TOKEN}
    return {"loss": weighted.topr_loss(*arrays_of(inputs), **options, where=mask(inputs))}


def weight_of(hyper: Hyper) -> importance.Weight:
    """What the advantage is multiplied by."""
    named = {"none": importance.uniform, "importance_sampling": importance.importance}
    return named.get(hyper["weight"]) or importance.exponential(hyper.get("temp", 1.0))


def rec_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, arrays = mask(inputs), arrays_of(inputs)
    inner = {"low": hyper["epsilon_low"], "high": hyper["epsilon_high"]}
    outer = {"outer_low": hyper["epsilon_low_prime"], "outer_high": hyper["epsilon_high_prime"]}
    loss, keep, more = {
        "one-side": (group_reinforce.rec_one_side_loss, importance.one_side(**inner), {}),
        "two-side": (group_reinforce.rec_two_side_loss, importance.two_side(**inner), {}),
        "ring": (group_reinforce.rec_ring_loss, importance.ring(**inner, **outer), outer),
    }[hyper["clip_mode"]]
    bounds = {"clip_low": inner["low"], "clip_high": inner["high"], **more}
    kept = keep(TOKEN(*arrays[:2], where=where), arrays[2])
    return {
        "loss": loss(*arrays, **bounds, weight=weight_of(hyper), where=where),
        "clip_fraction": numerics.mean((~kept).astype(arrays[0].dtype), where=where),
    }


def red_weight_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    named = {"forward-kl": "forward_kl", "k2": "k2"}
    strength = {named[name]: hyper["regularizer_coef"] for name in (hyper.get("regularizer"),) if name in named}
    options = {"weight": weight_of(hyper), **strength, "where": mask(inputs)}
    return {
        "loss": group_reinforce.red_weight_loss(*arrays_of(inputs), **options),
        "clip_fraction": jnp.zeros(()),
    }


def spo_probability_mask_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, threshold = mask(inputs), hyper["probability_threshold"]
    options = {"clip": hyper["clip"], "threshold": threshold, "where": where}
    return {
        "loss": clipped.spo_probability_mask_loss(*arrays_of(inputs), **options),
        "effective_mask": where & small_parts.low_probability(inputs["old_logprobs"], threshold=threshold, where=where),
    }


def gmpo_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The reference counts rows without tokens, and adds 1e-10 to the weights."""
    where, arrays = mask(inputs), arrays_of(inputs)
    weights = inputs.get("rollout_is_weights")
    weights = None if weights is None else weights + 1e-10
    bounds = {"clip_low": hyper["clip_low"], "clip_high": hyper["clip_high"]}
    d = ratios.log_ratio(*arrays[:2], where=where)
    outside = (d < -hyper["clip_low"]) | (d > hyper["clip_high"])
    options = {"where": where, "reduce": aggregate.sequence_mean_with_empty}
    fractions = {"clip_fraction": arrays[2] > 0, "clip_fraction_lower": arrays[2] < 0}
    return {
        "loss": clipped.gmpo_loss(*arrays, weights, **bounds, **options),
        "approx_kl": diagnostics.approximate_kl(*arrays[:2], bound=np.inf, where=where),
        **{k: numerics.mean((outside & side).astype(d.dtype), where=where) for k, side in fractions.items()},
    }


ADAPTERS = {
    "cispo_loss": cispo_loss,
    "sapo_loss": sapo_loss,
    "gpg_loss": reinforce_loss,
    "reinforce_is_loss": reinforce_loss,
    "opmd_loss": opmd_loss,
    "topr_loss": topr_loss,
    "rec_one_side_loss": rec_loss,
    "rec_two_side_loss": rec_loss,
    "rec_ring_loss": rec_loss,
    "red_weight_loss": red_weight_loss,
    "spo_probability_mask_loss": spo_probability_mask_loss,
    "gmpo_loss": gmpo_loss,
}

TOLERANCES = {}
for _method in ADAPTERS:
    TOLERANCES |= {f"{_method}/loss": CANCELLING, f"{_method}/gradient of logprobs": PROPORTIONAL}
    TOLERANCES |= {f"{_method}/{_name}": PROPORTIONAL for _name in ("clip_fraction", "clip_fraction_lower")}
    TOLERANCES[f"{_method}/approx_kl"] = CANCELLING
