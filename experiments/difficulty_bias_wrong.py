"""Groups of eight answers, all wrong to all right: what GRPO and NGRPO learn from each."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

import rlx
from experiments import claims, parts
from experiments.parts import Row
from rlx.types import Array

TABLE, BY = "groups", ("right", "method")
PAPER = "arXiv:2509.18851: groups without a right answer teach something"
ADVANTAGES = {
    "GRPO": functools.partial(rlx.grpo_advantage, epsilon=1e-9),
    "NGRPO": functools.partial(rlx.ngrpo_advantage, epsilon=1e-9),
}
CLIP = {"clip_low": 0.16, "clip_high": 0.24}


def get_config(size: str) -> ConfigDict:
    """The group of the authors, out of more answers than it has."""
    config = ConfigDict({"seeds": tuple(range(10)), "group": 8, "answers": 64})
    if size == "full":
        config.seeds = tuple(range(50))
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "group": 2, "answers": 8})
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Both advantages for every number of right answers."""
    numbers, common = range(config.group + 1), {"table": TABLE}
    return [
        {**common, "right": right, "method": m, "seed": seed}
        for right in numbers
        for m in ADVANTAGES
        for seed in config.seeds
    ]


@functools.partial(jax.jit, static_argnames="method")
def gradients(logits: Array, chosen: Array, rewards: Array, method: str) -> tuple[Array, Array]:
    """Gradients ``[S, K]`` in the logits on the policy that sampled ``chosen [S, G]``, and advantages ``[S, G]``."""
    advantages = ADVANTAGES[method](rewards)

    def loss(own: Array, chosen: Array, advantages: Array) -> Array:
        logprobs = jax.nn.log_softmax(own)[chosen][:, None]
        return rlx.ppo_clip_loss(logprobs, logprobs, advantages, **CLIP)

    return jax.vmap(jax.grad(loss))(logits, chosen, advantages), advantages[..., 0]


def rows(cells: Sequence[Row], config: ConfigDict) -> list[Row]:
    """Norm of the gradient, and the advantages of a wrong and of a right answer where there is one."""
    right, drawn = cells[0]["right"], [np.random.default_rng(cell["seed"]) for cell in cells]
    logits = np.stack([rng.standard_normal(config.answers) for rng in drawn])
    chosen = np.stack([rng.choice(config.answers, config.group, replace=False) for rng in drawn])
    rewards = np.broadcast_to((np.arange(config.group) < right).astype(np.float64), chosen.shape)
    with jax.enable_x64(True):
        gradient, advantages = map(np.asarray, gradients(logits, chosen, rewards, cells[0]["method"]))
    measured = []
    for norm, own in zip(np.linalg.norm(gradient, axis=-1), advantages, strict=True):
        ends = {"wrong": float(own[-1]) if right < config.group else None, "right answer": float(own[0])}
        measured.append({"norm": float(norm), **ends} if right else {"norm": float(norm), "wrong": ends["wrong"]})
    return measured


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """All wrong: nothing under GRPO, a push away under NGRPO; all right: nothing under both."""
    none = {method: {"table": TABLE, "right": 0, "method": method} for method in ADVANTAGES}
    every = {method: {"table": TABLE, "right": config.group, "method": method} for method in ADVANTAGES}
    text = "gradient of a group that is all wrong"
    found = [
        (claims.every(f"GRPO: {text}", rows, "norm", none["GRPO"], high=0.0), PAPER),
        (claims.every(f"NGRPO: {text}", rows, "norm", none["NGRPO"], low=1e-3), PAPER),
    ]
    # of G zeros and a one: mean 1/(G+1), unbiased variance 1/(G+1)
    expected = -1 / np.sqrt(config.group + 1)
    bounds = {"low": expected - 1e-6, "high": expected + 1e-6}
    text = f"NGRPO: advantage in a group that is all wrong, {expected:.4f} to 1e-6"
    found.append((claims.every(text, rows, "wrong", none["NGRPO"], **bounds), PAPER))
    text = "gradient of a group that is all right"
    found += [(claims.every(f"{m}: {text}", rows, "norm", cell, high=0.0), PAPER) for m, cell in every.items()]
    return found


def panels(rows: Sequence[Row]) -> list[parts.Panel]:
    """Gradients by the number of right answers."""
    own = [row for row in rows if row["table"] == TABLE]
    return [("norm of the gradient, by right answers in the group", own, BY, "norm")]


PART = parts.Part(
    get_config,
    cells,
    rows,
    tested,
    panels,
    {TABLE: parts.Table("Groups by their number of right answers", BY, ("norm", "wrong", "right answer"))},
    note="Groups of 8 different answers out of 64, on the policy that sampled them, the deviation unbiased as both "
    "papers' code has it. NGRPO adds one virtual right answer to the statistics and clips at 0.84 and 1.24. *norm*: of "
    "the gradient in the logits; *wrong*, *right answer*: the advantage of one.",
)
