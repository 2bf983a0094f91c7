"""Adapters of listwise losses, distillation and ranking metrics: groups become an axis, masks boolean."""

import math

import jax.numpy as jnp

from rlx import numerics
from rlx.aggregate import mean, total, units
from rlx.evaluation import ranking as metrics
from rlx.policy.advantages import group_normalize
from rlx.preference import (
    adaptive,
    anchored,
    distillation,
    lambda_rank,
    listwise,
    ranked,
    ranking,
    ranking_reward,
    scores,
    zeroth_order,
)
from rlx.types import Array
from tests.adapters.preference import Hyper, Inputs, Outputs, compiled, losses

REDUCTIONS = {"mean": mean, "sum": total}


def masked(inputs: Inputs, like: str) -> Array:
    """The mask as booleans, everything where there is none."""
    return inputs["mask"].astype(bool) if "mask" in inputs else jnp.ones(inputs[like].shape, bool)


def groups(array: Array, size: int) -> Array:
    """Contiguous rows as groups of ``size``; rows that do not fill one are left out."""
    whole = len(array) // size
    return array[: whole * size].reshape(whole, size, *array.shape[1:])


def grouped(hyper: Hyper, inputs: Inputs) -> tuple[tuple[Array, Array, Array], Array]:
    """Log-probabilities, old ones and advantages by group, and ``where``.

    The official code counts a response without tokens as a member with log-ratio 0, which one with a token of the
    same probability under both policies is.
    """
    size = hyper["num_generations"]
    where = groups(masked(inputs, "logprobs"), size)
    new, old = (numerics.clean(groups(inputs[name], size), where) for name in ("logprobs", "old_logprobs"))
    empty = ~where.any(-1, keepdims=True) & (jnp.arange(where.shape[-1]) == 0)
    return (new, old, groups(inputs["advantages"], size)[..., None]), where | empty


