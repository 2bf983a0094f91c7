"""Adapters: advantage estimators: from rewards of a group, and over the tokens of a response."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from rlx import aggregate, catalog, numerics
from rlx.policy import advantages, agents, answers, batch_advantages, clipped, conditional, returns, token_groups
from rlx.policy import copo as copo_parts
from rlx.types import Array
from tests.adapters.policy import CANCELLING, Hyper, Inputs, Outputs, groups, mask


def by_group(function: Callable[..., Array], inputs: Inputs, *arrays: Array, **keywords: Any) -> Array:
    """A function of groups, ``[P, K, ...]`` with the real members as ``keywords["members"]``, on rows ``[B, ...]``."""
    index, real = groups(inputs["group_ids"])
    grouped = function(*(array[index] for array in arrays), **{keywords.pop("members", "where"): real}, **keywords)
    return jnp.zeros((len(inputs["group_ids"]), *grouped.shape[2:]), grouped.dtype).at[index[real]].set(grouped[real])


def spread(rows: Array, inputs: Inputs) -> Outputs:
    """One advantage per response at each of its real tokens."""
    result = numerics.clean(jnp.broadcast_to(rows, inputs["mask"].shape), mask(inputs))
    return {"advantages": result, "returns": result}


def lengths(inputs: Inputs) -> Array:
    return mask(inputs).sum(-1)


def of_rewards(name: str, **renamed: str) -> Callable[[Hyper, Inputs], Outputs]:
    """A catalogue entry that takes rewards alone; ``renamed``: hyperparameter of the file -> keyword."""

    def adapter(hyper: Hyper, inputs: Inputs) -> Outputs:
        keywords = {ours: hyper[theirs] for theirs, ours in renamed.items() if theirs in hyper}
        return spread(by_group(catalog.CATALOG[name].call, inputs, inputs["rewards"], **keywords), inputs)

    return adapter


def opmd_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    tau = {"mean": None, "logavgexp": hyper["tau"]}[hyper["baseline"]]
    return spread(by_group(advantages.opmd_advantage, inputs, inputs["rewards"], tau=tau), inputs)


def opo_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    del hyper
    return spread(by_group(advantages.opo_advantage, inputs, inputs["rewards"], lengths(inputs)), inputs)


def tppo_egae_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = inputs["rewards"], inputs["values"], inputs["finished"]
    options = {"gamma": hyper["gamma"], "lam": hyper["lambda"], "where": mask(inputs)}
    return {"advantages": returns.tppo_egae_advantage(*arrays, **options).advantages}


def reinforce_plus_plus_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The reference also gives the return of a masked token."""
    where, rewards, gamma = mask(inputs), inputs["token_level_rewards"], hyper["gamma"]
    real = returns.reward_to_go(rewards, gamma=gamma, reset=True, where=where)
    after = jnp.pad(real[..., 1:], ((0, 0), (0, 1)))
    return {
        "advantages": returns.reinforce_plus_plus_advantage(rewards, gamma=gamma, where=where),
        "returns": jnp.where(where, real, rewards + gamma * after),
    }


def remax_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """A row is a prompt with one response; the reference also gives the return of a masked token."""
    del hyper
    where, rewards = mask(inputs), inputs["token_level_rewards"]
    grouped = returns.remax_advantage(rewards[:, None], inputs["baseline_rewards"], where=where[:, None])
    unmasked = returns.reward_to_go(numerics.clean(rewards, where))
    return {"advantages": jnp.where(where, grouped[:, 0], unmasked), "returns": unmasked}


def psr_nsr_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    weight = {} if hyper["positive_weight"] is None else {"positive_weight": hyper["positive_weight"]}
    options = {"mode": hyper["mode"], "gamma": hyper["gamma"], "where": mask(inputs)} | weight
    return {"advantages": returns.psr_nsr_advantage(inputs["token_level_rewards"], **options)}


def grpo_process_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Marked last tokens become indices; tokens of a padding row are masked."""
    ends = jnp.where(inputs["step_end"] > 0, np.arange(inputs["step_end"].shape[-1]), -1)

    def grouped(rewards: Array, ends: Array, where: Array, real: np.ndarray) -> Array:
        members = where & real[..., None]
        return token_groups.grpo_process_advantage(rewards, ends, epsilon=hyper["epsilon"], where=members)

    return {"advantages": by_group(grouped, inputs, inputs["step_rewards"], ends, mask(inputs), members="real")}


def optimal_token_baseline_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The reference also gives the return of a masked token."""
    where, rewards = mask(inputs), inputs["token_level_rewards"]
    arrays = [rewards, inputs["old_logprobs"], -jnp.log(inputs["sum_pi_squared"])]
    rollout = inputs.get("rollout_is_weights")
    options = {"handle_zero_tail": hyper["handle_zero_tail"], "epsilon": hyper["epsilon"]}

    def grouped(*arrays: Any, real: np.ndarray) -> Array:
        *tokens, where = arrays
        masks = {"group_where": real, "where": where & real[..., None]}
        return token_groups.optimal_token_baseline_advantage(*tokens, **masks, **options)

    weights = jnp.ones_like(rewards) if rollout is None else rollout
    return {
        "advantages": by_group(grouped, inputs, *arrays, weights, where, members="real"),
        "returns": returns.reward_to_go(numerics.clean(rewards, where)),
    }


