"""Adapters of TRL's GRPO trainer: one function of its hyperparameters, whatever the name of the file.

TRL clamps no ratio; the catalogue's presets do, at 60 nats, to stay finite in float32. The adapters go without.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

import rlx
from rlx import aggregate, numerics
from rlx.policy import ratios, regularize, surrogates
from rlx.types import Array
from tests.adapters.policy import mask

Hyper = dict[str, Any]
Inputs = dict[str, Any]
Outputs = dict[str, Array]

RATIOS = {
    "token": functools.partial(ratios.token, bound=np.inf),
    "sequence": functools.partial(ratios.sequence, maximum=np.inf),
}
K3 = regularize.low_variance(np.inf, np.inf)


def reduce_of(hyper: Hyper) -> aggregate.Aggregation:
    """TRL's normalisers; the number of tokens of the global batch is given."""
    tokens = aggregate.constant(hyper.get("num_items_in_batch", 1), per_row=False)
    return {
        "grpo": aggregate.sequence_mean_with_empty,
        "sapo": aggregate.sequence_mean_with_empty,
        "luspo": aggregate.sequence_sum_with_empty,
        "bnpo": aggregate.token_mean,
        "dr_grpo": aggregate.constant(hyper.get("max_completion_length", 1), empty=True),
    }.get(hyper["loss_type"], tokens)


def common(hyper: Hyper, inputs: Inputs) -> dict[str, Any]:
    """Keywords of every loss."""
    return {"beta": hyper.get("beta", 0.0), "estimator": K3, "where": mask(inputs), "reduce": reduce_of(hyper)}


def bounds_of(hyper: Hyper) -> tuple[float, float, float | None]:
    """Low, high and cap; TRL's ``epsilon_high`` is ``epsilon`` unless it is given."""
    return hyper["epsilon"], hyper.get("epsilon_high") or hyper["epsilon"], hyper.get("delta")


def arrays_of(inputs: Inputs) -> dict[str, Array | None]:
    return {
        "logprobs": inputs["logprobs"],
        "old_logprobs": inputs["old_logprobs"],
        "advantages": inputs["advantages"][:, None],
        "weights": inputs.get("importance_sampling_ratio"),
        "reference_logprobs": inputs.get("reference_logprobs"),
    }


def corrected(hyper: Hyper) -> dict[str, Any]:
    """What depends on the ratio."""
    level = hyper.get("importance_sampling_level", "token")
    return {"ratio": RATIOS[level], "correct_kl": hyper.get("use_bias_correction_kl", False)}


def reported(hyper: Hyper, inputs: Inputs) -> Outputs:
    """TRL's metrics of the ratio and the KL."""
    where, arrays = mask(inputs), arrays_of(inputs)
    ratio = RATIOS[hyper.get("importance_sampling_level", "token")](*list(arrays.values())[:3], where=where)
    found = {}
    if arrays["reference_logprobs"] is not None:
        kl = K3.estimate(ratios.log_ratio(arrays["logprobs"], arrays["reference_logprobs"], where=where))
        kl = kl * ratio if hyper.get("use_bias_correction_kl", False) else kl
        found["mean_kl"] = numerics.mean(kl, where=where)
    if "epsilon" not in hyper:
        return found
    below, above, cap = bounds_of(hyper)
    capped = jnp.minimum(ratio, cap or np.inf)
    low = (capped < 1 - below) & (arrays["advantages"] < 0)
    high = (capped > 1 + above) & (arrays["advantages"] > 0)
    for name, flags in {"low": low, "high": high, "region": low | high}.items():
        flags = flags.astype(ratio.dtype)
        by_row = hyper.get("importance_sampling_level") == "sequence"
        mean = numerics.mean(flags[..., 0]) if by_row else numerics.mean(flags, where=where)
        found[f"clip_ratio_{name}_mean"] = mean
    return found


def clipped(hyper: Hyper, inputs: Inputs) -> Outputs:
    """All losses with PPO's clip, at the level of tokens or responses."""
    bounds = dict(zip(("clip_low", "clip_high", "cap"), bounds_of(hyper), strict=True))
    options = {**bounds, **common(hyper, inputs), **corrected(hyper)}
    return {"loss": rlx.trl_grpo_loss(**arrays_of(inputs), **options), **reported(hyper, inputs)}


def sapo(hyper: Hyper, inputs: Inputs) -> Outputs:
    taus = {"tau_positive": hyper["sapo_temperature_pos"], "tau_negative": hyper["sapo_temperature_neg"]}
    options = {**taus, **common(hyper, inputs), **corrected(hyper)}
    return {"loss": rlx.trl_sapo_loss(**arrays_of(inputs), **options), **reported(hyper, inputs)}


def cispo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """``epsilon_high`` is the largest weight itself."""
    options = {"clip_high": hyper["epsilon_high"] - 1, **common(hyper, inputs), **corrected(hyper)}
    return {"loss": rlx.trl_cispo_loss(**arrays_of(inputs), **options), **reported(hyper, inputs)}


def vespo(hyper: Hyper, inputs: Inputs) -> Outputs:
    named = {"vespo_k_pos": "k_positive", "vespo_lambda_pos": "lambda_positive"}
    named |= {"vespo_k_neg": "k_negative", "vespo_lambda_neg": "lambda_negative"}
    shape = {ours: hyper[theirs] for theirs, ours in named.items() if theirs in hyper}
    loss = rlx.trl_vespo_loss(**arrays_of(inputs), **shape, **common(hyper, inputs))
    return {"loss": loss, **reported(hyper, inputs)}


def high_entropy(hyper: Hyper, inputs: Inputs) -> Outputs:
    """A recipe: the selection is one of its parts."""
    low, high, cap = bounds_of(hyper)
    quantile, options = hyper["top_entropy_quantile"], common(hyper, inputs)
    beta, corrects = hyper.get("beta", 0.0), hyper.get("use_bias_correction_kl", False)
    penalty = {"kl": f"k3({beta}, corrected={corrects})"} if beta else {}
    stages = {"surrogate": surrogates.clip(low, high, cap=cap), "select": f"high_entropy({quantile})", **penalty}
    arrays = {name: array for name, array in arrays_of(inputs).items() if array is not None}
    arrays |= {"entropy": inputs["entropy"]}
    named = {"where": options["where"], "reduce": options["reduce"], "ratio": corrected(hyper)["ratio"]}
    return {"loss": rlx.trl_entropy_mask_grpo_loss(**arrays, **stages, **named), **reported(hyper, inputs)}


CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo", "luspo", "vllm_is_grpo")
ADAPTERS = {f"trl_{name}_loss": clipped for name in CLIPPED}
ADAPTERS |= {
    "trl_sapo_loss": sapo,
    "trl_cispo_loss": cispo,
    "trl_vespo_loss": vespo,
    "trl_entropy_mask_grpo_loss": high_entropy,
}
