"""Adapters of reward models, their metrics, and pluralistic methods."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlx import numerics
from rlx.aggregate import mean, units
from rlx.preference import scores
from rlx.reward import (
    bradley_terry,
    contrastive,
    ideal_point,
    implicit,
    judge,
    noise_contrastive,
    objectives,
    pluralistic,
    ranking,
    regret,
    strength,
)
from tests.adapters.policy import groups
from tests.adapters.preference import Hyper, Inputs, Outputs, compiled, losses, stack


def masked(inputs: Inputs) -> jax.Array | None:
    """The boolean mask, if there is one."""
    return inputs["mask"] > 0 if inputs.get("mask") is not None else None


def preference_strength(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The files have the models on the first axis."""
    ensemble = jnp.moveaxis(stack(inputs, "ensemble_{}_rewards"), 0, -1)
    found = strength.preference_strength(ensemble)
    return {"strength_mean": found.mean, "strength_std": found.std}


def secrets_rlhf2(hyper: Hyper, inputs: Inputs) -> Outputs:
    """A mode names the parts that are on: adaptive margin, soft label, flip, or several joined by underscores."""
    parts = hyper["mode"].split("_")
    wrong = inputs.get("soft_label") if "soft" in parts else None
    keywords = {"adaptive_margin": "margin" in parts, "flip_below": 0.0 if "flip" in parts else None}
    arrays = stack(inputs, "{}_rewards"), inputs["strength_mean"], None if wrong is None else 1 - wrong
    return losses(lambda reduce: strength.secrets_rlhf2(*arrays, **keywords, reduce=reduce))