def gpg_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    """verl's alpha, of the rewards that are not 0, is not the paper's."""
    keywords = {"f_norm": hyper["f_norm"], "valid": "rewards"}
    return spread(by_group(batch_advantages.gpg_advantage, inputs, inputs["rewards"], **keywords), inputs)


def reinforce_plus_plus_baseline_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    del hyper
    function = batch_advantages.reinforce_plus_plus_baseline_advantage
    return spread(by_group(function, inputs, inputs["rewards"], lengths(inputs)), inputs)


def red_drop_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    index, real = groups(inputs["group_ids"])
    options = {"scale": hyper["std_normalize"], "epsilon": hyper["epsilon"]}

    def grouped(rewards: Array, keep: Array, where: np.ndarray) -> Array:
        return batch_advantages.red_drop_advantage(rewards, keep=keep, **options, where=where)

    found = by_group(grouped, inputs, inputs["rewards"], inputs["keep"] > 0)
    excess = batch_advantages.surplus(inputs["rewards"][index], real)[1]
    return {"advantages": found[:, 0], "num_dropped": excess.sum()}


def unlikeliness_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = inputs["old_logprobs"], inputs["rewards"], mask(inputs)
    options = {"beta": hyper["rank_penalty"], "epsilon": hyper["epsilon"]}

    def grouped(old: Array, rewards: Array, where: Array, real: np.ndarray) -> Array:
        return conditional.unlikeliness_advantage(old, rewards, real, **options, where=where)

    return spread(by_group(grouped, inputs, *arrays, members="real"), inputs)


def canon(hyper: Hyper, inputs: Inputs) -> Outputs:
    """``anneal``: entropy, with the mean reward of the batch as mu."""
    annealed = hyper["metric"] == "anneal"
    options = {"metric": "entropy" if annealed else hyper["metric"], "mu": None if annealed else hyper["mu"]}
    options |= {"alpha": 1.0 if annealed else hyper["alpha"], "max_length": hyper["max_length"]}

    def grouped(entropy: Array, rewards: Array, where: Array, real: np.ndarray) -> Array:
        return conditional.canon(entropy, rewards, real, **options, where=where)

    return spread(by_group(grouped, inputs, inputs["entropy"], inputs["rewards"], mask(inputs), members="real"), inputs)


def ettrl_advantage(hyper: Hyper, inputs: Inputs) -> Outputs:
    where, rows = mask(inputs), inputs["advantages"][:, None]

    def scale(entropy: Array, where: Array, real: np.ndarray) -> Array:
        return conditional.certainty_scale(entropy, real, where=where)

    def reshaped(advantages: Array, entropy: Array, where: Array, real: np.ndarray) -> Array:
        return conditional.ettrl_advantage(advantages, entropy, real, where=where)

    return {
        "response_entropy": numerics.mean(inputs["entropy"], -1, where=where),
        "scale": by_group(scale, inputs, inputs["entropy"], where, members="real")[:, 0],
        "reshaped_advantages": by_group(reshaped, inputs, rows, inputs["entropy"], where, members="real"),
        "clipped_advantages": conditional.clip_advantage(rows, beta=hyper["clip_beta"], where=where),
    }


