"""Adapters of Nash learning: pairs are stacked, opponents become an axis, tabular policies are logits."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlx.aggregate import mean, units
from rlx.game import multiplayer, policy_gradient, self_play, tabular, win_rate
from rlx.preference import links, scores
from rlx.types import Array
from tests.adapters.preference import Hyper, Inputs, Outputs, compiled, losses, rewards, stack


def mnpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The official code reads as many opponents as ``max_history_t`` says, and no weights at all as equal ones."""
    policy, reference = stack(inputs, "policy_{}_logps"), stack(inputs, "reference_{}_logps")
    history = stack(inputs, "history_{}_logps") if "history_chosen_logps" in inputs else policy[None, :0]
    opponents = jnp.moveaxis(history.reshape(len(history), *policy.shape), 0, 1)[:, : hyper["max_history_t"]]
    keywords = {"eta": hyper["eta"], "ratio": hyper["ratio"], "weights": hyper.get("weights") or None}
    arrays = policy, reference, opponents
    reported = rewards(hyper["beta"] * jax.lax.stop_gradient(scores.log_ratio(policy, reference)))
    return losses(lambda reduce: multiplayer.mnpo(*arrays, **keywords, reduce=reduce)) | reported


def inpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = [stack(inputs, name) for name in ("policy_{}_logps", "reference_{}_logps", "previous_{}_logps")]
    arrays[2] = arrays[2][:, None]
    keywords = {"eta": hyper["eta"], "tau": hyper["tau"]}
    return losses(lambda reduce: multiplayer.inpo(*arrays, **keywords, reduce=reduce))


def onpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    policy, auxiliary = stack(inputs, "policy_{}_logps"), stack(inputs, "auxiliary_{}_logps")
    result = losses(lambda reduce: multiplayer.onpo(policy, auxiliary[:, None], eta=hyper["eta"], reduce=reduce))
    return result | {"g": scores.margin(scores.log_ratio(policy, auxiliary))}


def onpo_tabular(hyper: Hyper, inputs: Inputs) -> Outputs:
    play = functools.partial(tabular.onpo_tabular, inputs["initial_thetas"], inputs["preference"])
    optimistic, plain = (play(eta=hyper["eta"], iterations=hyper["iterations"], optimistic=x) for x in (True, False))
    found = {"policies": optimistic.policies, "duality_gaps": optimistic.duality_gaps}
    return found | {"omd_policies": plain.policies, "omd_duality_gaps": plain.duality_gaps}


def sppo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """``sppo_single`` gives the rejected response what the chosen one leaves."""
    policy, reference = stack(inputs, "policy_{}_logps"), stack(inputs, "reference_{}_logps")
    if hyper["loss_type"] == "sppo_single":
        won = jnp.stack([inputs["chosen_probs"], 1 - inputs["chosen_probs"]], -1)
    else:
        won = jnp.stack([inputs["chosen_probs_win"], inputs["chosen_probs_lose"]], -1)
    return losses(lambda reduce: self_play.sppo(policy, reference, won, beta=hyper["beta"], reduce=reduce))