def rm_contrastive(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Every row is one item: K = 1."""
    arrays = inputs["anchor_embeddings"][:, None], inputs["positive_embeddings"][:, None]
    found = losses(lambda reduce: contrastive.rm_contrastive(*arrays, temperature=hyper["temperature"], reduce=reduce))
    return found | {"per_example": found["per_example"][:, 0]}


def metarm_difference(hyper: Hyper, inputs: Inputs) -> Outputs:
    return losses(lambda reduce: strength.metarm_difference(inputs["rewards"], where=masked(inputs), reduce=reduce))


def yojo_nway(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The preferred response is brought to the front; the score it is told by must be the largest (ties: lowest)."""
    score, where, best = inputs["scores"], masked(inputs), inputs["labels"].astype(int)
    where = jnp.ones(score.shape, bool) if where is None else where
    order = jnp.argsort(jnp.arange(score.shape[-1]) != best[..., None], -1, stable=True)
    score_first, where_first = (jnp.take_along_axis(x, order, -1) for x in (score, where))
    accuracy = (jnp.argmax(numerics.clean(score, where, -jnp.inf), -1) == best).astype(score.dtype).mean()
    found = losses(lambda reduce: bradley_terry.yojo_nway(score_first, where=where_first, reduce=reduce))
    return found | {"accuracy": accuracy}


def implicit_prm_ce(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The official loss goes through the probability: beyond logits of 10 it loses digits, then slope, then is 100."""
    policy, reference, labels = (inputs[name][:, None] for name in ("policy_logps", "reference_logps", "labels"))
    reward = hyper["beta"] * scores.log_ratio(policy, reference)
    ours = implicit.implicit_prm_ce(policy, reference, labels, beta=hyper["beta"], reduce=None)
    p = jax.lax.stop_gradient(jax.nn.sigmoid(reward))
    logs = (jnp.maximum(jnp.log(jnp.where(x > 0, x, 1e-300)), -100.0) for x in (p, 1 - p))
    true, false = logs
    slope = (p - labels) * (p * (1 - p)) / jnp.maximum(p * (1 - p), 1e-12)
    theirs = -labels * true - (1 - labels) * false + slope * (reward - jax.lax.stop_gradient(reward))
    return {"loss": jnp.where(jnp.abs(reward) > 10, theirs, ours).mean(), "rewards": reward[:, 0]}


def implicit_prm_pairwise(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, reference = stack(inputs, "policy_{}_logps"), stack(inputs, "reference_{}_logps")
    objective = {"InfoNCA": "dpo", "biasedNCA": "biased_nca"}.get(hyper["objective"], hyper["objective"].lower())
    if objective == "kto":
        return {"loss": implicit.implicit_prm_kto(policy, reference, beta=hyper["beta"])}
    return {"loss": implicit.implicit_prm_pairwise(policy, reference, beta=hyper["beta"], objective=objective)}


def nca(hyper: Hyper, inputs: Inputs) -> Outputs:
    loss = {"NCA": noise_contrastive.nca, "InfoNCA": noise_contrastive.infonca}[hyper["objective"]]
    arrays = [inputs[name] for name in ("policy_logps", "reference_logps", "scores")]
    return {"loss": loss(*arrays, beta=hyper["beta"], alpha=hyper["alpha"])}


def implicit_prm_step_rewards(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Responses have different numbers of steps: filled up with -1, and cut again."""
    ends = [np.asarray(row, int) for row in inputs["step_end_indices"]]
    padded = np.stack([np.pad(row, (0, max(map(len, ends)) - len(row)), constant_values=-1) for row in ends])
    arrays = inputs["logprobs"], inputs["reference_logprobs"], jnp.asarray(padded)
    found = implicit.implicit_prm_step_rewards(*arrays, beta=hyper["beta"], where=masked(inputs))

    def cut(values: jax.Array) -> list[Any]:
        return [np.asarray(row)[: len(own)] for row, own in zip(values, ends, strict=True)]

    steps = {"step_q": cut(found.accumulated), "step_rewards": cut(found.step_rewards)}
    whole = {"response_reward": found.response_reward, "min_step_reward": found.minimum}
    return {"token_rewards": found.token_rewards, **steps, **whole}


def regret_preference(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Values have the final state in their last column; the discount is the partial return's alone."""
    rewards, values, q = (
        jnp.stack([inputs[f"{side}_{name}"] for side in ("first", "second")], 1)
        for name in ("rewards", "values", "q_values")
    )
    before, final = values[..., :-1], values[..., -1]
    returns = regret.partial_return(rewards, discount=hyper["discount"])
    deterministic = regret.deterministic_regret(rewards, before, final)
    general = regret.regret(q, before)
    likelihood = {
        "p_partial_return": regret.partial_return_preference(rewards, discount=hyper["discount"], reduce=None),
        "p_deterministic_regret": bradley_terry.bradley_terry_rm(-deterministic, reduce=None),
        "p_regret": regret.regret_preference(q, before, reduce=None),
    }
    sides = {"partial_return": returns, "deterministic_regret": deterministic, "regret": general}
    of_sides = {f"{name}_{side}": x[:, i] for name, x in sides.items() for i, side in enumerate(("first", "second"))}
    return of_sides | {name: jnp.exp(-loss) for name, loss in likelihood.items()}


def ranking_accuracy(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = [stack(inputs, name) for name in ("policy_{}_logps", "reference_{}_logps")]
    arrays += [inputs["preference_probabilities"], stack(inputs, "{}_lengths")]
    keywords = {"beta": hyper["beta"], "length_normalize": hyper["length_normalise"]}
    found = ranking.ranking_accuracy(*arrays, **keywords)
    rates = {
        "ranking_accuracy": found.correct,
        "reference_ranking_accuracy": found.reference_correct,
        "idealized_ranking_accuracy": found.idealized_correct,
        "win_rate_implicit_reward": found.implicit_correct,
    }
    return {name: x.mean() for name, x in rates.items()} | found._asdict()


def multi_objective_grpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """One group."""
    rewards, weights = inputs["objective_rewards"], inputs["weights"]
    options = {"weights": weights, "epsilon": hyper["epsilon"], "ddof": 0 if hyper["std"] == "population" else 1}
    plain, each = (objectives.multi_objective_grpo(rewards, per_objective=x, **options)[..., 0] for x in (False, True))
    combined = objectives.combine(rewards, weights)
    return {"combined_rewards": combined, "advantages": plain, "advantages_normalised_per_objective": each}


def multi_objective_grpo_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    index, real = groups(inputs["group_ids"])
    options = {"weights": hyper["weights"], "epsilon": hyper["epsilon"], "ddof": 1, "where": jnp.asarray(real)}
    options["per_objective"] = {"normalize_then_sum": True, "sum_then_normalize": False}[hyper["mode"]]
    rewards = inputs["objective_rewards"]
    grouped = objectives.multi_objective_grpo(rewards[index], **options)[..., 0]
    return {"advantages": jnp.zeros(len(rewards), grouped.dtype).at[index[real]].set(grouped[real])}


def onereward_reward_model(hyper: Hyper, inputs: Inputs) -> Outputs:
    logits = jnp.stack([inputs["logits_winner_first"], inputs["logits_loser_first"]], -2)
    return losses(lambda reduce: judge.onereward_reward_model(logits, **hyper, reduce=reduce))


def onereward_policy_loss(hyper: Hyper, inputs: Inputs) -> Outputs:
    probability, where = inputs["affirmative_probability"], masked(inputs)
    found = losses(lambda reduce: judge.onereward_policy_loss(probability, **hyper, where=where, reduce=reduce))
    single = judge.onereward_policy_loss(probability[..., None], **hyper, reduce=None)
    return found | {"per_dimension": numerics.clean(single, where)}


def maxmin_rlhf(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The M-step's loss is that of the reward models, each on the comparisons of its users."""
    rewards, where = stack(inputs, "{}_rewards"), masked(inputs)
    found = pluralistic.assign_users(rewards, where=where)
    own = jnp.take_along_axis(rewards, found.groups[None, :, None, None], 0)[0]
    pairs = None if where is None else jnp.stack([where, where], -1)
    worst = pluralistic.worst_group(inputs["policy_rewards"])
    return {
        "user_loglik": found.user_loglik,
        "assignment": found.groups,
        "m_step_loss": bradley_terry.bradley_terry_rm(own, where=pairs),
        "group_objectives": worst.objectives,
        "worst_group": worst.group,
        "maxmin_objective": worst.objective,
    }


def pal(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Left and right become chosen and rejected by the target: -1 where the left item is preferred."""
    points = ideal_point.ideal_points(inputs["user_logits"], inputs["prototypes"], temperature=hyper["temperature"])
    items = jnp.stack([inputs["left_embeddings"], inputs["right_embeddings"]], -2)
    left = (inputs["targets"] < 0)[:, None, None]
    pairs = jnp.where(left, items, items[:, ::-1])
    angle = hyper["preference"] == "angle"
    keywords: dict[str, Any] = {"preference": "angle" if angle else "distance"}
    keywords["loss"] = "logistic" if hyper["loss"] == "CE" else hyper["loss"]
    keywords |= {"logit_scale": hyper["logit_scale"]} if "logit_scale" in hyper else {}
    per_example, where = ideal_point.pal(pairs, points, **keywords, reduce=units)
    if angle:
        output = ideal_point.alignment(items, points, keywords.get("logit_scale", np.log(1 / 0.07)))
    else:
        output = -scores.margin(ideal_point.nearness(items, points))
    return {
        "loss": mean(per_example, where),
        "per_example": per_example,
        "output": output,
        "ideal_points": points,
    }


EAGER: dict[str, Callable[[Hyper, Inputs], Outputs]] = {
    "preference_strength": preference_strength,
    "secrets_rlhf2": secrets_rlhf2,
    "rm_contrastive": rm_contrastive,
    "metarm_difference": metarm_difference,
    "yojo_nway": yojo_nway,
    "implicit_prm_ce": implicit_prm_ce,
    "implicit_prm_pairwise": implicit_prm_pairwise,
    "nca": nca,
    "regret_preference": regret_preference,
    "ranking_accuracy": ranking_accuracy,
    "multi_objective_grpo": multi_objective_grpo,
    "onereward_reward_model": onereward_reward_model,
    "onereward_policy_loss": onereward_policy_loss,
    "maxmin_rlhf": maxmin_rlhf,
    "pal": pal,
}
ADAPTERS = {name: compiled(adapter) for name, adapter in EAGER.items()}
ADAPTERS |= {
    "implicit_prm_step_rewards": implicit_prm_step_rewards,
    "multi_objective_grpo_advantage": multi_objective_grpo_advantage,
}

_CONSTANT = (1e-9, 1e-6, "a constant objective is 0 exactly; means of floating numbers leave about 1e-16/epsilon")
TOLERANCES = {"multi_objective_grpo": _CONSTANT, "multi_objective_grpo_advantage": (1e-9, 1e-9, _CONSTANT[2])}
