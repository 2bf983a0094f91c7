"""Adapters: methods that control the entropy: selections, weights, regularisers, controllers."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from rlx import aggregate, numerics, ops, signals
from rlx.policy import (
    advantages,
    aepo,
    clipped,
    diagnostics,
    entropy_advantages,
    entropy_bonus,
    entropy_selections,
    entropy_weights,
    epo,
    hapo,
    ratios,
    siren,
)
from rlx.types import Array
from tests.adapters.policy import (
    CANCELLING,
    MEAN,
    PROPORTIONAL,
    TOKENS,
    Hyper,
    Inputs,
    Outputs,
    groups,
    mask,
    reduction,
)

INF = np.inf
ON = "adaptive_advantage"


def bounds(hyper: Hyper) -> dict[str, Any]:
    """The clip of the policy loss, as rlx names it."""
    named = {"clip_ratio_low": "clip_low", "clip_ratio_high": "clip_high", "clip_ratio_c": "dual_clip"}
    found = {ours: hyper[theirs] for theirs, ours in named.items() if theirs in hyper}
    if "clip_ratio" in hyper:
        found |= {"clip_low": hyper["clip_ratio"], "clip_high": hyper["clip_ratio"]}
    return found


def by_group(function: Callable[..., Array], inputs: Inputs, *names: str) -> Array:
    """A function of groups ``[P, K]`` on rows, and its ``[P, K, 1]`` back in rows ``[B, 1]``."""
    index, real = groups(inputs["group_ids"])
    grouped = function(*(inputs[name][index] for name in names), where=jnp.asarray(real))
    return jnp.zeros((index.max() + 1, 1), grouped.dtype).at[index[real]].set(grouped[real])


def grpo(hyper: Hyper, inputs: Inputs) -> Array:
    """GRPO's advantages at every real token."""

    def estimate(rewards: Array, *, where: Array) -> Array:
        return advantages.grpo_advantage(rewards, epsilon=hyper["epsilon"], where=where)

    return numerics.clean(jnp.broadcast_to(by_group(estimate, inputs, "rewards"), inputs["mask"].shape), mask(inputs))


