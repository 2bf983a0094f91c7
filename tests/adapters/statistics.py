"""Adapters: statistics of next-token distributions: entropies, covariances, and what they predict."""

import jax
import jax.numpy as jnp

from rlx import numerics, ops
from rlx.policy import exact, law
from tests.adapters.policy import Hyper, Inputs, Outputs, mask
from tests.adapters.preference import compiled


def token_entropy(hyper: Hyper, inputs: Inputs) -> Outputs:
    logits, options = inputs["logits"], {"temperature": hyper["temperature"]}
    entropy = ops.token_entropy(logits, **options)
    logprobs = ops.token_statistics(logits, inputs["tokens"], **options).logp
    return {"entropy": entropy, "logprobs": logprobs, "mean_entropy": numerics.mean(entropy, where=mask(inputs))}


def renyi_entropy(hyper: Hyper, inputs: Inputs) -> Outputs:
    entropy = ops.renyi_entropy(inputs["logits"], alpha=float(hyper["alpha"]))
    return {"entropy": entropy, "mean_entropy": numerics.mean(entropy, where=mask(inputs))}


def tsallis_entropy(hyper: Hyper, inputs: Inputs) -> Outputs:
    entropy = ops.tsallis_entropy(inputs["logits"], q=float(hyper["q"]))
    return {"entropy": entropy, "mean_entropy": numerics.mean(entropy, where=mask(inputs))}


def tempered_entropy(hyper: Hyper, inputs: Inputs) -> Outputs:
    out = ops.tempered_entropy(inputs["logits"], inputs["tokens"], temperature=hyper["temperature"])
    return {
        "tempered_entropy": out.entropy,
        "cross_entropy_q_p": out.cross_entropy,
        "d_entropy_d_tau": out.slope,
        "importance_weight": out.weight,
        "mean_entropy": numerics.mean(out.entropy, where=mask(inputs)),
    }


def top_p_entropy(hyper: Hyper, inputs: Inputs) -> Outputs:
    logits, top_p = inputs["logits"], hyper["top_p"]
    rules = {"standard": "crossing", "siren": "strict", "siren_util": "at_least_one"}
    outputs = {"full_entropy": ops.token_entropy(logits)}
    for name, rule in rules.items():
        outputs[f"keep_{name}"] = ops.nucleus(logits, top_p=top_p, rule=rule)
        outputs[f"entropy_{name}"] = entropy = ops.top_p_entropy(logits, top_p=top_p, rule=rule)
        outputs[f"mean_{name}"] = numerics.mean(entropy, where=mask(inputs))
    return outputs


def top_k_entropy(hyper: Hyper, inputs: Inputs) -> Outputs:
    logits, top_k = inputs["logits"], int(hyper["top_k"])
    renormalised = ops.top_k_entropy(logits, top_k=top_k)
    return {
        "entropy_renormalised": renormalised,
        "entropy_tail_bucket": ops.top_k_entropy(logits, top_k=top_k, tail=True),
        "mean_renormalised": numerics.mean(renormalised, where=mask(inputs)),
    }


def window_entropy(hyper: Hyper, inputs: Inputs) -> Outputs:
    entropy, where, window = inputs["entropy"], mask(inputs), int(hyper["window_size"])
    forward = ops.window_entropy(entropy, window=window, where=where)
    thresholds = ops.window_threshold(entropy, window=window, percentile=hyper["percentile"], where=where)
    threshold = numerics.quantile(thresholds, 0.5)
    counts = ops.window_counts(entropy, inputs["trigger"] > 0, threshold, window=window, where=where)
    return {
        "forward_window_mean": forward.mean,
        "forward_window_valid": forward.complete,
        "row_percentile_threshold": thresholds,
        "batch_threshold": threshold,
        "high_window_token_count": counts.high,
        "low_window_token_count": counts.low,
        "soft_cost": counts.excess,
        "trailing_window_mean": ops.trailing_entropy(entropy, window=window, where=where),
        "sum": forward.mean.sum(),
    }


def token_covariance(hyper: Hyper, inputs: Inputs) -> Outputs:
    arrays, where = (inputs["logprobs"], inputs["advantages"]), mask(inputs)
    batch = ops.batch_covariance(*arrays, where=where)
    return {
        "mean_logprob": numerics.mean(arrays[0], where=where),
        "mean_advantage": numerics.mean(jnp.broadcast_to(arrays[1], where.shape), where=where),
        "token_covariance": ops.token_covariance(*arrays, where=where),
        "batch_covariance": batch.covariance,
        "correlation": batch.correlation,
        "variance_logprob": batch.variance_logprobs,
        "variance_advantage": batch.variance_advantages,
    }


def vocabulary_covariance(hyper: Hyper, inputs: Inputs) -> Outputs:
    """The covariance of log pi and pi A is that of the advantages centred under the policy."""
    logits, values, eta = inputs["logits"], inputs["action_advantages"], hyper["learning_rate"]
    plain = ops.policy_gradient_step(logits, values)
    steps = {"npg": eta * values, "pg": eta * plain, "delta_logits": inputs["delta_logits"]}
    covariance = ops.vocabulary_covariance(logits, values)
    entropy = ops.token_entropy(logits)
    return {
        "entropy": entropy,
        "cov_logp_advantage": covariance,
        "cov_logp_p_advantage": ops.vocabulary_covariance(logits, plain),
        "mean_cov_logp_advantage": numerics.mean(covariance, where=mask(inputs)),
        **{f"predicted_change_{name}": -ops.vocabulary_covariance(logits, step) for name, step in steps.items()},
        **{f"exact_change_{name}": ops.token_entropy(logits + step) - entropy for name, step in steps.items()},
    }


