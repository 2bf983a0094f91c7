"""Adapters: reward shaping, and what is sampled, kept and how often: budgets, filters, votes."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from rlx import numerics
from rlx.policy import advantages, controllers, downsampling, rollouts
from rlx.reward import entropy, shaping
from rlx.types import Array
from tests.adapters.policy import groups, mask

Hyper = dict[str, Any]
Inputs = dict[str, Any]
Outputs = dict[str, Any]

DIFFICULTIES = ("easy", "medium", "hard")


def scatter(grouped: Array, index: np.ndarray, real: np.ndarray, size: int) -> Array:
    """From ``[P, K]`` back to the rows of the batch."""
    return jnp.zeros(size, grouped.dtype).at[index[real]].set(grouped[real])


def group_advantages(rewards: Array, group_ids: Array, epsilon: float) -> Array:
    index, real = groups(group_ids)
    grouped = advantages.grpo_advantage(rewards[index], epsilon=epsilon, where=jnp.asarray(real))
    return scatter(grouped[..., 0], index, real, rewards.size)


def dapo_overlong_penalty(hyper: Hyper, inputs: Inputs) -> Outputs:
    bounds = {key: hyper[key] for key in ("max_length", "buffer_length")}
    return {
        "penalty_verl": shaping.dapo_overlong_penalty(
            inputs["lengths"], **bounds, factor=hyper["penalty_factor"], floor=-np.inf
        ),
        "penalty_paper": shaping.dapo_overlong_penalty(inputs["lengths"], **bounds),
    }


def kimi_length_reward(hyper: Hyper, inputs: Inputs) -> Outputs:
    return {"length_reward": shaping.kimi_length_reward(inputs["lengths"], inputs["correct"])}


def l1_length_reward(hyper: Hyper, inputs: Inputs) -> Outputs:
    options = {"maximum": hyper["mode"] == "max", "alpha": hyper["alpha"], "delta": hyper["delta"]}
    arrays = [inputs[name] for name in ("lengths", "target_lengths", "correct")]
    return {"reward": shaping.l1_length_reward(*arrays, **options)}


def critique_rl_reward(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = [inputs[name] for name in ("oracle_correct", "judged_correct", "refined_correct")]
    stages = {1: {"refinement": "none", "beta1": 1.0}, 2: {"beta1": hyper["beta1"]}}
    return {"reward": shaping.critique_rl_reward(*arrays, **stages[hyper["stage"]])}


def critique_rl_released_reward(hyper: Hyper, inputs: Inputs) -> Outputs:
    """A judgement is right when its sentence is there, the other sentence or not; without either it is wrong."""
    before = inputs["origin_correct"]
    judged = jnp.where(before > 0, inputs["says_correct"], 1 - inputs["says_wrong"])
    arrays = before, judged, inputs["refinement_correct"]
    judgement = shaping.critique_rl_reward(*arrays, refinement="none", beta1=1.0, wrong=-1.0)
    if hyper["stage"] == 1:
        return {"rewards": judgement, "discrimination": judgement}
    modes = {"r_refine": "refined", "r_delta": "improvement", "r_correct": "correction"}
    paid = {"beta1": hyper["discrimination_weight"], "wrong": -1.0} if hyper["use_discrimination"] else {"beta1": 0.0}
    rewards = shaping.critique_rl_reward(*arrays, refinement=modes[hyper["mode"]], **paid)
    return {"rewards": rewards, "discrimination": judgement}


def pear(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, ends = mask(inputs), inputs["think_end_index"]
    options = {key: hyper[key] for key in ("alpha", "score", "format_score")}
    reward = entropy.pear(inputs["entropy"], inputs["correct"], ends, **options, where=where)
    phases = entropy.phase_entropies(inputs["entropy"], ends, where=where)
    return {
        "thinking_entropy": phases.thinking,
        "answer_entropy": phases.answer,
        "phase_penalty": jnp.maximum(phases.thinking - hyper["alpha"] * phases.answer, 0),
        "reward": reward,
        "group_advantages": group_advantages(reward, inputs["group_ids"], hyper["epsilon"]),
    }


def ares_entropy_reward(hyper: Hyper, inputs: Inputs) -> Outputs:
    level = jnp.asarray([DIFFICULTIES.index(name) for name in inputs["difficulty"]])
    names = {"margin_fraction": "margin_frac", "kappa": "kappa", "temperature": "temp", "cap_scale": "cap_scale"}
    options = {ours: [hyper[theirs][name] for name in DIFFICULTIES] for ours, theirs in names.items()}
    reward = entropy.ares_entropy_reward(
        inputs["high_entropy_token_count"],
        inputs["accuracy"],
        level,
        target=inputs["target_count"],
        alpha=inputs["alpha"],
        **options,
    )
    return {"entropy_reward": reward, "overall": inputs["accuracy"] + reward}


def adaptive_kl_controller(hyper: Hyper, inputs: Inputs) -> Outputs:
    coefficient, after = jnp.asarray(hyper["init_kl_coef"]), []
    for kl, n in zip(inputs["current_kl"], inputs["n_steps"], strict=True):
        options = {"target": hyper["target_kl"], "horizon": hyper["horizon"]}
        coefficient = controllers.adaptive_kl_controller(coefficient, kl, n, **options)
        after.append(coefficient)
    return {"kl_coef_after": jnp.stack(after)}


def ares_dynamic_kl(hyper: Hyper, inputs: Inputs) -> Outputs:
    names = list(hyper["initial"])
    target = jnp.asarray([hyper["target"][name] for name in names])
    signal = controllers.ares_kl(list(hyper["initial"].values()), target, rate=hyper["dual_learning_rate"])
    state, coefficients, multipliers = signal.init(), [], []
    for observed in inputs["observed_kl"]:
        kl = jnp.asarray([observed.get(name, np.nan) for name in names])
        _, state = signal.update(kl, state, where=jnp.asarray([name in observed for name in names]))
        coefficients.append(dict(zip(names, state.coefficients.tolist(), strict=True)))
        multipliers.append(dict(zip(names, state.multipliers.tolist(), strict=True)))
    return {"kl_coefficients": coefficients, "multipliers": multipliers}


def dapo_dynamic_sampling(hyper: Hyper, inputs: Inputs) -> Outputs:
    index, real = groups(inputs["group_ids"])
    keep = downsampling.dapo_dynamic_sampling(inputs["rewards"][index], where=jnp.asarray(real))
    return {"keep": scatter(keep[..., 0], index, real, inputs["rewards"].size)}


def d3s(hyper: Hyper, inputs: Inputs) -> Outputs:
    if "progress" in inputs:
        progress = float(inputs["progress"])
        return {
            "num_samples_real": downsampling.linear(progress, hyper["n_init"], hyper["n_final"]),
            "token_fraction": downsampling.linear(progress, hyper["k_init"], hyper["k_final"]),
        }
    where, entropies = mask(inputs), inputs["entropy"]
    advantage = group_advantages(inputs["rewards"], inputs["group_ids"], hyper.get("epsilon", 1e-6))
    options = {"num_samples": hyper["num_samples"], "token_fraction": hyper["token_fraction"]}
    tokens = downsampling.d3s(entropies, advantage[:, None], **options, where=where)
    rows = downsampling.max_variance_rows(advantage, hyper["num_samples"], where=where.any(-1))
    return {
        "advantages": advantage,
        "selected_rows": jnp.flatnonzero(rows),
        "max_variance": numerics.variance(advantage, where=rows),
        "token_score": jnp.where(where & rows[:, None], jnp.abs(advantage)[:, None] * entropies, 0),
        "num_tokens": tokens.sum(),
        "token_mask": tokens,
    }


def vas_score(hyper: Hyper, inputs: Inputs) -> Outputs:
    weights = {"alpha": hyper["weight_outcome_variance"], "beta": hyper["weight_diversity"]}
    arrays = inputs["correct"], inputs["diversity"]
    rate, score = inputs["correct"].mean(-1), rollouts.vas_score(*arrays, **weights)
    mixture = {"batch_size": hyper["batch_size"], "mixture": hyper["mixture_ratio"]}
    # the uniform part draws without replacement, from a pool at least as large as it
    draw = rollouts.vas_batch(np.resize(np.asarray(score), max(score.size, hyper["batch_size"])), **mixture)
    return {
        "pass_rate": rate,
        "outcome_variance": rollouts.vas_score(*arrays, alpha=1.0, beta=0.0),
        "score": score,
        "sampling_probability": score / score.sum(),
        "num_weighted": len(draw.weighted),
        "num_uniform": len(draw.uniform),
    }


def knapsack_budget_allocation(hyper: Hyper, inputs: Inputs) -> Outputs:
    bounds = {key: hyper[key] for key in ("budget", "n_low", "n_up")}
    found = rollouts.knapsack_budget_allocation(inputs["success_rates"], **bounds)
    gains, taken = np.diff(found.values), found.allocation - hyper["n_low"]
    chosen = np.arange(gains.shape[1]) < taken[:, None]
    margin = gains.min(where=chosen, initial=np.inf) - gains.max(where=~chosen, initial=-np.inf)
    return {
        "value_table": found.values,
        "best_total_value": found.total_value,
        "an_optimal_allocation": found.allocation,
        "allocation_is_unique": bool(margin > 1e-15),
        "hyper": hyper,
    }


def as_good(outputs: Outputs, allocation: Any) -> bool:
    """An allocation within the bounds, of the value that was found; the same one where it is unique."""
    hyper, chosen = outputs["hyper"], np.asarray(allocation)
    rows = np.arange(len(chosen))
    value = outputs["value_table"][rows, chosen - hyper["n_low"]].sum()
    return chosen.sum() <= hyper["budget"] and bool(np.isclose(value, outputs["best_total_value"], rtol=1e-9))


def claims_no_more(outputs: Outputs, unique: bool) -> bool:
    """An allocation said to be the only one must be; one that is not said to be may still be."""
    return outputs["allocation_is_unique"] or not unique


def recent_sample_recovery(hyper: Hyper, inputs: Inputs) -> Outputs:
    carried, rounds = rollouts.Carried(), []
    for groups_, counts in zip(inputs["prompt_ids"], inputs["correct_counts"], strict=True):
        listed = (np.asarray(x).tolist() for x in (groups_, counts))
        batch, carried = rollouts.recent_sample_recovery(carried, *listed, **hyper)
        rounds.append((batch, *carried))
    names = ("batches", "pending_after", "recovered_after")
    return dict(zip(names, map(list, zip(*rounds, strict=True)), strict=True))


def ttrl_majority_reward(hyper: Hyper, inputs: Inputs) -> Outputs:
    answers = np.asarray(inputs["answers"])[:, : hyper["n_votes"]]
    votes = [rollouts.ttrl_majority_reward(row, num_samples=hyper["n_samples"]) for row in answers]
    return {
        "pseudo_label": np.array([vote.label for vote in votes]),
        "majority_ratio": np.array([vote.ratio for vote in votes]),
        "rewards": np.stack([vote.rewards for vote in votes]),
    }


ADAPTERS = {
    "dapo_overlong_penalty": dapo_overlong_penalty,
    "kimi_length_reward": kimi_length_reward,
    "l1_length_reward": l1_length_reward,
    "critique_rl_reward": critique_rl_reward,
    "critique_rl_released_reward": critique_rl_released_reward,
    "pear": pear,
    "ares_entropy_reward": ares_entropy_reward,
    "adaptive_kl_controller": adaptive_kl_controller,
    "ares_dynamic_kl": ares_dynamic_kl,
    "dapo_dynamic_sampling": dapo_dynamic_sampling,
    "d3s": d3s,
    "vas_score": vas_score,
    "knapsack_budget_allocation": knapsack_budget_allocation,
    "recent_sample_recovery": recent_sample_recovery,
    "ttrl_majority_reward": ttrl_majority_reward,
}
JUDGED = {
    "knapsack_budget_allocation/an_optimal_allocation": as_good,
    "knapsack_budget_allocation/allocation_is_unique": claims_no_more,
}
