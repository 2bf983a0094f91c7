"""The weight of a question in the gradient of a loss, as a function of the share p of right answers."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import rlx
from experiments import claims, parts
from experiments.parts import Row
from rlx.types import Array

TABLE, BY = "weights", ("p", "method")
PAPER = "arXiv:2505.12366, Proposition 1 and section 4"
TOLERANCE = 1e-6
TAU = 10.0


class Kind(NamedTuple):
    """A loss of ``(logprobs, old_logprobs [K, 1], right [K])``, the weight that theory has, and what it compares.

    ``compares(ratio, logprobs, right)``: the sign and size with which each answer's *score* enters, ``[K]`` each for
    the ratio and the log-probability: the discriminative term is the sum of these times the scores.
    """

    loss: Callable[[Array, Array, Array], Array]
    theory: Callable[[float], float]
    law: str
    compares: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def clipped(logprobs: Array, old: Array, right: Array, *, scale: bool, high: float = 0.2) -> Array:
    """PPO's clip with advantages of the population: its standard deviation, or none."""
    advantages = rlx.grpo_advantage(right, scale=scale, ddof=0, epsilon=0.0)
    return rlx.ppo_clip_loss(logprobs, old, advantages, clip_high=high)


def means(right: np.ndarray) -> np.ndarray:
    """Weights ``[K]`` of mean over right minus mean over wrong."""
    return np.where(right > 0, 1 / right.sum(), -1 / (1 - right).sum())


def clipped_ratios(ratio: np.ndarray, logprobs: np.ndarray, right: np.ndarray, *, high: float = 0.2):
    """Right answers up to a ratio of 1 + high, wrong ones down to 0.8: beyond, the score is constant."""
    inside = np.where(right > 0, ratio <= 1 + high, ratio >= 0.8)
    return means(right) * inside, np.zeros_like(ratio)


def plain_ratios(ratio: np.ndarray, logprobs: np.ndarray, right: np.ndarray):
    """All ratios, right against wrong."""
    return means(right), np.zeros_like(ratio)


def hardest(ratio: np.ndarray, logprobs: np.ndarray, right: np.ndarray):
    """Log-probabilities: the mean of the right ones against a softmax of the wrong ones."""
    wrong = np.where(right > 0, 0, np.exp(logprobs / TAU))
    return np.zeros_like(ratio), np.where(right > 0, 1 / right.sum(), -wrong / wrong.sum())


def deviation(p: float) -> float:
    """Of a Bernoulli variable."""
    return float(np.sqrt(p * (1 - p)))


KINDS = {
    "GRPO": Kind(functools.partial(clipped, scale=True), deviation, "sqrt(p(1-p))", clipped_ratios),
    "DAPO": Kind(
        functools.partial(clipped, scale=True, high=0.28),
        deviation,
        "sqrt(p(1-p))",
        functools.partial(clipped_ratios, high=0.28),
    ),
    "Dr. GRPO": Kind(functools.partial(clipped, scale=False), lambda p: p * (1 - p), "p(1-p)", clipped_ratios),
    "DisCO-b": Kind(functools.partial(rlx.discob_lratio_loss, beta=0.0), lambda p: 1.0, "1", plain_ratios),
    "DisCO": Kind(functools.partial(rlx.disco_logl_loss, beta=0.0, tau=TAU), lambda p: 1.0, "1", hardest),
}