def adpo_listwise_tokens(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays, where = grouped(hyper, inputs)
    adapts = hyper["use_adaptive_tau"]
    temperatures = {"tau": hyper["tau"], "alpha": hyper["adaptive_tau_alpha"] if adapts else 0.0}
    temperatures["tau_min"] = hyper["adaptive_tau_min"] if adapts else 0.0
    keywords = temperatures | {"beta_r": hyper["beta_reward"], "where": where}
    plain = anchored.adpo_listwise_tokens(*arrays, **keywords)
    loss = anchored.adpo_listwise_tokens(*arrays, **keywords, beta_kl=hyper.get("beta_anchor_kl", 0.0))
    d, advantages, real = anchored.anchored(*arrays, where=where)
    target = anchored.standardized_target(advantages, beta_r=hyper["beta_reward"], where=real)
    tau = anchored.entropy_temperature(target, **temperatures, where=real)
    return {"loss": loss, "listwise_loss": plain, "anchor_abs_logratio": jnp.abs(d).mean(), "mean_tau": tau.mean()}


def adpo_variants(hyper: Hyper, inputs: Inputs) -> Outputs:
    """A variant is a name here; what one does not read, it does not get. No clip where the bound is 0."""
    arrays, where = grouped(hyper, inputs)
    bounds = {name: hyper[name] if hyper[name] > 0 else jnp.inf for name in ("clip_log_ratio", "clip_anchored_score")}
    keywords = {"tau": hyper["tau"], "length_normalize": hyper["use_length_normalization"], "where": where}
    keywords |= {"clip_log_ratio": bounds["clip_log_ratio"], "clip_score": bounds["clip_anchored_score"]}
    smoothing = {"top_k": hyper.get("pl_top_k", 3) or None, "epsilon": hyper.get("pl_label_smoothing", 0.1)}
    smoothing["poly"] = hyper.get("poly_epsilon", 1.0) if hyper.get("use_poly_loss", True) else 0.0
    scale = hyper.get("grad_scale_factor", 20.0) if hyper["loss_variant"] == "scaled" else 1.0
    softmax = anchored.adpo_softmax, {"beta_r": hyper["beta_reward"], "scale": scale}
    variants = {
        "softmax": softmax,
        "direct": softmax,
        "scaled": softmax,
        "plackett_luce": (anchored.adpo_plackett_luce, smoothing | {"temperature": hyper.get("pl_temperature", 1.0)}),
        "infonce": (anchored.adpo_plackett_luce, {"top_k": 1, "epsilon": 0.0, "poly": 0.0}),
        "pairwise": (anchored.adpo_all_pairs, {}),
    }
    function, more = variants[hyper["loss_variant"]]
    return {"loss": function(*arrays, **keywords, **more)}


def adpo_kde_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Rewards of tokens; rows that fill no group have advantage 0 and no target."""
    rewards = numerics.sum(inputs["token_rewards"], -1, where=masked(inputs, "token_rewards"))
    whole = groups(rewards, hyper["num_generations"])
    if hyper["mode"] == "kde":
        found = adaptive.adpo_kde_advantage(whole, bandwidth=hyper["bandwidth_factor"])[..., 0]
    else:
        found = group_normalize(whole, scale=hyper["mode"] == "zscore", epsilon=anchored.EPSILON)
    advantages = jnp.zeros_like(rewards).at[: found.size].set(found.ravel())
    target = listwise.adpo_target(found, beta_r=hyper["beta_reward"]).ravel()
    return {"loss": advantages.mean(), "advantages": advantages, "target": target}


def adpo_adaptive_tau(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Prompts of one response of one token."""
    tau = adaptive.adpo_adaptive_tau(inputs["mean_entropy"][:, None, None], inputs["mean_rewards"][:, None], **hyper)
    return {"loss": tau.mean(), "tau": tau}


def hinton_kd(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = inputs["logits"], inputs["teacher_logits"], inputs["labels"]
    options = {"temperature": hyper["temperature"]}
    parts = [distillation.hinton_kd(*arrays, alpha=alpha, **options) for alpha in (hyper["alpha"], 1.0, 0.0)]
    return dict(zip(("loss", "cross_entropy", "kl_term"), parts, strict=True))


def dist(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = inputs["logits"], inputs["teacher_logits"], inputs["labels"]
    correlations = {"beta": hyper["beta"], "gamma": hyper["gamma"], "temperature": hyper["temperature"]}
    none = {"beta": 0.0, "gamma": 0.0}
    return {
        "loss": distillation.dist(*arrays, alpha=hyper["alpha"], **correlations),
        "cross_entropy": distillation.dist(*arrays, alpha=1.0, **none),
        "dist_term": distillation.dist(*arrays, alpha=0.0, **correlations),
    }


def listnet(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, reduce = masked(inputs, "scores"), REDUCTIONS[hyper["reduction"]]
    per_example, real = listwise.listnet(inputs["scores"], inputs["labels"], where=where, reduce=units)
    return {"loss": reduce(per_example, real), "per_example": per_example}


def ranknet(hyper: Hyper, inputs: Inputs) -> Outputs:
    keywords = {"where": masked(inputs, "scores"), "reduce": REDUCTIONS[hyper["reduction"]]}
    return {"loss": lambda_rank.ranknet(inputs["scores"], inputs["labels"], **keywords)}


def lambdaloss(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The library leaves 0 where a pair touches a masked item, label differences of two masked ones aside."""
    arrays, where = (inputs["scores"], inputs["labels"]), masked(inputs, "scores")
    keywords = {"weighting": hyper["lambdaweight"] or "none", "normalize": hyper["normalize"], "topn": hyper["topn"]}
    loss = lambda_rank.lambdaloss(*arrays, **keywords, where=where, reduce=REDUCTIONS[hyper["reduction"]])
    if hyper["lambdaweight"] == "labeldiff":
        weights, pairs = lambda_rank.lambda_weights(*arrays, **keywords), where[:, :, None] == where[:, None, :]
    else:
        weights = lambda_rank.lambda_weights(*arrays, **keywords, where=where)
        pairs = where[:, :, None] & where[:, None, :]
    return {"loss": loss, "lambda_weights": ranking.flat(jnp.where(pairs, weights, 0))}


SCHEMES = {
    None: "none",
    "lambdaRank_scheme": "lambdarank",
    "ndcgLoss1_scheme": "ndcg1",
    "ndcgLoss2_scheme": "ndcg2",
    "ndcgLoss2PP_scheme": "ndcg2pp",
}


def lambdaloss_allrank(hyper: Hyper, inputs: Inputs) -> Outputs:
    """A label of -1 marks a padded item."""
    keywords = {"weighting": SCHEMES[hyper["weighing_scheme"]], "sigma": hyper["sigma"], "mu": hyper["mu"]}
    keywords |= {"topn": hyper["k"], "base": {"binary": 2.0, "natural": math.e}[hyper["reduction_log"]]}
    keywords |= {"where": inputs["labels"] != -1, "reduce": REDUCTIONS[hyper["reduction"]]}
    return {"loss": lambda_rank.lambdaloss_allrank(inputs["scores"], inputs["labels"], **keywords)}


def ranking_metrics(hyper: Hyper, inputs: Inputs) -> Outputs:
    keywords = {"relevant_from": 2.0, "topn": hyper["topn"], "where": masked(inputs, "scores")}
    return metrics.ranking_metrics(inputs["scores"], inputs["labels"], **keywords)._asdict()


def lipo_lambda(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, reference, labels = inputs["policy_logps"], inputs["reference_logps"], inputs["relevance"]
    where = masked(inputs, "relevance")
    reward = hyper["beta"] * scores.log_ratio(policy, reference)
    weights = lambda_rank.lambda_weights(reward, labels, weighting="lambdarank", where=where) / math.log(2)
    keywords = {"beta": hyper["beta"], "where": where}
    result = losses(lambda reduce: lambda_rank.lipo_lambda(policy, reference, labels, **keywords, reduce=reduce))
    shown = jnp.where(ranking.better(labels, where), weights, 0)
    return result | {"rank_of_item": ranking.rank(reward, where), "lambda_weights": shown}


def dpo_pl(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays, where = (inputs["policy_logps"], inputs["reference_logps"]), masked(inputs, "policy_logps")
    keywords = {"beta": hyper["beta"], "top_k": hyper["top_k"], "where": where}
    rewards = numerics.clean(hyper["beta"] * scores.log_ratio(*arrays), where)
    return losses(lambda reduce: ranked.dpo_pl(*arrays, **keywords, reduce=reduce)) | {"rewards": rewards}


def pro(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Mean and summed log-probabilities are inputs of their own: the first are summed ones of length 1."""
    weight, rewards = hyper["sft_weight"], inputs["rewards"]
    one = jnp.ones_like(rewards)
    stages, _ = ranked.pro_stages(inputs["scores"], rewards)
    contrasts = ranked.pro(inputs["scores"], one, rewards, sft_weight=0.0)
    fine_tuning = weight * (rewards.shape[-1] - 1) ** 2 * -inputs["sum_scores"][:, 0].mean()
    return {"loss": contrasts + fine_tuning, "step_losses": stages[:, :-1].mean(0), "sft_term": fine_tuning}


def irpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The official code lowers the diagonal by 100 instead of leaving it out."""
    arrays = [inputs[name] for name in ("policy_logps", "reference_logps", "relevance", "ranks")]
    weighting = {0: "dcg", 1: "rank", 2: "inverse_rank"}[hyper["ablation"]]
    keywords = {"beta": hyper["beta"], "weighting": weighting, "diagonal": -100.0}
    per_example, where = ranked.irpo(*arrays, **keywords, reduce=units)
    return {"loss": total(per_example, where), "per_example": per_example}


def zo_rank_gradient(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The released optimizer steps the other way, by the smoothing, and weighs ranked queries one too high."""
    perturbations, order = inputs["perturbations"], inputs["ranking"]
    found = zeroth_order.zo_rank_gradient(perturbations, order)
    bias = perturbations[order].sum(0) / found.num_edges
    released = hyper["smoothing"] * (bias - found.gradient)
    return found._asdict() | {"released_search_direction": released}


def grouprank_reward(hyper: Hyper, inputs: Inputs) -> Outputs:
    names = ("scores", "labels", "relevant", "predicted_distribution", "gold_distribution", "format_status")
    keywords = {name: hyper[name] for name in ("gamma", "epsilon", "topn")}
    base = {"e": math.e}.get(hyper["log_base"], hyper["log_base"])
    found = ranking_reward.grouprank_reward(*(inputs[name] for name in names), **keywords, base=float(base))
    return found._asdict() | {"js": found.divergence}


EAGER = {
    "adpo_listwise_tokens": adpo_listwise_tokens,
    "adpo_variants": adpo_variants,
    "adpo_kde_advantage": adpo_kde_advantage,
    "adpo_adaptive_tau": adpo_adaptive_tau,
    "hinton_kd": hinton_kd,
    "dist": dist,
    "listnet": listnet,
    "ranknet": ranknet,
    "lambdaloss": lambdaloss,
    "lambdaloss_allrank": lambdaloss_allrank,
    "ranking_metrics": ranking_metrics,
    "lipo_lambda": lipo_lambda,
    "dpo_pl": dpo_pl,
    "pro": pro,
    "irpo": irpo,
    "zo_rank_gradient": zo_rank_gradient,
    "grouprank_reward": grouprank_reward,
}
# fusing value and gradient of dist into one program reorders sums that cancel: it runs operation by operation
ADAPTERS = {name: adapter if name == "dist" else compiled(adapter) for name, adapter in EAGER.items()}

_RANKING = (1e-9, 1e-13, "terms of size 1 that cancel, each off by |score| times the rounding of float64")
_CONSTANT = (
    1e-8,
    1e-11,
    "a class of the same probability in all examples centres to rounding errors, which the reference's 1e-8 magnifies: "
    "60 digits put the reference itself 2e-9 off",
)

TOLERANCES = {"dpo_pl/gradient of policy_logps": _RANKING, "dist/gradient of logits": _CONSTANT}
