"""Adapters of losses that read tokens: pairs are stacked on the axis before the tokens, masks become boolean."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from rlx import numerics
from rlx.aggregate import mean
from rlx.preference import (
    diffusion,
    masks,
    pairwise,
    refinement,
    rejection,
    scores,
    segments,
    token_scores,
    trees,
    weighted_tokens,
)
from rlx.types import Array
from tests.adapters.preference import compiled, stack

Hyper = dict[str, Any]
Inputs = dict[str, Any]
Outputs = dict[str, Array]


def counted(losses: Array, where: Array) -> Outputs:
    """The references count a pair without any token as one with margin 0, which rlx leaves out of the mean."""
    per_example = jnp.where(where.any((1, 2)), losses, jnp.log(2.0))
    return {"loss": mean(per_example), "per_example": per_example}


def by_lengths(inputs: Inputs) -> tuple[Array, Array, Array]:
    """Policy and reference ``[B, 2, T]``, and the mask that the lengths stand for."""
    policy, reference = (stack(inputs, f"{name}_{{}}_token_logps", 1) for name in ("policy", "reference"))
    where = jnp.arange(policy.shape[-1]) < stack(inputs, "{}_lengths", 1)[..., None]
    return policy, reference, where


def ld_dpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, reference, where = by_lengths(inputs)
    keywords = {"beta": hyper["beta"], "alpha": hyper["ld_alpha"]}
    return counted(weighted_tokens.ld_dpo(policy, reference, **keywords, where=where, reduce=None), where)


def wpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Without weighting it is DPO; versions of the library that clamp the product of the weights do so at 1."""
    policy, reference, where = by_lengths(inputs)
    if not hyper.get("use_weighting", True):
        sums = (jnp.where(where, x, 0).sum(-1) for x in (policy, reference))
        return counted(pairwise.dpo(*sums, beta=hyper["beta"], reduce=None), where)
    keywords = {"beta": hyper["beta"], "maximum": hyper.get("maximum", jnp.inf)}
    arrays = policy, -stack(inputs, "{}_log_sum_sq_probs", 1), reference
    return counted(weighted_tokens.wpo(*arrays, **keywords, where=where, reduce=None), where)


def accuracy(right: Array, like: Array) -> Array:
    """Share of comparisons that are right, in the precision of the inputs: a mean of booleans is float32."""
    return right.astype(like.dtype).mean()


