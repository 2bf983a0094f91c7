"""Adapters of policy-gradient methods: 0/1 masks become boolean, ``group_ids`` become an axis, names are mapped."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlx import aggregate, numerics
from rlx.policy import advantages, clipped, diagnostics, entropy, ratios, regularize, returns, select
from rlx.types import Array

Hyper = dict[str, Any]
Inputs = dict[str, Any]
Outputs = dict[str, Array]

TOKENS = ("logprobs", "old_logprobs", "advantages")


def mask(inputs: Inputs) -> Array:
    """The boolean mask."""
    return inputs["mask"] > 0


def groups(group_ids: Array) -> tuple[np.ndarray, np.ndarray]:
    """Rows by group: ``index [P, K]`` into the batch, and which of its entries are real."""
    ids = np.asarray(group_ids)
    members = [np.flatnonzero(ids == group) for group in np.unique(ids)]
    size = max(map(len, members))
    index = np.stack([np.pad(rows, (0, size - len(rows))) for rows in members])
    return index, np.arange(size) < np.array([[len(rows)] for rows in members])


def reduction(hyper: Hyper, mode: str, length: int) -> aggregate.Aggregation:
    """verl's aggregations; global counts and ``dp_size`` undo the mean that its data parallelism takes later."""
    if mode == "seq-mean-token-sum-norm":
        return aggregate.constant(hyper.get("loss_scale_factor") or length, per_row=False)
    named = {
        "token-mean": (aggregate.token_mean, "batch_num_tokens"),
        "seq-mean-token-sum": (aggregate.sequence_sum, "global_batch_size"),
        "seq-mean-token-mean": (aggregate.sequence_mean, "global_batch_size"),
    }
    chosen, counted = named[mode]

    def count(where: Array) -> Array:
        return jnp.asarray(hyper.get(counted) or chosen.count(where)) / hyper.get("dp_size", 1)

    return chosen._replace(count=count)


def loss_aggregation(hyper: Hyper, inputs: Inputs) -> Outputs:
    loss = inputs["loss"]
    return {"loss": reduction(hyper, hyper["aggregation"], loss.shape[-1])(loss, mask(inputs))}


def grpo_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    index, real = groups(inputs["group_ids"])
    options = {"scale": hyper["normalize_by_std"], "epsilon": hyper["epsilon"]}
    grouped = advantages.grpo_advantage(inputs["rewards"][index], **options, where=jnp.asarray(real))
    rows = jnp.zeros((inputs["rewards"].size, 1), grouped.dtype).at[index[real]].set(grouped[real])
    result = numerics.clean(jnp.broadcast_to(rows, inputs["mask"].shape), mask(inputs))
    return {"advantages": result, "returns": result}


def gae_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """On a masked token the reference leaves what its scan carries: the next real token's advantage, 0 at the end."""
    where, values = mask(inputs), inputs["values"]
    options = {"gamma": hyper["gamma"], "lam": hyper["lambda"]}
    gae = returns.gae_advantage(inputs["token_level_rewards"], values, **options, where=where)
    position = np.where(where, np.arange(where.shape[-1]), where.shape[-1])
    following = np.minimum.accumulate(position[..., ::-1], -1)[..., ::-1]
    padded = jnp.pad(gae.advantages, [(0, 0)] * (where.ndim - 1) + [(0, 1)])
    carried = jnp.take_along_axis(padded, following, -1)
    scale = jax.lax.rsqrt(numerics.variance(carried, where=where, ddof=1) + 1e-8)
    whitened = jnp.where(
        where,
        numerics.whiten(gae.advantages, where=where),
        (carried - numerics.mean(carried, where=where)) * scale,
    )
    targets = jnp.where(where, gae.returns, carried + values)
    return {"advantages_raw": carried, "advantages_whitened": whitened, "returns": targets}


def ppo_clip_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, arrays = mask(inputs), [inputs[name] for name in TOKENS]
    bounds = {"clip_low": hyper["clip_low"], "clip_high": hyper["clip_high"]}
    loss = clipped.ppo_clip_loss(
        *arrays,
        inputs.get("rollout_is_weights"),
        **bounds,
        dual_clip=hyper["dual_clip"],
        where=where,
        reduce=reduction(hyper, hyper["aggregation"], where.shape[-1]),
    )
    ratio = ratios.token(*arrays[:2], where=where)
    return {
        "loss": loss,
        "approx_kl": diagnostics.approximate_kl(*arrays[:2], where=where),
        "clip_fraction": diagnostics.clip_fraction(ratio, arrays[2], **bounds, where=where),
        "clip_fraction_lower": diagnostics.dual_clip_fraction(
            ratio, arrays[2], **bounds, dual_clip=hyper["dual_clip"], where=where
        ),
    }


def gspo_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, arrays = mask(inputs), [inputs[name] for name in TOKENS]
    bounds = {"clip_low": hyper["clip_low"], "clip_high": hyper["clip_high"]}
    ratio = ratios.sequence(*arrays[:2], where=where)
    return {
        "loss": clipped.gspo_loss(*arrays, inputs.get("rollout_is_weights"), **bounds, where=where),
        "approx_kl": diagnostics.approximate_kl(*arrays[:2], bound=np.inf, where=where),
        "clip_fraction": diagnostics.clip_fraction(ratio, arrays[2], **bounds, where=where),
        "clip_fraction_lower": jnp.zeros(()),
    }


