"""Adapters: nested groups: segments, turns, anchor states, trees; and evolution strategies."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from rlx.policy import branching, evolution, matching, nested, trees
from rlx.policy.returns import reward_to_go
from tests.adapters.policy import Hyper, Inputs, groups, mask

Outputs = dict[str, Any]


def gigpo_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Rows are steps; those of a trajectory become the axis S, the trajectories of a group the axis K.

    A trajectory's number may return in another group. Its reward may differ from the sum of its steps and, by row,
    even within it, which the function does not offer: the file repeats one value.
    """
    group, trajectory = (np.asarray(inputs[name]) for name in ("group_ids", "trajectory_ids"))
    tasks, size = np.unique(group), len(group)
    paths = {task: list(dict.fromkeys(trajectory[group == task].tolist())) for task in tasks}
    rows = {task: [np.flatnonzero((group == task) & (trajectory == path)) for path in paths[task]] for task in tasks}
    most = max(map(len, rows.values()))
    steps = max(len(path) for task in tasks for path in rows[task])
    index, real = np.zeros((len(tasks), most, steps), int), np.zeros((len(tasks), most, steps), bool)
    for p, task in enumerate(tasks):
        for k, path in enumerate(rows[task]):
            index[p, k, : len(path)], real[p, k, : len(path)] = path, True
    where, options = jnp.asarray(real), {"gamma": hyper["gamma"], "epsilon": hyper["epsilon"]}
    options |= {"scale": hyper["mode"] == "mean_std_norm", "over_steps": True, "where": where}
    rewards, states = (jnp.asarray(inputs[name])[index] for name in ("step_rewards", "anchor_state_ids"))
    totals = jnp.asarray(inputs["episode_rewards"])[index[..., 0]]

    def tokens(found: Any) -> Any:
        rows = jnp.zeros((size, 1), found.dtype).at[index[real]].set(found[real])
        return jnp.where(mask(inputs), rows, 0)

    weights = {"advantages": hyper["step_advantage_weight"], "episode_advantages": 0.0}
    found = {
        name: tokens(nested.gigpo_advantage(rewards, states, totals, weight=weight, **options))
        for name, weight in weights.items()
    }
    returns = reward_to_go(rewards, gamma=hyper["gamma"], where=where)
    return found | {"step_returns": jnp.zeros(size, returns.dtype).at[index[real]].set(returns[real])}


def matchtir_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Turns are the runs of the mask. ``advantages`` are the released code's, half of the paper's sum."""
    index, real = groups(inputs["group_ids"])
    where = np.asarray(mask(inputs))
    turns = jnp.asarray(np.cumsum(np.diff(where, prepend=False, axis=-1) & where, -1) - 1)
    options = {"gamma": hyper["turn_discount"], "epsilon": hyper["epsilon"]}

    def rows(average: bool) -> Any:
        arrays = jnp.asarray(inputs["token_level_rewards"])[index], turns[index]
        found = nested.matchtir_advantage(
            *arrays, average=average, where=jnp.asarray(where[index] & real[..., None]), **options
        )
        return jnp.zeros(where.shape, found.dtype).at[index[real]].set(found[real])

    return {"advantages": rows(True), "advantages_paper_sum": rows(False)}


def matchtir_matching_reward(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Assignment and rewards are those of the released code, which is greedy."""
    similarity = np.asarray(inputs["similarity"], float)
    similarity = similarity.reshape(len(similarity), -1) if similarity.size else np.zeros((len(similarity), 0))
    options = {"unmatched_penalty": hyper["unmatched_penalty"]}
    greedy = matching.matchtir_matching_reward(similarity, matching="greedy", **options)
    optimal = matching.matchtir_matching_reward(similarity, **options)
    found = {"assignment": greedy.assignment, "rewards": greedy.rewards}
    return found | {"greedy_total": greedy.total, "optimal_total": optimal.total}