def gpo_general_preference(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays = [stack(inputs, name) for name in ("policy_{}_logps", "reference_{}_logps", "{}_scores")]
    return losses(
        lambda reduce: self_play.gpo_general_preference(*arrays, beta=hyper["beta"], reduce=reduce),
    )


def descend(hyper: Hyper, inputs: Inputs, loss: Callable[[Array], Array], start: Array | None = None) -> Outputs:
    """The loss, the logits after a step of gradient descent on it, and the gap of the policy there."""
    thetas = inputs["thetas"] if start is None else start
    value, gradient = jax.value_and_grad(loss)(thetas)
    following = thetas - hyper["learning_rate"] * gradient
    reference, options = inputs["reference_thetas"], {"beta": hyper["beta"]}
    gap = win_rate.duality_gap(inputs["preference"], following, reference, **options)
    return {"loss": value, "thetas_next": following, "duality_gap_after_step": gap}


def exact(method: Callable[..., Array], *, mixed: bool = False) -> Callable[[Hyper, Inputs], Outputs]:
    """Adapter of a loss over all actions; ``mixed``: the opponent leans on the reference by lr_true * beta."""

    def adapter(hyper: Hyper, inputs: Inputs) -> Outputs:
        arrays, keywords = (inputs["reference_thetas"], inputs["preference"]), {"beta": hyper["beta"]}
        if mixed:
            keywords["mixture_coef"] = 2 * hyper["learning_rate"] / inputs["thetas"].size
        return descend(hyper, inputs, lambda thetas: method(thetas, *arrays, **keywords))

    return adapter


def egpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Loss and gradient are those of the second step; the first one is a constant of it."""

    def loss(thetas: Array, opponent: Array) -> Array:
        won = win_rate.against(inputs["preference"], opponent)
        return self_play.egpo(thetas, inputs["reference_thetas"], won, beta=hyper["beta"])

    start = jax.lax.stop_gradient(inputs["thetas"])
    half = descend(hyper, inputs, lambda thetas: loss(thetas, start), start)["thetas_next"]
    return descend(hyper, inputs, lambda thetas: loss(thetas, half)) | {"thetas_half": half}


def egpo_llm(hyper: Hyper, inputs: Inputs) -> Outputs:
    """Chunks are examples of their own."""
    policy, reference = (jnp.swapaxes(inputs[name], 1, 2) for name in ("logps", "reference_logps"))
    arrays, keywords = (policy, reference, inputs["preferences"]), {"beta": hyper["beta"], "self_pairs": False}
    drift = jnp.abs(scores.log_ratio(policy, reference).sum(-1)).mean() / 2
    return {"loss": self_play.egpo(*arrays, **keywords), "kl_statistic": drift}


def nash_md(hyper: Hyper, inputs: Inputs) -> Outputs:
    logprobs, reference, probability = (inputs[name] for name in ("logprobs", "reference_logprobs", "probability"))
    arrays = logprobs[:, None], reference[:, None], probability[:, None]
    reported = {"score": (probability - 0.5) * logprobs.sum(-1), "kl_log": (logprobs - reference).sum(-1)}
    return {"loss": policy_gradient.nash_md(*arrays, beta=hyper["beta"])} | reported


def xpo(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The library's loss types are links here: its IPO does not scale the margin."""
    policy, reference = (
        jnp.stack([inputs[name].sum(-1) for name in names], -1)
        for names in (
            ("model_logprobs", "model_logprobs_reference_data"),
            ("reference_logprobs_model_data", "reference_logprobs_reference_data"),
        )
    )
    beta, alpha = hyper["beta"], hyper["alpha"]
    unscaled = links.squared(1 / (2 * beta)) if hyper["loss_type"] == "ipo" else None
    link = links.logistic if unscaled is None else lambda z: unscaled(z / beta)
    label = inputs["chosen_is_model"].astype(policy.dtype)
    keywords = {"beta": beta, "link": link}
    per_example, where = policy_gradient.xpo(policy, reference, label, alpha=alpha, **keywords, reduce=units)
    preference = policy_gradient.xpo(policy, reference, label, alpha=0.0, **keywords, reduce=None)
    return {"loss": mean(per_example, where), "dpo_losses": preference, "xpo_losses": alpha * policy[:, 1]}


def spo_minimaximalist(hyper: Hyper, inputs: Inputs) -> Outputs:
    plain, signed = (win_rate.spo_minimaximalist(inputs["preference"], signed=signed) for signed in (False, True))
    return {"rewards": plain, "signed_rewards": signed, "centred": plain - plain.mean(-1, keepdims=True)}


EAGER = {
    "mnpo": mnpo,
    "inpo": inpo,
    "onpo": onpo,
    "onpo_tabular": onpo_tabular,
    "sppo": sppo,
    "gpo_general_preference": gpo_general_preference,
    "online_ipo_omd": exact(self_play.online_ipo_omd),
    "online_ipo": exact(self_play.online_ipo),
    "nash_md_regression": exact(self_play.online_ipo_omd, mixed=True),
    "nash_md_pg_tabular": exact(policy_gradient.nash_md_pg_tabular, mixed=True),
    "egpo": egpo,
    "egpo_llm": egpo_llm,
    "nash_md": nash_md,
    "xpo": xpo,
    "spo_minimaximalist": spo_minimaximalist,
}
ADAPTERS = {name: compiled(adapter) for name, adapter in EAGER.items()}

_VALUES = (1e-9, 1e-14, "the reference subtracts two values of the game, whose rounding stays however small the gap is")
_EXACT = ("online_ipo_omd", "online_ipo", "nash_md_regression", "nash_md_pg_tabular", "egpo")
TOLERANCES = {f"{_name}/duality_gap_after_step": _VALUES for _name in _EXACT}
