"""Adapters of pairwise and unpaired losses: pairs are stacked on the last axis, variants are names or parts."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from rlx.aggregate import mean
from rlx.preference import (
    absolute,
    credit,
    dispreference,
    divergence,
    extended,
    fine_tuned,
    links,
    pairwise,
    pointwise,
    reference_free,
    scores,
    transport,
    uncertainty,
)
from rlx.types import Array
from tests.adapters.preference import Hyper, Inputs, Outputs, compiled, losses, referenced, rewards, stack

POLICY, REFERENCE = "policy_{}_logps", "reference_{}_logps"


def both(inputs: Inputs, prefix: str = "") -> tuple[Array, Array]:
    """Policy and reference log-probabilities of the pairs, ``[B, 2]`` each."""
    return stack(inputs, prefix + POLICY), stack(inputs, prefix + REFERENCE)


def dpo_length_normalized(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, reference = both(inputs)
    arrays, beta = (policy, reference, stack(inputs, "{}_lengths")), hyper["beta"]
    result = losses(lambda reduce: pairwise.dpo_length_normalized(*arrays, beta=beta, reduce=reduce))
    return result | rewards(beta * scores.log_ratio(policy, reference))


def fdpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    keywords = {"divergence": hyper["divergence"], "epsilon": hyper.get("label_smoothing", 0.0)}
    keywords |= {"alpha": hyper["alpha"]} if "alpha" in hyper else {}
    return referenced(functools.partial(divergence.fdpo, **keywords), beta="beta")(hyper, inputs)


def discopop(hyper: Hyper, inputs: Inputs) -> Outputs:
    method = functools.partial(pairwise.discopop, tau=hyper.get("discopop_tau", 0.05))
    return referenced(method, beta="beta")(hyper, inputs)


def bco_pair(hyper: Hyper, inputs: Inputs) -> Outputs:
    """``running`` hands over the running mean, which the method keeps in its state; a first step has none yet."""
    running = hyper.get("running_mean", inputs.get("running_mean"))
    thresholds: dict[str, Any] = {"none": 0.0, "batch_mean": None, "running": running}
    method = functools.partial(absolute.bco_pair, delta=thresholds[hyper.get("reward_shift", "none")])
    return referenced(method, beta="beta")(hyper, inputs)


def aot(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The units of the reference are ranks, in ascending order."""
    arrays, paired = both(inputs), hyper["variant"] == "paired"
    keywords = {"beta": hyper["beta"], "epsilon": hyper.get("label_smoothing", 0.0), "paired": paired}
    units = transport.aot(*arrays, **keywords, reduce=None)
    order = jnp.argsort(transport.sides(*arrays, paired=paired)[..., 0])
    return {"loss": mean(units), "per_rank": units[order]}