def spo_chain_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The value of cut point c belongs to the token after it."""
    logprobs = jnp.asarray(np.log(np.asarray(inputs["probabilities"], float)))
    options = {"threshold": hyper["probability_threshold"], "interval": hyper["cutpoint_interval"]}
    starts = np.flatnonzero(nested.spo_starts(logprobs, **options))
    values = jnp.zeros_like(logprobs).at[starts].set(jnp.asarray(inputs["cutpoint_values"], float))
    found = nested.spo_chain_advantage(logprobs, values, jnp.asarray(inputs["final_score"], float), **options)
    return {"cutpoints": starts - 1, "advantages": found}


def spo_tree_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """An edge is kept unless its advantage and its gain in best-of-4 success add up to nothing."""
    arrays = jnp.asarray(inputs["leaf_reward"], float), jnp.asarray(inputs["parent"])
    scale = hyper["advantage_method"] == "grpo"
    gain = trees.spo_tree_advantage(*arrays, scale=scale, epsilon=hyper["epsilon"])[..., 0]
    values = trees.spo_tree_value(*arrays)
    best_of_four = trees.over_parent(1 - (1 - values) ** 4, arrays[1])
    return {"node_value": values, "advantages": gain, "kept": gain + best_of_four != 0}


def tree_mc_value(hyper: Hyper, inputs: Inputs) -> Outputs:
    found = trees.tree_mc_value(jnp.asarray(inputs["leaf_reward"], float), jnp.asarray(inputs["parent"]))
    return {
        "node_value": found.values,
        "num_leaves": found.leaves,
        "value_minus_root": found.over_root,
        "value_minus_parent": found.over_parent,
    }


def graph_grpo_edge_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = jnp.asarray(inputs["rewards"], float), jnp.asarray(inputs["adjacency"])
    found = trees.graph_grpo_edge_advantage(*arrays, epsilon=hyper["epsilon"])
    return {"conditional_success": found.success, "advantages": found.advantages}


def etmr_fork_positions(hyper: Hyper, inputs: Inputs) -> Outputs:
    counts = {name: hyper[name] for name in ("num_forks", "num_branches")}
    found = branching.etmr_fork_positions(inputs["entropy"], **counts, where=mask(inputs))
    return {"fork_positions": found.positions, "num_rollouts": found.rollouts}


def tool_light_branching(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The file lists no more steps than there are."""
    logprobs = inputs["top_logprobs"]
    where = jnp.arange(logprobs.shape[1]) < jnp.asarray(inputs["lengths"])[:, None]
    options = {"prefix_lengths": hyper["prefix_lengths"], "num_positions": hyper["num_positions"]}
    found = branching.tool_light_branching(logprobs, **options, where=where)
    return found._asdict() | {"selected_steps": found.selected[: len(logprobs)]}


def eggroll_fitness(hyper: Hyper, inputs: Inputs) -> Outputs:
    return {"fitness": evolution.eggroll_fitness(inputs["raw_scores"], group_size=hyper["group_size"])}


def eggroll_update(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The members' forward passes share the input ``x``; vectors have full noise and no forward pass."""
    scores, group_size = inputs["raw_scores"], hyper.get("group_size", 0)
    noise = inputs["noise"] if "noise" in inputs else evolution.LowRank(inputs["noise_A"], inputs["noise_B"])
    options = {"sigma": hyper["sigma"], "learning_rate": hyper["learning_rate"], "group_size": group_size}
    found = {
        "fitness": evolution.eggroll_fitness(scores, group_size=group_size),
        "new_parameter": evolution.eggroll_update(inputs["parameter"], noise, scores, **options),
    }
    if "x" in inputs:
        x = jnp.broadcast_to(inputs["x"], (len(scores), *inputs["x"].shape))
        found["perturbed_forward"] = evolution.perturbed_linear(x, inputs["parameter"], noise, sigma=hyper["sigma"])
    return found


ADAPTERS = {
    "gigpo_advantage": gigpo_advantage,
    "matchtir_advantage": matchtir_advantage,
    "matchtir_matching_reward": matchtir_matching_reward,
    "spo_chain_advantage": spo_chain_advantage,
    "spo_tree_advantage": spo_tree_advantage,
    "tree_mc_value": tree_mc_value,
    "graph_grpo_edge_advantage": graph_grpo_edge_advantage,
    "etmr_fork_positions": etmr_fork_positions,
    "tool_light_branching": tool_light_branching,
    "eggroll_fitness": eggroll_fitness,
    "eggroll_update": eggroll_update,
}

_ROUNDING = "values equal but for rounding: the rounding of their mean is divided by epsilon"
TOLERANCES = {
    "gigpo_advantage": (1e-5, 1e-5, "the reference computes the step returns in float32"),
    "matchtir_advantage": (1e-9, 1e-9, _ROUNDING),
    "spo_tree_advantage/advantages": (1e-9, 1e-7, _ROUNDING),
    "graph_grpo_edge_advantage/advantages": (1e-9, 1e-7, _ROUNDING),
}