def entropy_discriminator(hyper: Hyper, inputs: Inputs) -> Outputs:
    logits, tokens, epsilon = inputs["logits"], inputs["tokens"], hyper["epsilon"]
    found, everything = ops.entropy_discriminator(logits, tokens), ops.discriminators(logits)
    entropy = ops.token_entropy(logits)
    chosen = jax.nn.one_hot(tokens, logits.shape[-1], dtype=logits.dtype)
    alpha = epsilon * inputs["ratio"] * inputs["advantages"]
    step = alpha[..., None] * (chosen - ops.distribution(logits).p)
    return {
        "entropy": entropy,
        "discriminator": found.sampled,
        "discriminator_all": everything,
        "expected_discriminator": found.expected,
        "centered_discriminator": found.centred,
        "predicted_single_logit": -epsilon * found.sampled,
        "exact_single_logit": ops.token_entropy(logits + epsilon * chosen) - entropy,
        "predicted_grpo": -alpha * found.centred,
        "exact_grpo": ops.token_entropy(logits + step) - entropy,
        "sum_discriminator_over_vocab": everything.sum(-1),
        "mean": numerics.mean(found.centred, where=mask(inputs)),
    }


def entropy_performance_law(hyper: Hyper, inputs: Inputs) -> Outputs:
    fit = law.entropy_performance_law(inputs["entropy"], inputs["performance"])
    named = {name: getattr(fit, name) for name in ("a", "b", "predicted", "residual_sum_squares", "r_squared")}
    return named | {"ceiling_at_zero_entropy": fit.ceiling}


def soft_policy_gradient(hyper: Hyper, inputs: Inputs) -> Outputs:
    logits, rewards, beta = inputs["logits"], inputs["action_rewards"], hyper["entropy_coeff"]
    tokens, options = inputs["tokens"], {"q": 1.0, "beta": beta}
    optimum = exact.tsallis_optimum(rewards, **options)
    logprobs = ops.token_statistics(logits, tokens).logp
    return {
        "loss": exact.tsallis_policy_gradient(logits, rewards, **options),
        "soft_value": -exact.tsallis_policy_gradient(logits, rewards, **options, reduce=None),
        "optimal_policy": optimum,
        "optimal_soft_value": -exact.tsallis_policy_gradient(jnp.log(optimum), rewards, **options, reduce=None),
        "sample_surrogate_loss": -jnp.mean(exact.soft_advantage(logits, tokens, rewards, beta=beta) * logprobs),
    }


def tsallis_policy_gradient(hyper: Hyper, inputs: Inputs) -> Outputs:
    logits, rewards = inputs["logits"], inputs["action_rewards"]
    options = {"q": float(hyper["q"]), "beta": hyper["entropy_coeff"]}
    return {
        "loss": exact.tsallis_policy_gradient(logits, rewards, **options),
        "tsallis_entropy": ops.tsallis_entropy(logits, q=options["q"]),
        "objective": -exact.tsallis_policy_gradient(logits, rewards, **options, reduce=None),
        "optimal_policy": exact.tsallis_optimum(rewards, **options),
    }


EAGER = {
    "token_entropy": token_entropy,
    "renyi_entropy": renyi_entropy,
    "tsallis_entropy": tsallis_entropy,
    "tempered_entropy": tempered_entropy,
    "top_p_entropy": top_p_entropy,
    "top_k_entropy": top_k_entropy,
    "window_entropy": window_entropy,
    "token_covariance": token_covariance,
    "vocabulary_covariance": vocabulary_covariance,
    "entropy_discriminator": entropy_discriminator,
    "soft_policy_gradient": soft_policy_gradient,
    "tsallis_policy_gradient": tsallis_policy_gradient,
}
ADAPTERS = {name: compiled(adapter) for name, adapter in EAGER.items()}
ADAPTERS["entropy_performance_law"] = entropy_performance_law
GRADIENT_OF = {
    "token_entropy": "mean_entropy",
    "renyi_entropy": "mean_entropy",
    "tsallis_entropy": "mean_entropy",
    "tempered_entropy": "mean_entropy",
    "top_p_entropy": "mean_standard",
    "top_k_entropy": "mean_renormalised",
    "window_entropy": "sum",
    "token_covariance": "batch_covariance",
    "vocabulary_covariance": "mean_cov_logp_advantage",
    "entropy_discriminator": "mean",
}

_DIFFERENCE = (1e-9, 1e-13, "the reference subtracts two numbers of size |z|, or entropies: it is right to 1e-16 |z|")
_GUARD = (1e-9, 1e-10, "the reference adds 1e-12 to the mass and inside the logarithm")
TOLERANCES = {
    "token_entropy": _DIFFERENCE,
    "renyi_entropy": _DIFFERENCE,
    "tsallis_entropy": _DIFFERENCE,
    "tempered_entropy": _DIFFERENCE,
    "vocabulary_covariance": _DIFFERENCE,
    "entropy_discriminator": _DIFFERENCE,
    "window_entropy": (1e-9, 1e-14, "means are summed in another order: rounding stays where a window equals tau"),
    "token_covariance": (1e-9, 1e-14, "covariances around 0 are rounding errors of the means"),
    "top_p_entropy": _DIFFERENCE,
    "top_p_entropy/entropy_siren": _GUARD,
    "top_p_entropy/mean_siren": _GUARD,
    "top_k_entropy": (1e-9, 1e-12, "the reference takes the tail as 1 - sum, and its logarithm above 1e-12"),
    "entropy_performance_law": (1e-8, 1e-14, "the file asks for 1e-8; residuals of an exact fit are rounding errors"),
    "soft_policy_gradient": (1e-9, 1e-13, "rewards and beta log pi cancel in a saturated row"),
    "tsallis_policy_gradient": (1e-9, 1e-13, "rewards and beta S cancel in a saturated row"),
}
