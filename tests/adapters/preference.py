"""Adapters of preference and reward-model losses: pairs are stacked on the last axis, masks become boolean."""

import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlx import signals
from rlx.aggregate import mean, total, units
from rlx.preference import distillation, listwise, pairwise, pointwise, power, reference_free, scores, token_level
from rlx.reward import bradley_terry, general_preference
from rlx.types import Array

Hyper = dict[str, Any]
Inputs = dict[str, Any]
Outputs = dict[str, Array]


def stack(inputs: Inputs, name: str, axis: int = -1) -> Array:
    """``policy_{}_logps`` -> the chosen and the rejected array, stacked, chosen first."""
    return jnp.stack([inputs[name.format("chosen")], inputs[name.format("rejected")]], axis)


def losses(loss: Callable[..., Array]) -> Outputs:
    """The reduced loss and its units, evaluated once, as a trainer does."""
    per_example, where = loss(reduce=units)
    return {"loss": mean(per_example, where), "per_example": per_example}


def rewards(score: Array) -> Outputs:
    """What libraries log: the score of each response."""
    return {"chosen_rewards": score[..., 0], "rejected_rewards": score[..., 1]}


def referenced(method: Callable[..., Array], **names: str) -> Callable[[Hyper, Inputs], Outputs]:
    """Adapter of a pairwise loss with a reference; ``names``: keyword here -> hyperparameter there."""

    def adapter(hyper: Hyper, inputs: Inputs) -> Outputs:
        policy, reference = stack(inputs, "policy_{}_logps"), stack(inputs, "reference_{}_logps")
        keywords = {ours: hyper[theirs] for ours, theirs in names.items()}
        reported = rewards(hyper["beta"] * scores.log_ratio(policy, reference))
        return losses(lambda reduce: method(policy, reference, **keywords, reduce=reduce)) | reported

    return adapter