def alphapo_reward_shape(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = stack(inputs, POLICY), stack(inputs, "{}_lengths")
    keywords = {name: hyper[name] for name in ("alpha", "beta", "gamma")}
    return losses(lambda reduce: reference_free.alphapo_reward_shape(*arrays, **keywords, reduce=reduce))


def orpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The fine-tuning term is an input here, as the library counts the prompt's tokens too."""
    policy, lengths = stack(inputs, POLICY), stack(inputs, "{}_lengths")
    result = losses(lambda reduce: fine_tuned.orpo(policy, lengths, beta=hyper["beta"], alpha=0.0, reduce=reduce))
    odds = scores.margin(scores.log_odds(scores.per_token(policy, lengths)))
    reported = {"per_example_odds_term": result["per_example"], "log_odds_mean": odds.mean()}
    return {"loss": inputs["nll_loss"] + result["loss"]} | reported


def cpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Of no preference, what is left is the fine-tuning term, with all its digits."""
    policy, lengths = stack(inputs, POLICY), stack(inputs, "{}_lengths")
    link = {"sigmoid": links.logistic, "hinge": links.hinge}[hyper.get("loss_type", "sigmoid")]
    run = functools.partial(fine_tuned.cpo, policy, lengths, beta=hyper["beta"])
    preference = run(link=link, alpha=0.0, reduce=None)
    likelihood = run(link=lambda margin: jnp.zeros_like(margin), alpha=1.0)
    parts = {"preference_loss": mean(preference), "nll_loss": likelihood}
    loss = run(link=link, alpha=hyper["cpo_alpha"])
    return {"loss": loss, "per_example": preference} | parts | rewards(hyper["beta"] * policy)


def rso_losses(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, reference = both(inputs)
    link = links.logistic if hyper["loss"] == "sigmoid_norm" else links.hinge
    keywords = {"beta": hyper["gamma"], "link": link}
    if hyper["loss"] == "hinge":
        return losses(lambda reduce: reference_free.dpo_reference_free(policy, **keywords, reduce=reduce))
    return losses(lambda reduce: pairwise.dpo(policy, reference, **keywords, reduce=reduce))


def d2o(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The negative joins the self-samples as the last candidate."""
    names = ("policy_self_logps", "policy_rejected_logps"), ("reference_neg_self_logps", "reference_pos_rejected_logps")
    arrays = [jnp.concatenate([inputs[own], inputs[negative][..., None]], -1) for own, negative in names]
    keywords = {"alpha": hyper["alpha"], "beta": hyper["beta"]}
    result = losses(lambda reduce: dispreference.d2o(*arrays, **keywords, reduce=reduce))
    return result | {"preference_logit": dispreference.dispreference_logit(*arrays, **keywords)}


def hypo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """All pairs share the online samples, whose number is another one."""
    online = [inputs[name][None] for name in ("online_policy_logps", "online_reference_logps")]
    run = functools.partial(extended.hypo, *both(inputs), *online, beta=hyper["beta"])
    kl = scores.log_ratio(*online).mean()
    return {"loss": run(kl_coef=hyper["kl_coef"]), "dpo_loss": run(kl_coef=0.0), "kl_estimate": kl}


def poft(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = [inputs[name][:, None] for name in ("policy_logps", "lengths", "aligned_mean_logps")]
    result = losses(lambda reduce: pointwise.poft(*arrays, beta=hyper["beta"], gamma=hyper["gamma"], reduce=reduce))
    return result | {"per_example": result["per_example"][:, 0]}


def rationale_dpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, reference = both(inputs)
    arrays, beta = (policy, reference, inputs["policy_rationale_logps"]), hyper["beta"]
    result = losses(lambda reduce: extended.rationale_dpo(*arrays, beta=beta, gamma=hyper["gamma"], reduce=reduce))
    return result | rewards(beta * scores.log_ratio(policy, reference))


def upo(hyper: Hyper, inputs: Inputs) -> Outputs:
    probs, mu = inputs["mc_probs"], hyper.get("mu", 1.0)
    alpha = uncertainty.smoothing(probs, mu=mu) if hyper["alpha_mode"] == "literal" else inputs["alpha"]
    given = None if hyper["alpha_mode"] == "literal" else alpha
    keywords = {"beta": hyper["beta"], "mu": mu, "alpha": given}
    result = losses(lambda reduce: uncertainty.upo(*both(inputs), probs, **keywords, reduce=reduce))
    gain, sampling = uncertainty.information_gain(probs), uncertainty.sampling_probs(probs, mu=mu)
    return result | {"information_gain": gain, "sampling_probs": sampling, "alpha": alpha}


def bidedpo_loss_balancing(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Each set of pairs has names of its own there; here they are rows of one batch."""
    sets, beta = [both(inputs, f"{name}_") for name in ("text", "condition")], hyper["beta"]
    policy, reference = (jnp.concatenate(parts) for parts in zip(*sets, strict=True))
    ids = jnp.repeat(jnp.arange(2), jnp.array([len(part[0]) for part in sets]), total_repeat_length=len(policy))
    group_losses = jnp.stack([pairwise.dpo(*part, beta=beta) for part in sets])
    scales = extended.set_scales(policy, reference, ids, beta=beta)
    sizes = jnp.array([len(part[0]) for part in sets]) / len(policy)
    loss = extended.bidedpo_loss_balancing(policy, reference, ids, beta=beta)
    return {"loss": loss, "group_losses": group_losses, "weights": scales * sizes}


def differential_information(hyper: Hyper, inputs: Inputs) -> Outputs:
    found = divergence.differential_information(inputs["policy_logps"], inputs["reference_logps"], beta=hyper["beta"])
    return {"loss": found.entropy.mean(), **found._asdict()}


def dpo_token_credit(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays, where = (inputs["logprobs"], inputs["reference_logprobs"]), inputs["mask"].astype(bool)
    found = credit.dpo_token_credit(*arrays, beta=hyper["beta"], where=where)
    return {"loss": found.sequence_reward.mean(), **found._asdict()}


EAGER: dict[str, Callable[[Hyper, Inputs], Outputs]] = {
    "dpo_hinge": referenced(functools.partial(pairwise.dpo, link=links.hinge), beta="beta"),
    "dpo_length_normalized": dpo_length_normalized,
    "discopop": discopop,
    "fdpo": fdpo,
    "exo_pair": referenced(divergence.exo_pair, beta="beta", epsilon="label_smoothing"),
    "nca_pair": referenced(absolute.nca_pair, beta="beta"),
    "bco_pair": bco_pair,
    "sppo_hard": referenced(absolute.sppo_hard, beta="beta"),
    "apo_zero": referenced(functools.partial(absolute.bco_pair, link=links.sigmoid, delta=0.0), beta="beta"),
    "apo_down": referenced(absolute.apo_down, beta="beta"),
    "aot": aot,
    "alphapo_reward_shape": alphapo_reward_shape,
    "orpo": orpo,
    "cpo": cpo,
    "rso_losses": rso_losses,
    "d2o": d2o,
    "hypo": hypo,
    "poft": poft,
    "rationale_dpo": rationale_dpo,
    "upo": upo,
    "bidedpo_loss_balancing": bidedpo_loss_balancing,
    "differential_information": differential_information,
    "dpo_token_credit": dpo_token_credit,
}
ADAPTERS = {name: compiled(adapter) for name, adapter in EAGER.items()}