def cpl(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Labels say that the second segment is preferred; with scores, the batch is one list."""
    keywords = {"alpha": hyper["alpha"], "bias": hyper["bias"]}
    if "scores" in inputs:
        logprobs, score = inputs["logprobs"], inputs["scores"]
        loss = functools.partial(segments.cpl_dense, logprobs, score, **keywords, drop_zeros=True)
        s, above = logprobs.sum(-1), segments.ordered(score)
        right = ((s[:, None] > s[None]) & above).sum() / above.sum()
    else:
        logprobs = jnp.stack([inputs["logprobs_1"], inputs["logprobs_2"]], 1)
        loss = functools.partial(segments.cpl, logprobs, 1 - inputs["labels"], **keywords)
        s = logprobs.sum(-1)
        right = accuracy((s[:, 1] > s[:, 0]) == (jnp.round(inputs["labels"]) == 1), logprobs)
    whole, preference = loss(bc_coeff=hyper.get("bc_coeff", 0.0)), loss()
    return {"loss": whole, "cpl_loss": preference, "bc_loss": -logprobs.mean(), "accuracy": right}


def mcts_dpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Log-probabilities begin at the second token; the sums run to the last token of the mask, over its holes."""
    tokens, mask = (stack(inputs, f"{{}}_{name}", 1) for name in ("tokens", "mask"))
    policy, reference = (
        jnp.pad(stack(inputs, f"{name}_{{}}_token_logps", 1), ((0, 0), (0, 0), (1, 0)))
        for name in ("policy", "reference")
    )
    remaining = jnp.cumsum(mask[..., ::-1], -1)[..., ::-1]
    where = (remaining > 0) & (jnp.arange(mask.shape[-1]) > 0)
    values, beta = stack(inputs, "{}_values"), hyper["beta"]
    arrays = policy, reference, tokens, values if hyper["conservative"] else None
    keywords = {"beta": beta, "length_penalty": hyper.get("length_penalty", 0.0)}
    losses = segments.mcts_dpo(*arrays, **keywords, where=where, reduce=None)
    later = segments.after_divergence(tokens, where)
    margin = scores.margin(jnp.where(later, policy - reference, 0).sum(-1))
    reported = {"margin": margin, "label_smoothing": segments.visit_smoothing(values)}
    return counted(losses, where) | reported


def sparsepo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """A common mask comes as two equal ones."""
    where = stack(inputs, "{}_mask", 1).astype(bool)
    names = ("policy_{}_token_logps", "{}_token_kl", "{}_reward_weights", "{}_kl_weights", "reference_{}_token_logps")
    policy, kl, reward_masks, kl_masks, reference = arrays = [stack(inputs, name, 1) for name in names]
    keywords = {name: hyper.get(name, 0.0) for name in ("l1_reward", "l1_kl")}
    losses = masks.sparsepo(*arrays, beta=hyper["beta"], **keywords, where=where, reduce=None)
    u = token_scores.weighted_sum(reward_masks, scores.log_ratio(policy, reference), where)
    weighted = {"weighted_logratio": u, "weighted_kl": token_scores.weighted_sum(kl_masks, kl, where)}
    sides = {"chosen": 0, "rejected": 1}
    return counted(losses, where) | {f"{s}_{n}": x[:, i] for n, x in weighted.items() for s, i in sides.items()}


def mapo_activation_mask(hyper: Hyper, inputs: Inputs) -> Outputs:
    where = inputs["mask"].astype(bool)
    weights = masks.mapo_activation_mask(inputs["activations"], where=where)
    return {"loss": numerics.mean(weights, where=where), "weights": weights}


def spa_self_refinement(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The file has the log-probabilities of the extrapolated logits; what is left is DPO with a label."""
    policy, reference, mixed = (stack(inputs, f"{name}_{{}}_logps") for name in ("policy", "reference", "mixed"))
    margin = hyper["beta"] * scores.margin(mixed - reference)
    keywords = {"alpha": hyper["alpha"], "progress": hyper["progress"]}
    label = refinement.refined_label(margin, hyper["threshold"], **keywords)
    losses = pairwise.dpo(policy, reference, beta=hyper["beta"], label=label, reduce=None)
    trusted = refinement.refined_label(margin, hyper["threshold"], alpha=1.0)
    return {"loss": mean(losses), "per_example": losses, "trusted": trusted}


def diffusion_dro(hyper: Hyper, inputs: Inputs) -> Outputs:
    """An image has all axes but the first; its error is one number."""
    images = {name: jnp.stack([inputs[f"{name}_expert"], inputs[f"{name}_sample"]], 1) for name in IMAGES}
    axes = images["noise"].ndim - 2
    policy, reference = (
        diffusion.denoising_error(images[f"{name}_noise"], images["noise"], axes=axes)
        for name in ("policy", "reference")
    )
    losses = diffusion.diffusion_dro(policy, reference, margin=hyper["margin"], reduce=None)
    named = {"policy": policy, "reference": reference}
    errors = {f"{k}_{side}_error": e[:, i] for k, e in named.items() for i, side in enumerate(("expert", "sample"))}
    return {"loss": mean(losses), "per_example": losses, "difference": scores.margin(policy - reference)} | errors


IMAGES = ("noise", "policy_noise", "reference_noise")


def rso_rejection_sampling(hyper: Hyper, inputs: Inputs) -> Outputs:
    keywords = {"beta": hyper["beta"], "num_samples": hyper["num_samples"]}
    found = rejection.rso_rejection_sampling(inputs["rewards"], inputs["uniforms"], **keywords)
    consumed = found.uniforms_consumed
    return {"loss": jnp.zeros(()), "accepted_indices": found.indices, "uniforms_consumed": consumed}


def mcts_backup(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Host code: NumPy arrays."""
    tree = {name: np.asarray(value) for name, value in inputs.items()}
    parents, values, visits, states = (tree[name] for name in ("parents", "values", "visits", "state_values"))
    gamma, lengths = hyper["gamma"], tree["lengths"]
    initial = trees.step_rewards(values, parents) + gamma * states
    priors = trees.step_priors(lengths * tree["mean_logprobs"], lengths, length_penalty=hyper["length_penalty"])
    found = trees.mcts_backup(parents, values, visits, states, tree["path"], gamma=gamma)
    after = {"V_after": found.state_values, "Q_after": found.q_values, "N_after": found.visits}
    before = {"initial_Q": initial, "priors": priors}
    before["puct_before"] = trees.puct(initial, priors, visits, parents, w_exp=hyper["w_exp"])
    return {"loss": found.state_values[0]} | before | after


EAGER: dict[str, Callable[[Hyper, Inputs], Outputs]] = {
    "ld_dpo": ld_dpo,
    "wpo": wpo,
    "cpl": cpl,
    "mcts_dpo": mcts_dpo,
    "sparsepo": sparsepo,
    "mapo_activation_mask": mapo_activation_mask,
    "spa_self_refinement": spa_self_refinement,
    "rso_rejection_sampling": rso_rejection_sampling,
}

ADAPTERS = {name: compiled(adapter) for name, adapter in EAGER.items()} | {
    "mcts_backup": mcts_backup,
    "diffusion_dro": diffusion_dro,  # fused, equal errors would differ in a digit, off the kink
}
