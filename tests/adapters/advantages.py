"""Adapters: advantage estimators: from rewards of a group, and over the tokens of a response."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from rlx import catalog, numerics
from rlx.policy import advantages, returns
from rlx.types import Array
from tests.adapters.policy import Hyper, Inputs, Outputs, groups, mask


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
        return returns.grpo_process_advantage(rewards, ends, epsilon=hyper["epsilon"], where=members)

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
        return returns.optimal_token_baseline_advantage(*tokens, **masks, **options)

    weights = jnp.ones_like(rewards) if rollout is None else rollout
    return {
        "advantages": by_group(grouped, inputs, *arrays, weights, where, members="real"),
        "returns": returns.reward_to_go(numerics.clean(rewards, where)),
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
}

_MEAN = "the reference divides by n + 1e-8; the error, 1e-8 of the largest term, stays when the terms cancel"
TOLERANCES = {"reinforce_plus_plus_advantage/advantages": (1e-6, 1e-8, _MEAN)}