def clip_cov(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The files select all candidates, so that the key does not matter."""
    where, arrays = mask(inputs), [inputs[name] for name in TOKENS]
    bounds = {"clip_low": hyper["clip_ratio_low"], "clip_high": hyper["clip_ratio_high"]}
    bounds |= {"lower": hyper["clip_cov_lb"], "upper": hyper["clip_cov_ub"]}
    drawn = {"ratio": hyper["clip_cov_ratio"], "key": jax.random.key(0)}
    keep = select.clip_cov_keep(*arrays, **bounds, **drawn, where=where)
    reduce = reduction(hyper, hyper["loss_agg_mode"], where.shape[-1])
    return {
        "loss": entropy.clip_cov(*arrays, **bounds, **drawn, where=where, reduce=reduce),
        "clip_fraction": diagnostics.selected_fraction(~keep, where=where),
        "ppo_kl": diagnostics.approximate_kl(*arrays[:2], bound=np.inf, where=where),
        "covariance": select.covariance(arrays[0], arrays[2], where=where),
        "candidates": select.clip_cov_candidates(*arrays, **bounds, where=where),
        "num_to_clip": select.requested(hyper["clip_cov_ratio"], arrays[0], where=where),
    }


def kl_cov(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, arrays = mask(inputs), [inputs[name] for name in TOKENS]
    ratio, reduce = hyper["kl_cov_ratio"], reduction(hyper, hyper["loss_agg_mode"], where.shape[-1])
    options = {"ratio": ratio, "coefficient": hyper["ppo_kl_coef"]}
    distance = diagnostics.approximate_kl(*arrays[:2], estimator=regularize.absolute, bound=np.inf, where=where)
    return {
        "loss": entropy.kl_cov(*arrays, **options, where=where, reduce=reduce),
        "ppo_kl_abs": distance,
        "selected": select.kl_cov_select(arrays[0], arrays[2], ratio=ratio, where=where),
    }


def kl_penalty(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Gradients of estimators that must not be used as a loss are checked on the bare formula."""
    arrays, estimator = (inputs["logprobs"], inputs["reference_logprobs"]), regularize.by_name(hyper["estimator"])
    if "loss" in estimator.uses:
        per_token = regularize.kl_penalty(*arrays, estimator=estimator)
    else:
        per_token = estimator.estimate(ratios.log_ratio(*arrays))
    return {"per_token": per_token, "masked_sum": numerics.sum(per_token, where=mask(inputs))}


def kl_in_reward(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The reference keeps the score of a masked token."""
    scores, where = inputs["token_level_scores"], mask(inputs)
    arrays, beta = (scores, inputs["old_logprobs"], inputs["reference_logprobs"]), hyper["kl_coef"]
    masked = regularize.kl_in_reward(*arrays, beta=beta, where=where)
    return {
        "token_level_rewards_unmasked": regularize.kl_in_reward(*arrays, beta=beta),
        "token_level_rewards": jnp.where(where, masked, scores),
    }


ADAPTERS = {
    "loss_aggregation": loss_aggregation,
    "grpo_advantage": grpo_advantage,
    "gae_advantage": gae_advantage,
    "ppo_clip_loss": ppo_clip_loss,
    "gspo_loss": gspo_loss,
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
    "kl_penalty": kl_penalty,
    "kl_in_reward": kl_in_reward,
}
GRADIENT_OF = {"kl_penalty": "masked_sum"}

MEAN = "the reference divides by n + 1e-8"
PROPORTIONAL = (1e-6, 1e-15, MEAN)
CANCELLING = (1e-6, 1e-8, MEAN + "; the error, 1e-8 of the largest term, stays when the terms cancel")
TOLERANCES = {
    "grpo_advantage": (1e-9, 1e-9, "rewards equal but for rounding: the rounding of the mean is divided by 1e-6"),
    "gae_advantage/advantages_whitened": CANCELLING,
    "clip_cov/covariance": CANCELLING,
    "loss_aggregation/loss": CANCELLING,
    "loss_aggregation/gradient of loss": PROPORTIONAL,
    "kl_cov/ppo_kl_abs": PROPORTIONAL,
    "clip_cov/ppo_kl": PROPORTIONAL,
    "clip_cov/clip_fraction": PROPORTIONAL,
}
for _method in ("ppo_clip_loss", "gspo_loss", "clip_cov", "kl_cov"):
    TOLERANCES |= {f"{_method}/loss": CANCELLING, f"{_method}/gradient of logprobs": PROPORTIONAL}
for _method in ("ppo_clip_loss", "gspo_loss"):
    _metrics = ("approx_kl", "clip_fraction", "clip_fraction_lower")
    TOLERANCES |= {f"{_method}/{_name}": PROPORTIONAL for _name in _metrics}