def dpo_reference_free(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, reference = stack(inputs, "policy_{}_logps"), stack(inputs, "reference_{}_logps")
    keywords = {"beta": hyper["beta"], "epsilon": hyper.get("label_smoothing", 0.0)}
    reported = rewards(hyper["beta"] * scores.log_ratio(policy, reference))
    return losses(lambda reduce: reference_free.dpo_reference_free(policy, **keywords, reduce=reduce)) | reported


def ipo(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, reference = stack(inputs, "policy_{}_logps"), stack(inputs, "reference_{}_logps")
    keywords = {"tau": hyper["beta"], "length_normalize": hyper["length_normalize"]}
    lengths = stack(inputs, "{}_lengths")
    reported = rewards(hyper["beta"] * scores.log_ratio(policy, reference))
    return losses(lambda reduce: pairwise.ipo(policy, reference, lengths, **keywords, reduce=reduce)) | reported


def simpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, lengths = stack(inputs, "policy_{}_logps"), stack(inputs, "{}_lengths")
    keywords = {"beta": hyper["beta"], "gamma": hyper["gamma"], "epsilon": hyper.get("label_smoothing", 0.0)}
    reported = rewards(hyper["beta"] * scores.per_token(policy, lengths))
    return losses(lambda reduce: reference_free.simpo(policy, lengths, **keywords, reduce=reduce)) | reported


def adpo_pairwise(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, reference = stack(inputs, "policy_{}_logps"), stack(inputs, "reference_{}_logps")
    q = inputs["preference_probs"]
    result = losses(lambda reduce: listwise.adpo_pairwise(policy, reference, q, tau=hyper["tau"], reduce=reduce))
    return result | {"kl": result["per_example"] - jax.scipy.special.entr(jnp.stack([q, 1 - q])).sum(0)}


def adpo_listwise(hyper: Hyper, inputs: Inputs) -> Outputs:
    where = inputs["mask"].astype(bool)
    arrays = inputs["policy_logps"], inputs["reference_logps"], inputs["scores"]
    keywords = {"tau": hyper["tau"], "beta_r": hyper["beta_reward"], "where": where}
    result = losses(lambda reduce: listwise.adpo_listwise(*arrays, **keywords, reduce=reduce))
    target = listwise.adpo_target(inputs["scores"], beta_r=hyper["beta_reward"], where=where)
    return result | {"target": target, "kl": result["per_example"] - jax.scipy.special.entr(target).sum(-1)}


def kto(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Unpaired: K = 1. Both loss types of the library are names of their own here."""
    unpaired = {name: value[..., None] for name, value in inputs.items()}
    arrays = [unpaired[name] for name in ("policy_logps", "reference_logps", "labels")]
    mismatched = [unpaired[name] for name in ("policy_kl_logps", "reference_kl_logps")]
    keywords = {"lambda_desirable": hyper["desirable_weight"], "lambda_undesirable": hyper["undesirable_weight"]}
    if hyper["loss_type"] == "apo_zero_unpaired":
        loss, z0 = lambda **more: pointwise.apo_zero_unpaired(*arrays, beta=hyper["beta"], **keywords, **more), 0.0
    else:
        loss = lambda **more: pointwise.kto(*arrays, *mismatched, beta=hyper["beta"], **keywords, **more)  # noqa: E731
        z0 = pointwise.kto_reference_point(*mismatched)
    result = losses(loss)
    return result | {"per_example": result["per_example"][..., 0], "kl": jnp.asarray(z0)}


def listmle(hyper: Hyper, inputs: Inputs) -> Outputs:
    reduce = {"mean": mean, "sum": total}[hyper["reduction"]]
    where = inputs["mask"].astype(bool)
    return {"loss": listwise.listmle(inputs["scores"], inputs["labels"], where=where, reduce=reduce)}


def bradley_terry_rm(hyper: Hyper, inputs: Inputs) -> Outputs:
    reward, tau, margin = stack(inputs, "{}_rewards"), hyper["tau"], inputs.get("margin", 0.0)
    keywords = {"tau": tau, "margin": margin, "epsilon": hyper.get("label_smoothing", 0.0)}
    result = losses(lambda reduce: bradley_terry.bradley_terry_rm(reward, **keywords, reduce=reduce))
    difference = scores.margin(reward)
    probabilities = jax.nn.sigmoid((difference - margin) / tau)
    return result | {"accuracy": (difference > 0).astype(reward.dtype).mean(), "probabilities": probabilities}


def power_pair(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, lengths = stack(inputs, "policy_{}_logps"), stack(inputs, "{}_lengths")
    beta, eta = hyper["beta"], hyper["eta"]
    result = losses(lambda reduce: power.power(policy, lengths, beta=beta, eta=eta, reduce=reduce))
    fine_tuning = eta * beta * scores.per_token(policy, lengths)[..., 0]
    return result | {"preference_logit": power.power_logit(policy, lengths, beta=beta), "weighted_sft": fine_tuning}


def power_dl(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The labels are a table with one row per example of the batch; they are updated after use."""
    policy, lengths, table = stack(inputs, "policy_{}_logps"), stack(inputs, "{}_lengths"), inputs["labels"]
    keywords = {"beta": hyper["beta"], "eta": hyper["eta"]}
    result = losses(lambda reduce: power.power_dl(policy, lengths, table, **keywords, reduce=reduce))
    probability = jax.nn.sigmoid(power.power_logit(policy, lengths, beta=hyper["beta"]))
    signal = signals.dynamic_labels(len(table), hyper["gamma"])
    _, updated = signal.update(probability, table, jnp.arange(len(table)))
    return result | {"updated_labels": updated}


def tdpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The reference counts a pair without any token as one with margin 0, which rlx leaves out of the mean."""
    arrays = [stack(inputs, name, 1) for name in ("policy_{}_logits", "reference_{}_logits", "{}_tokens")]
    where = stack(inputs, "{}_mask", 1).astype(bool)
    version, beta = {1: token_level.tdpo1, 2: token_level.tdpo}[hyper["version"]], hyper["beta"]
    keywords = {"alpha": hyper["alpha"]} if hyper["version"] == 2 else {}
    margins = version(*arrays, beta=beta, **keywords, where=where, reduce=None)
    per_example = jnp.where(where.any((1, 2)), margins, jnp.log(2.0))
    d, kl = token_level.sequence_scores(*arrays, where=where)
    reported = {"chosen_logps_margin": d[:, 0], "rejected_logps_margin": d[:, 1]}
    reported |= {"chosen_seq_kl": kl[:, 0], "rejected_seq_kl": kl[:, 1]}
    return {"loss": mean(per_example), "per_example": per_example} | reported | rewards(beta * (d + kl))


def gpm(hyper: Hyper, inputs: Inputs) -> Outputs:
    embeddings, tau = stack(inputs, "{}_embeddings", -2), hyper["tau"]
    margin = inputs.get("margin", 0.0)
    score = general_preference.preference_score(embeddings)
    probability = jax.nn.sigmoid((score - margin) / tau).mean()
    loss = general_preference.gpm(embeddings, tau=tau, margin=margin)
    return {"loss": loss, "mean_probability": probability, "score": score}


def pld(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = inputs["logits"], inputs["teacher_logits"], inputs["labels"]
    weighting, temperature = getattr(distillation, hyper["weighting"]), hyper["temperature"]
    keywords = {"weighting": weighting, "temperature": temperature}
    order = distillation.ranking(arrays[1], arrays[2])
    weights = weighting(jnp.take_along_axis(arrays[1], order, -1), temperature)
    result = losses(lambda reduce: distillation.pld(*arrays, **keywords, reduce=reduce))
    return result | {"ranking": order, "weights": weights}


def pld_token_level(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = inputs["logits"], inputs["teacher_logits"], inputs["labels"]
    keywords = {"temperature": hyper["temperature"], "where": inputs["mask"].astype(bool)}
    result = losses(lambda reduce: distillation.pld_token_level(*arrays, **keywords, reduce=reduce))
    return {"loss": result["loss"], "per_token": result["per_example"]}


def compiled(adapter: Callable[[Hyper, Inputs], Outputs]) -> Callable[[Hyper, Inputs], Outputs]:
    """The adapter as one program for each set of hyperparameters and shapes, rather than one for each operation."""

    @functools.cache
    def program(hyper: str) -> Callable[[Inputs], Outputs]:
        return jax.jit(functools.partial(adapter, json.loads(hyper)))

    def run(hyper: Hyper, inputs: Inputs) -> Outputs:
        return program(json.dumps(hyper, sort_keys=True))(inputs)

    run.traceable = adapter  # so that value and gradient can be one program
    return run


EAGER = {
    "dpo": referenced(pairwise.dpo, beta="beta"),
    "cdpo": referenced(pairwise.cdpo, beta="beta", epsilon="label_smoothing"),
    "rdpo": referenced(pairwise.rdpo, beta="beta", epsilon="label_smoothing"),
    "dpo_reference_free": dpo_reference_free,
    "ipo": ipo,
    "simpo": simpo,
    "adpo_pairwise": adpo_pairwise,
    "adpo_listwise": adpo_listwise,
    "kto": kto,
    "listmle": listmle,
    "bradley_terry_rm": bradley_terry_rm,
    "power": power_pair,
    "power_dl": power_dl,
    "tdpo": tdpo,
    "gpm": gpm,
    "pld": pld,
    "pld_token_level": pld_token_level,
}

ADAPTERS = {name: compiled(adapter) for name, adapter in EAGER.items()}

_RANKING = (1e-9, 1e-13, "terms of size 1 that cancel, each off by |logit| (up to 650) times the rounding of float64")

TOLERANCES = {
    "tdpo": (1e-9, 1e-13, "identical policies: margins and KLs are sums of rounding errors around 0"),
    "pld/gradient of logits": _RANKING,
    "pld_token_level/gradient of logits": _RANKING,
    "listmle/gradient of scores": _RANKING,
}