def policy_specific_hardness_weighting(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The loss is a sum over the tokens of the groups with both outcomes, over their number."""
    index, real = groups(inputs["group_ids"])
    where, options = jnp.asarray(real), {"alpha": hyper["alpha"], "offset": hyper["offset"]}
    correct = inputs["correct"][index]
    grouped = conditional.policy_specific_hardness_weighting(correct, **options, where=where)
    rewards = 2 * numerics.accumulate(inputs["correct"]) - 1
    wins = numerics.sum(correct, -1, where=where)
    keep = (wins > 0) & (wins < where.sum(-1))
    bounds = {"clip_low": hyper["clip_ratio_low"], "clip_high": hyper["clip_ratio_high"]}
    tokens = (inputs[name][index] for name in ("logprobs", "old_logprobs"))
    seen = mask(inputs)[index] & where[..., None] & keep[:, None, None]
    total = clipped.ppo_clip_loss(*tokens, grouped, **bounds, where=seen, reduce=aggregate.total)
    return {
        "loss": numerics.safe_divide(total, keep.sum()),
        "rewards": rewards,
        "group_mean": numerics.mean(rewards[index], -1, where=where),
        "hardness_weight": conditional.hardness_weight(correct, **options, where=where)[:, 0],
        "advantages": jnp.zeros(rewards.shape).at[index[real]].set(grouped[real][:, 0]),
        "keep_group": keep,
    }


def seed_grpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    given, rewards = inputs["answers"], inputs["rewards"]

    def modulated(modulation: Callable[[Array], Array]) -> Array:
        return answers.seed_grpo(rewards, given, alpha=hyper["alpha"], modulation=modulation)[..., 0]

    return {
        "semantic_entropy_shannon": answers.answer_entropy(given)[..., 0],
        "semantic_entropy_cluster_average": answers.answer_entropy(given, per_cluster=True)[..., 0],
        "normalised": answers.normalised_entropy(given)[..., 0],
        "advantages": advantages.grpo_advantage(rewards, scale=False)[..., 0],
        "linear_modulated": modulated(answers.linear),
        "exponential_modulated": modulated(answers.exponential),
    }


def copo(hyper: Hyper, inputs: Inputs) -> Outputs:
    index, real = groups(inputs["group_ids"])
    named = {"only soft": "soft", "only forced": "forced", "only zero": "zero", "only global": "global"}
    blend = named.get(hyper["global_flag"], hyper["global_flag"].replace(" with ", "_"))
    weighing = {"k": hyper["k"], "b": hyper["b"], "blend": blend}
    reward = {"entropy_coefficient": hyper["use_entropy_coefficient"]}
    bounds = {"clip_low": hyper["clip_ratio"], "clip_high": hyper["clip_ratio"], "dual_clip": hyper["clip_ratio_c"]}
    scale = {"epsilon": hyper["epsilon"]}
    rewards, given = inputs["rewards"][index], inputs["answers"][index]

    def rows(grouped: Array) -> Array:
        return jnp.zeros(inputs["rewards"].shape).at[index[real]].set(grouped[..., 0][real])

    tokens = [inputs[name][index] for name in ("logprobs", "old_logprobs")]
    where = mask(inputs)[index] & real[..., None]
    return {
        "loss": copo_parts.copo(*tokens, rewards, given, real, **weighing, **reward, **bounds, **scale, where=where),
        "answer_entropy_bits": answers.answer_entropy(given, where=real)[..., 0] / np.log(2),
        "global_reward": copo_parts.consistency_reward(rewards, given, **reward, where=real)[..., 0],
        "local_advantages": rows(advantages.grpo_advantage(rewards, **scale, where=real)),
        "global_advantages": rows(copo_parts.copo_global_advantage(rewards, given, **reward, **scale, where=real)),
        "local_weight": rows(copo_parts.copo_weight(rewards, given, **weighing, where=real)),
    }


def comam_credit(hyper: Hyper, inputs: Inputs) -> Outputs:
    found = agents.comam_credit(inputs["global_rewards"], inputs["local_rewards"].T, epsilon=hyper["epsilon"])
    return {
        "ndcg": found.consistency,
        "weights": found.weights,
        "integrated_rewards": found.rewards.T,
        "advantages": found.advantages.T,
    }


ADAPTERS: dict[str, Callable[..., Any]] = {
    "rloo_advantage": of_rewards("rloo_advantage"),
    "asymre_advantage": of_rewards("asymre_advantage", baseline_shift="shift"),
    "rec_advantage": of_rewards("rec_advantage", std_normalize="scale", epsilon="epsilon"),
    "passk_advantage": of_rewards("passk_advantage", normalize_by_std="scale", epsilon="epsilon"),
    "ngrpo_advantage": of_rewards(
        "ngrpo_advantage", max_reward="max_reward", num_virtual="num_virtual", epsilon="epsilon"
    ),
    "opmd_advantage": opmd_advantage,
    "opo_advantage": opo_advantage,
    "tppo_egae_advantage": tppo_egae_advantage,
    "reinforce_plus_plus_advantage": reinforce_plus_plus_advantage,
    "remax_advantage": remax_advantage,
    "psr_nsr_advantage": psr_nsr_advantage,
    "grpo_process_advantage": grpo_process_advantage,
    "optimal_token_baseline_advantage": optimal_token_baseline_advantage,
    "gpg_advantage": gpg_advantage,
    "reinforce_plus_plus_baseline_advantage": reinforce_plus_plus_baseline_advantage,
    "red_drop_advantage": red_drop_advantage,
    "unlikeliness_advantage": unlikeliness_advantage,
    "canon": canon,
    "ettrl_advantage": ettrl_advantage,
    "policy_specific_hardness_weighting": policy_specific_hardness_weighting,
    "seed_grpo": seed_grpo,
    "copo": copo,
    "comam_credit": comam_credit,
}

_DIVIDED = (1e-9, 1e-9, "rewards equal but for rounding: the rounding of the mean is divided by 1e-6")
_ROUNDED = (1e-9, 1e-11, "large equal rewards: the rounding of their mean is what stays when they cancel")
TOLERANCES = {
    "reinforce_plus_plus_advantage/advantages": CANCELLING,
    "reinforce_plus_plus_baseline_advantage": CANCELLING,
    **dict.fromkeys(("rec_advantage", "ngrpo_advantage", "unlikeliness_advantage", "grpo_process_advantage"), _DIVIDED),
    **dict.fromkeys(
        ("rloo_advantage", "asymre_advantage", "opmd_advantage", "opo_advantage", "gpg_advantage"), _ROUNDED
    ),
    "copo": (1e-6, 2e-7, "the reference takes the logarithm of p + 1e-8"),
}