def get_config(size: str) -> ConfigDict:
    """Answers to a question, and how far the policy has moved from the one that sampled."""
    config = ConfigDict({"seeds": tuple(range(10)), "methods": tuple(KINDS), "answers": 64, "every": 4, "move": 0.3})
    if size == "full":
        config.update({"seeds": tuple(range(50)), "every": 2})
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "methods": ("GRPO", "DisCO"), "answers": 8, "every": 4})
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Every loss at every share of right answers but none and all."""
    shares = [k / config.answers for k in range(config.every, config.answers, config.every)]
    common = {"table": TABLE}
    return [
        {**common, "p": p, "method": m, "seed": seed} for p in shares for m in config.methods for seed in config.seeds
    ]


def policies(seeds: Sequence[int], p: float, config: ConfigDict) -> tuple[np.ndarray, np.ndarray]:
    """Logits of policies ``[S, K]`` near the uniform one, and which answers are right, ``[S, K]``."""
    logits, right = [], []
    for seed in seeds:
        rng = np.random.default_rng([seed, round(p * config.answers)])
        logits.append(config.move * rng.standard_normal(config.answers))
        right.append(rng.permutation(np.arange(config.answers) < round(p * config.answers)))
    return np.stack(logits), np.stack(right).astype(np.float64)


@functools.partial(jax.jit, static_argnames="method")
def gradients(logits: Array, right: Array, method: str) -> Array:
    """Gradients ``[S, K]`` in the logits; each of the K answers was sampled once from the uniform policy."""

    def loss(own: Array, right: Array) -> Array:
        logprobs = jax.nn.log_softmax(own)[:, None]
        return KINDS[method].loss(logprobs, jnp.full_like(logprobs, -jnp.log(own.size)), right)

    return jax.vmap(jax.grad(loss))(logits, right)


def term(logits: np.ndarray, right: np.ndarray, method: str) -> np.ndarray:
    """Gradient ``[K]`` of the discriminative term by hand: d pi_i / d z = pi_i (e_i - pi)."""
    policy = np.exp(logits - logits.max())
    policy /= policy.sum()
    ratio = policy * policy.size
    of_ratio, of_logprob = KINDS[method].compares(ratio, np.log(policy), right)
    weights = of_ratio * ratio + of_logprob
    return weights - weights.sum() * policy


def rows(cells: Sequence[Row], config: ConfigDict) -> list[Row]:
    """The weight of the discriminative term in the gradient, how far it is from theory, and what is left over."""
    p, method = cells[0]["p"], cells[0]["method"]
    logits, right = policies([cell["seed"] for cell in cells], p, config)
    with jax.enable_x64(True):
        found = -np.asarray(gradients(logits, right, method))
    measured = []
    for gradient, own, answers in zip(found, logits, right, strict=True):
        expected = term(own, answers, method)
        weight = float(gradient @ expected / (expected @ expected))
        left = float(np.linalg.norm(gradient - weight * expected) / np.linalg.norm(expected))
        theory = KINDS[method].theory(p)
        measured.append({"weight": weight, "theory": theory, "error": abs(weight - theory), "left": left})
    return measured


def worst(rows: Sequence[Row], method: str) -> list[Row]:
    """The largest deviations of a policy over all shares p."""
    own = [row for row in rows if row["method"] == method]
    seeds = sorted({row["seed"] for row in own})
    largest = lambda seed, key: max(row[key] for row in own if row["seed"] == seed)  # noqa: E731
    return [{"seed": seed, **{key: largest(seed, key) for key in ("error", "left")}} for seed in seeds]


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """The weight is that of theory, and the gradient is nothing but the weighted term."""
    found: list[parts.Tested] = []
    for method in config.methods:
        own = worst(rows, method)
        text = f"{method}: |weight - {KINDS[method].law}| over all p"
        found.append((claims.every(text, own, "error", {}, high=TOLERANCE), PAPER))
        text = f"{method}: what of the gradient is not the discriminative term"
        found.append((claims.every(text, own, "left", {}, high=TOLERANCE), PAPER))
    return found


def panels(rows: Sequence[Row]) -> list[parts.Panel]:
    """The weights over p."""
    own = [row for row in rows if row["table"] == TABLE]
    return [("weight of a question, by the share of right answers", own, BY, "weight")]


PART = parts.Part(
    get_config,
    cells,
    rows,
    tested,
    panels,
    {TABLE: parts.Table("Weight of the discriminative term", BY, ("weight", "theory", "error", "left"))},
    note="A question with 64 answers, of which a share p is right; each was sampled once from the uniform policy, so "
    "that expectations are exact; the policy has moved (logits of deviation 0.3), so that some ratios are clipped. The "
    "gradient in the logits is projected on that of the discriminative term, the mean score of right answers minus "
    "that of wrong ones, written out by hand: clipped ratios (GRPO, Dr. GRPO, DAPO), ratios (DisCO-b), "
    "log-probabilities with a softmax over the wrong ones (DisCO). *left*: norm of the rest, relative to the term. "
    "Population standard deviation, no epsilon, no KL term. DAPO's filter drops p = 0 and 1, where its weight is 0.",
    cell_keys=("seeds", "methods", "every"),
)