def forking_token_mask(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The threshold of a row without tokens is NaN in the reference."""
    where, arrays, h = mask(inputs), [inputs[name] for name in TOKENS], inputs["entropy"]
    rho = hyper["top_fraction"]
    keep = entropy_selections.high_entropy(h, fraction=rho, where=where)
    own = jnp.stack([numerics.quantile(x, 1 - rho, where=w) for x, w in zip(h, where, strict=True)])
    clip = bounds(hyper)
    return {
        "batch_mask": keep,
        "batch_threshold": numerics.quantile(h, 1 - rho, where=where),
        "per_row_mask": entropy_selections.peaks(h, rho=1 - rho, where=where),
        "per_row_threshold": jnp.where(where.any(-1), own, jnp.nan),
        "loss_denominator_all": clipped.ppo_clip_loss(*arrays, keep, **clip, where=where),
        "loss_denominator_kept": clipped.ppo_clip_loss(*arrays, **clip, where=where & keep),
    }


def entropy_clip_b(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, a = mask(inputs), grpo(hyper, inputs)
    arrays = (inputs["logprobs"], inputs["entropy"])
    s = entropy_selections.discriminator(*arrays)
    keep = entropy_selections.entropy_clip_b(*arrays, a, mu=hyper["mu"], where=where)
    return {
        "advantages": a,
        "discriminator": s,
        "mean_discriminator": numerics.mean(s, where=where),
        "std_discriminator": numerics.std(s, where=where),
        "clipped_mask": keep,
        "fraction_clipped": diagnostics.selected_fraction(~keep, where=where),
    }


def entropy_clip_v(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, a = mask(inputs), grpo(hyper, inputs)
    arrays = (inputs["logprobs"], inputs["entropy"])
    x = inputs["expected_discriminator"] - entropy_selections.discriminator(*arrays)
    options = {"mu": hyper["mu"], "max_fraction": hyper["max_frac"], "where": where}
    keep = entropy_selections.entropy_clip_v(*arrays, inputs["expected_discriminator"], a, **options)
    return {
        "advantages": a,
        "deviation": x,
        "std_deviation": numerics.std(x, where=where),
        "clipped_mask": keep,
        "fraction_clipped": diagnostics.selected_fraction(~keep, where=where),
    }


def steer(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, arrays = mask(inputs), [inputs[name] for name in TOKENS]
    limits = {"minimum": hyper["token_weight_min"], "maximum": hyper["token_weight_max"], "linear": hyper["linear"]}
    reduce, clip = reduction(hyper, hyper["loss_agg_mode"], where.shape[-1]), bounds(hyper)
    return {
        "loss": entropy_weights.steer(*arrays, inputs["entropy"], **limits, **clip, where=where, reduce=reduce),
        "token_weights": entropy_weights.steer_weights(*arrays, inputs["entropy"], **limits, where=where),
        "abs_entropy_change": jnp.abs(entropy_weights.entropy_change(*arrays, inputs["entropy"], where=where)),
        **clip_metrics(hyper, *arrays, where=where),
    }


def clip_metrics(hyper: Hyper, logprobs: Array, old: Array, advantage: Array, *, where: Array) -> Outputs:
    clip = bounds(hyper)
    ratio, dual = ratios.token(logprobs, old, where=where), clip.pop("dual_clip")
    return {
        "clip_fraction": diagnostics.clip_fraction(ratio, advantage, **clip, where=where),
        "clip_fraction_lower": diagnostics.dual_clip_fraction(ratio, advantage, **clip, dual_clip=dual, where=where),
        "ppo_kl": diagnostics.approximate_kl(logprobs, old, where=where),
    }


def entropy_advantage_shaping(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The file shows unmasked positions too."""
    arrays, where = [inputs[name] for name in TOKENS], mask(inputs)
    options = {"alpha": hyper["alpha"], "kappa": hyper["kappa"]}
    shaped = entropy_advantages.entropy_advantage_shaping(arrays[2], inputs["entropy"], **options)
    return {
        "shaping": shaped - arrays[2],
        "shaped_advantages": shaped,
        "loss": clipped.ppo_clip_loss(*arrays[:2], shaped, **bounds(hyper), where=where),
    }


def empg(hyper: Hyper, inputs: Inputs) -> Outputs:
    ids, h = inputs["step_ids"].astype(int), inputs["entropy"]
    a, real = inputs["advantages"][:, None], ids >= 0
    options = {"k": hyper["k"], "k_f": hyper["k_f"], "epsilon": hyper["epsilon"]}
    found = entropy_advantages.steps(h, ids, real)
    present = np.argwhere(np.asarray(found.count) > 0)
    at = tuple(present.T)
    scale, clarity = entropy_advantages.empg_weights(found.mean, found.count, **options)
    final = entropy_advantages.empg(a, h, ids, zeta=hyper["zeta"], **options)
    final_of_step = entropy_advantages.steps(final, ids, real).mean[at]
    low, high = found.mean[at].min(), found.mean[at].max()
    follows = found.following[at]
    bonus = jnp.where(follows < h.shape[-1], clarity[at[0], jnp.minimum(follows, h.shape[-1] - 1)], 0)
    return {
        "step_index": present,
        "step_entropy": found.mean[at],
        "step_entropy_normalised": (found.mean[at] - low) / (high - low + hyper["epsilon"]),
        "scaling_g": scale[at],
        "clarity_f": clarity[at],
        "modulated_step_advantage": inputs["advantages"][at[0]] * scale[at] + hyper["zeta"] * bonus,
        "final_step_advantage": final_of_step,
        "token_advantages": final,
        "token_advantages_token_mean_variant": entropy_advantages.empg(
            a, h, ids, zeta=hyper["zeta"], centre="token", **options
        ),
    }


def hapo_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The reference shows padding as tokens of reward 0, unless the group falls back to GRPO, which is masked."""
    where, size = mask(inputs), inputs["mask"].shape[-1]
    rows = inputs | {"lengths": where.sum(-1).astype(inputs["rewards"].dtype)}
    options = {"scale": hyper["normalise_by_std"], "epsilon": hyper["epsilon"]}

    def estimate(rewards: Array, lengths: Array, *, where: Array, threshold: float) -> Array:
        more = {"threshold": threshold, "padded_length": size, "where": where}
        return entropy_advantages.hapo_advantage(rewards, lengths, **options, **more)

    def padding(rewards: Array, lengths: Array, *, where: Array) -> Array:
        mean, deviation = entropy_advantages.token_average(rewards, lengths, where)
        value = jnp.broadcast_to(-mean / (deviation + options["epsilon"] if options["scale"] else 1.0), rewards.shape)
        short = (where & (lengths < size)).any(-1, keepdims=True)
        plain = estimate(rewards, lengths, where=where, threshold=INF)[..., 0]
        extreme = jnp.maximum(jnp.abs(jnp.where(lengths > 0, plain, 0)).max(-1, keepdims=True), short * abs(value))
        return jnp.where(extreme >= hyper["fallback_threshold"], 0, value)[..., None]

    def real(rewards: Array, lengths: Array, *, where: Array) -> Array:
        return estimate(rewards, lengths, where=where, threshold=hyper["fallback_threshold"])

    names = ("rewards", "lengths")
    return {"advantages": jnp.where(where, by_group(real, rows, *names), by_group(padding, rows, *names))}


def aepo_agentic(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The file shows unmasked positions too, with the statistics of the real tokens."""
    where, arrays, h = mask(inputs), [inputs[name] for name in TOKENS], inputs["entropy"]
    weight = hyper["advantage_entropy_weight"] if hyper["entropy_advantage"] else 0.0
    everywhere = shaped_everywhere(arrays[2], h, weight, where)
    clip = bounds(hyper)
    if hyper["entropy_clipping"]:
        loss = aepo.aepo_agentic(*arrays, h, weight=weight, **clip, where=where)
        units = aepo.aepo_agentic(*arrays, h, **clip, shaped=everywhere, reduce=None)
    else:
        shaped = entropy_advantages.aepo_advantage(arrays[2], h, weight=weight, where=where)
        loss = clipped.ppo_clip_loss(*arrays[:2], shaped, **clip, where=where)
        units = clipped.ppo_clip_loss(*arrays[:2], everywhere, **clip, reduce=None)
    return {"loss": loss, "shaped_advantages": everywhere, "per_token": units}


def shaped_everywhere(advantage: Array, h: Array, weight: float, where: Array) -> Array:
    """A' with the statistics of the real tokens at the masked ones too; a deviation of 0 counts as 1."""
    spread = numerics.std(h, where=where, ddof=1)
    relative = (h - numerics.mean(h, where=where)) / jnp.where(spread > 0, spread, 1)
    shaped = entropy_advantages.aepo_advantage(advantage, h, weight=weight, where=where)
    return jnp.where(where, shaped, advantage * (1 + weight * relative))


def aepo_arbitrary(hyper: Hyper, inputs: Inputs) -> Outputs:
    names = {"target": "target_entropy", "high": "temperature_high", "low": "temperature_low"}
    options = {ours: hyper[theirs] for ours, theirs in names.items()}
    options |= {"number": hyper["reinforce_sample_num"], "threshold": hyper["advantage_threshold"]}
    chosen = aepo.aepo_arbitrary(np.asarray(inputs["tempered_advantages"]), hyper["measured_entropy"], **options)
    batch = {name: inputs[name] for name in (*TOKENS, "mask")}
    tempered = {name: inputs[f"tempered_{name}"] for name in ("logprobs", "old_logprobs", "mask")}
    joined = {k: jnp.asarray(v) for k, v in aepo.replace_rows(batch, tempered, chosen.rows).items()}
    where, arrays = mask(joined), [joined[name] for name in TOKENS]
    clip = bounds(hyper) | {"dual_clip": hyper["clip_ratio_dual"]}
    ratio, dual = ratios.token(*arrays[:2], where=where), {"dual_clip": clip["dual_clip"]}
    two = {key: clip[key] for key in ("clip_low", "clip_high")}
    return {
        "temperature": chosen.temperature,
        "selected_tempered_rows": chosen.rows,
        "num_reinforce": len(chosen.rows),
        "loss": clipped.ppo_clip_loss(*arrays, **clip, where=where),
        "ppo_kl": diagnostics.approximate_kl(*arrays[:2], where=where),
        "clip_fraction_higher": diagnostics.clip_fraction(ratio, arrays[2], **two, where=where),
        "clip_fraction_lower": diagnostics.dual_clip_fraction(ratio, arrays[2], **two, **dual, where=where),
    }


def statistics_of(inputs: Inputs) -> tuple[Array, Array]:
    """Log-probabilities and entropies of logits."""
    tokens = inputs.get("tokens", jnp.zeros(inputs["logits"].shape[:-1])).astype(int)
    found = ops.token_statistics(inputs["logits"], tokens, statistics=("logp", "entropy"))
    return found.logp, found.entropy


def entropy_bonus_pg(hyper: Hyper, inputs: Inputs) -> Outputs:
    where = mask(inputs)
    logprobs, h = statistics_of(inputs)
    arrays = (logprobs, inputs["old_logprobs"], inputs["advantages"])
    options = {**bounds(hyper), "where": where, "reduce": reduction(hyper, hyper["loss_agg_mode"], where.shape[-1])}
    return {
        "loss": entropy_bonus.entropy_bonus_pg(*arrays, h, coefficient=hyper["entropy_coeff"], **options),
        "policy_loss": entropy_bonus.entropy_bonus_pg(*arrays, h, coefficient=0.0, **options),
        "entropy": options["reduce"](h, where),
    }


def targeted_entropy_regularization(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, (_, h) = mask(inputs), statistics_of(inputs)
    options = {"target": hyper["entropy_target"], "coefficient": hyper["entropy_coeff"]}
    loss = entropy_bonus.targeted_entropy_regularization(h, **options, where=where)
    return {"loss": loss, "mean_entropy": aggregate.token_mean(h, where)}


def adaptive_entropy_coefficient(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Dual ascent has no upper bound."""
    rate = hyper["delta"] if "delta" in hyper else hyper["learning_rate"]
    limits = {name: hyper[name] for name in ("initial", "target", "minimum", "maximum") if name in hyper}
    found = signals.adaptive_entropy_coefficient(inputs["entropy_sequence"], rule=hyper["rule"], rate=rate, **limits)
    return {"applied_coefficient": found.applied, "state_after": found.states}


def hapo_parts(hyper: Hyper, inputs: Inputs, statistics: hapo.LogEntropy, *, signed: bool) -> dict[str, Any]:
    """What both files show: a part that is switched off has strength 0, but its widths are shown."""
    where, arrays, h = mask(inputs), [inputs[name] for name in TOKENS], inputs["entropy"]
    alpha, beta = (hyper[k] * hyper.get(on, True) for k, on in (("clip_alpha", "adaptive_clip"), ("adv_beta", ON)))
    base = {k: v for k, v in bounds(hyper).items() if k != "dual_clip"}
    relative = hapo.relative_entropy(h, statistics, signed=signed, where=where)
    low, high = hapo.adaptive_widths(relative, **base, alpha=hyper["clip_alpha"])
    band = hapo.adaptive_widths(relative, **base, alpha=alpha)
    ratio = ratios.token(*arrays[:2], bound=ratios.OVERFLOW)
    options = {"alpha": alpha, "beta": beta, **bounds(hyper), "signed": signed, "pivot": hyper["entropy_pivot"]}
    shaped = hapo.redistribute(arrays[2], ratio, relative, *band, beta=beta)
    clip = dict(zip(("clip_low", "clip_high"), band, strict=True))
    return {
        "loss": hapo.hapo(*arrays, h, **options, where=where),
        "h_hat": relative,
        "clip_low": numerics.clean(low, where),
        "clip_high": numerics.clean(high, where),
        "shaped_advantages": shaped,
        "clip_fraction": diagnostics.clip_fraction(ratio, shaped, **clip, where=where),
    }


def hapo_policy(hyper: Hyper, inputs: Inputs) -> Outputs:
    """As released: below the pivot h is divided by a negative number."""
    statistics = hapo.log_entropy(inputs["entropy"], pivot=hyper["entropy_pivot"], where=mask(inputs))
    outputs = hapo_parts(hyper, inputs, statistics, signed=False)
    outputs |= {
        "median": statistics.centre,
        "std": statistics.spread,
        "scale_pos": 1 / statistics.highest,
        "scale_neg": 1 / statistics.lowest,
    }
    if "sampling_logits" in inputs:
        _, h = statistics_of({"logits": inputs["sampling_logits"]})
        sampler = {"temperature": hyper["temperature"], "tau": hyper["temperature_tau"], "signed": False}
        floors = {"smallest_entropy": 1e-6, "epsilon": 1e-6}
        outputs["sampling_h_hat"] = jnp.clip(hapo.relative_entropy(h, statistics, signed=False, **floors), -1, 1)
        outputs["sampling_temperature"] = hapo.hapo_temperature(h, statistics, **sampler)
    return outputs


def hapo_policy_signed(hyper: Hyper, inputs: Inputs) -> Outputs:
    statistics = hapo.log_entropy(inputs["entropy"], pivot=hyper["entropy_pivot"], where=mask(inputs))
    return hapo_parts(hyper, inputs, statistics, signed=True)


def epo_policy(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The reference tests the mean of a row over padding too, and weighs the penalty that it reports."""
    where, arrays, h = mask(inputs), [inputs[name] for name in TOKENS], inputs["entropy"]
    history, state = signals.running_mean(), signals.running_mean().init(inputs["entropy_history"].shape[1:])
    for row in inputs["entropy_history"]:
        expected, state = history.update(row, state)
    phase = epo.phase_weight(hyper["epoch"], epochs=hyper["max_epochs"])
    band = {"low": hyper["min_ratio"], "high": hyper["max_ratio"], "penalty": hyper["out_range_penalty"]}
    per = {"token": "token", "seq": "response"}[hyper["mask_mode"]]
    of_row = expected[inputs["rollout_step"].astype(int)][:, None]
    penalties = epo.smoothing_penalty(h, of_row, **band, per=per)
    masked = numerics.clean(penalties, where)
    inside = epo.smoothing_penalty(h, of_row, **(band | {"penalty": 1.0}), per=per) == 0
    options = {"coefficient": hyper["entropy_coeff"], "beta": hyper["entropy_smooth_coeff"], **bounds(hyper)}
    return {
        "loss": epo.epo(*arrays, h, of_row, **options, phase=phase, penalties=penalties, where=where),
        "history_mean": expected,
        "phase_weight": phase,
        "penalty": phase * penalties,
        "entropy_loss": aggregate.token_mean(h, where),
        "smooth_loss": aggregate.token_mean(phase * masked, where),
        "fraction_within": inside.astype(h.dtype).mean(),
    }


def guarded_entropy(logits: Array, top_p: float) -> Array:
    """The released guards of 1e-12 decide which of several nuclei of one token has the higher entropy, 0 in each."""
    keep = ops.nucleus(logits, top_p=top_p, rule="strict")
    p = numerics.clean(numerics.softmax(logits), keep)
    q = p / (p.sum(-1, keepdims=True) + 1e-12)
    return -(q * jnp.log(q + 1e-12)).sum(-1)


def siren_policy(hyper: Hyper, inputs: Inputs) -> Outputs:
    """As released, rows without tokens count in the mean over rows; padded entropies are shown as 0."""
    where, (logprobs, _) = mask(inputs), statistics_of(inputs)
    h = numerics.clean(guarded_entropy(inputs["logits"], hyper["top_p"]), where)
    arrays = (logprobs, inputs["old_logprobs"], inputs["advantages"])
    policy = {
        "token-mean": aggregate.token_mean,
        "seq-mean-token-mean": aggregate.sequence_mean_with_empty,
        "seq-mean-token-sum": aggregate.sequence_sum_with_empty,
        "seq-mean-token-sum-norm": aggregate.constant(h.shape[-1], empty=True),
    }[hyper["loss_agg_mode"]]
    rho = {"rho": hyper["mask_ratio"], "count_empty": True, "policy_aggregate": policy}
    found = siren.peak_entropy(h, **rho, where=where)
    clip, anchor = bounds(hyper), hyper["entropy_anchor"]
    options = {"anchor": anchor, "coefficient": hyper["entropy_coeff"]}
    return {
        "loss": siren.siren(*arrays, h, **options, **rho, **clip, where=where),
        "policy_loss": clipped.ppo_clip_loss(*arrays, **clip, where=where, reduce=policy),
        "entropy_regulariser": jnp.square(found.value - anchor),
        "aggregated_entropy": found.value,
        "top_p_entropy": h,
        "peak_mask": entropy_selections.peaks(h, rho=hyper["mask_ratio"], where=where),
    }


ADAPTERS: dict[str, Callable[..., Any]] = {
    "hapo_policy": hapo_policy,
    "hapo_policy_signed": hapo_policy_signed,
    "epo": epo_policy,
    "siren": siren_policy,
    "aepo_agentic": aepo_agentic,
    "aepo_arbitrary": aepo_arbitrary,
    "entropy_bonus_pg": entropy_bonus_pg,
    "targeted_entropy_regularization": targeted_entropy_regularization,
    "adaptive_entropy_coefficient": adaptive_entropy_coefficient,
    "forking_token_mask": forking_token_mask,
    "entropy_clip_b": entropy_clip_b,
    "entropy_clip_v": entropy_clip_v,
    "steer": steer,
    "entropy_advantage_shaping": entropy_advantage_shaping,
    "empg": empg,
    "hapo_advantage": hapo_advantage,
}
GRADIENT_OF = {"forking_token_mask": "loss_denominator_all"}

TOLERANCES: dict[str, tuple[float, float, str]] = {}
for _method in ("steer", "aepo_agentic", "aepo_arbitrary", "hapo_policy", "hapo_policy_signed", "epo", "siren"):
    TOLERANCES |= {f"{_method}/loss": CANCELLING, f"{_method}/gradient of logprobs": PROPORTIONAL}
TOLERANCES |= {
    "hapo_policy/clip_fraction": PROPORTIONAL,
    "epo/entropy_loss": PROPORTIONAL,
    "epo/smooth_loss": PROPORTIONAL,
    "epo/gradient of entropy": PROPORTIONAL,
    "siren/policy_loss": CANCELLING,
    "siren/gradient of logits": (1e-6, 1e-9, MEAN + "; terms cancel"),
}
_SEQUENCES = "a sequence mean divides by its length + 1e-8"
TOLERANCES |= {
    "entropy_bonus_pg": (1e-6, 1e-8, _SEQUENCES),
    "entropy_bonus_pg/gradient of logits": (1e-6, 1e-9, _SEQUENCES + "; terms cancel"),
}
for _method in ("steer", "aepo_arbitrary"):
    _metrics = ("clip_fraction", "clip_fraction_lower", "clip_fraction_higher")
    TOLERANCES |= {f"{_method}/{_name}": PROPORTIONAL for _name in _metrics}
    TOLERANCES[f"{_method}/ppo_kl"] = CANCELLING
