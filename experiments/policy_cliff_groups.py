"""Two groups of users who disagree: one reward model for all, or one for each and the MaxMin policy."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import rlx
from experiments import claims, parts
from experiments.parts import Row
from rlx.types import Array

TABLE, BY = "groups", ("share", "method")
SINGLE, MIXED = "one reward model", "mean reward"
FITTED, SHARES, TRUE = "maxmin, em", "maxmin, em + shares", "maxmin, true"
WHOM = {"minority": "in the minority", "group": "mean of the two groups", "user": "mean of all users"}
PAPER = "arXiv:2402.08925: MaxMin lifts the minority (+33 % win rate, +16 % on average)"
INVARIANT = "MaxMin does not depend on how large the groups are"


def get_config(size: str) -> ConfigDict:
    """Actions, correlation, shares and comparisons of the specification."""
    config = ConfigDict(
        {
            "seeds": tuple(range(20)),
            "shares": (0.5, 0.8, 0.95),
            "actions": 20,
            "correlation": -0.6,
            "beta": 0.3,
            "users": 250,
            "comparisons": 20,
            "restarts": 16,
        }
    )
    if size == "full":
        config.seeds = tuple(range(100))
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "shares": (0.8,), "actions": 5, "users": 20, "restarts": 2})
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Every policy at every share of the majority."""
    methods = (SINGLE, MIXED, FITTED, SHARES, TRUE)
    common = {"table": TABLE}
    return [
        {**common, "share": share, "method": m, "seed": seed}
        for share in config.shares
        for m in methods
        for seed in config.seeds
    ]


def group_rewards(seed: int, config: ConfigDict) -> np.ndarray:
    """Rewards ``[2, K]`` of mean 0 and variance 1 over the actions, with exactly the correlation."""
    raw = np.random.default_rng([seed, 0]).standard_normal((2, config.actions))
    raw -= raw.mean(-1, keepdims=True)
    first = raw[0] / raw[0].std()
    rest = raw[1] - (raw[1] @ first) / config.actions * first
    c = config.correlation
    return np.stack([first, c * first + np.sqrt(1 - c * c) * rest / rest.std()])


def groups_of(share: float, config: ConfigDict) -> np.ndarray:
    """Group of each user, ``[U]``; the majority comes first."""
    return (np.arange(config.users) >= round(share * config.users)).astype(int)


def comparisons(seed: int, share: float, config: ConfigDict) -> np.ndarray:
    """What users preferred: actions ``[U, M, 2]``, chosen first; Bradley-Terry on the reward of the user's group."""
    rng, rewards = np.random.default_rng([seed, 1]), group_rewards(seed, config)[groups_of(share, config)]
    shape = config.users, config.comparisons
    first = rng.integers(0, config.actions, shape)
    second = (first + rng.integers(1, config.actions, shape)) % config.actions
    margin = np.take_along_axis(rewards, first, -1) - np.take_along_axis(rewards, second, -1)
    won = rng.random(shape) < 1 / (1 + np.exp(-margin))
    return np.stack([np.where(won, first, second), np.where(won, second, first)], -1)


@functools.partial(jax.jit, static_argnames=("actions", "groups", "restarts", "shares"))
def mixture(judged: Array, *, actions: int, groups: int, restarts: int, shares: bool):
    """Rewards of groups fitted to comparisons ``[S, U, M, 2]`` of all seeds, and the groups of the users."""
    one = functools.partial(rlx.maxmin_rlhf_mixture, groups=groups, restarts=restarts, shares=shares)
    return jax.lax.map(lambda own: one(jax.nn.one_hot(own, actions)), judged)


@functools.partial(jax.jit, static_argnames="beta")
def solve(rewards: Array, beta: float):
    """The MaxMin policies of rewards ``[S, G, K]``, each of mean 0, and a uniform reference; G = 1 is plain RLHF.

    Comparisons leave the level of a reward open: a group's reward is measured from its mean under the reference.
    """
    centred = rewards - rewards.mean(-1, keepdims=True)
    return rlx.maxmin_rlhf(centred, jnp.zeros((len(rewards), rewards.shape[-1])), beta=beta)


def rows(cells: Sequence[Row], config: ConfigDict) -> list[Row]:
    """Rewards of both groups under the policy, what it wins against that of the one reward model, and what EM found."""
    share, method = cells[0]["share"], cells[0]["method"]
    seeds = [cell["seed"] for cell in cells]
    true = np.stack([group_rewards(seed, config) for seed in seeds])
    judged = np.stack([comparisons(seed, share, config) for seed in seeds])
    options = {"actions": config.actions, "restarts": config.restarts}
    single = mixture(judged, groups=1, shares=False, actions=config.actions, restarts=1).weights
    mean = share * true[:, :1] + (1 - share) * true[:, 1:]
    learnt, extra = {SINGLE: single, MIXED: mean, TRUE: true}.get(method), [{} for _ in cells]
    if learnt is None:
        found = mixture(judged, groups=2, shares=method == SHARES, **options)
        agreement = (np.asarray(found.groups) == groups_of(share, config)).mean(-1)
        learnt = found.weights
        states = zip(agreement, np.asarray(found.converged), strict=True)
        extra = [{"found": float(max(a, 1 - a)), "converged": float(c)} for a, c in states]
    baseline, policy = (
        np.exp(np.asarray(solve(jnp.asarray(reward, jnp.float32), config.beta).policy_logps))
        for reward in (single, learnt)
    )
    return [{**measures(*own, share), **more} for *own, more in zip(policy, baseline, true, extra, strict=True)]


def measures(policy: np.ndarray, baseline: np.ndarray, rewards: np.ndarray, share: float) -> Row:
    """Policies ``[K]``, rewards ``[2, K]``: expected rewards, win rates against the baseline, KL to uniform."""
    expected = rewards @ policy
    wins = 1 / (1 + np.exp(rewards[:, None, :] - rewards[:, :, None]))
    rate = np.einsum("i,gij,j->g", policy, wins, baseline)
    kl = float((policy * np.log(np.maximum(policy, 1e-300) * len(policy))).sum())
    return {
        "majority": float(expected[0]),
        "minority": float(expected[1]),
        "worst": float(expected.min()),
        "minority_win_rate": float(rate[1]),
        "group_win_rate": float(rate.mean()),
        "user_win_rate": float(share * rate[0] + (1 - share) * rate[1]),
        "kl": kl,
    }


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """The worst group gains, the more the smaller it is; the groups are found."""
    found: list[parts.Tested] = []
    for share in config.shares:
        title, one = f"share {share:g}", {"table": TABLE, "share": share, "method": SINGLE}
        for method in (TRUE, SHARES, FITTED):
            ours = one | {"method": method}
            claim = claims.greater if share >= 0.8 else claims.not_less
            sign = ">" if share >= 0.8 else ">="
            text = f"{title}: reward of the worst group, {method} {sign} {SINGLE}"
            found.append((claim(text, rows, "worst", ours, one), PAPER))
    for share in config.shares:
        for method in (FITTED, SHARES):
            text = f"share {share:g}: users whose group is found, {method}"
            cell = {"table": TABLE, "share": share, "method": method}
            found.append((claims.mean_within(text, rows, "found", cell, low=0.9), "hard EM recovers the groups"))
    for method in (TRUE, SHARES, FITTED):
        same = [{"table": TABLE, "share": share, "method": method} for share in config.shares]
        spread = spreads(rows, "worst", same)
        text = f"{method}: reward of the worst group between the shares (largest difference of a seed, mean)"
        found.append((claims.mean_within(text, spread, "spread", {}, high=0.02), INVARIANT))
    largest = max(config.shares)
    for method in (TRUE, SHARES):
        text = f"share {largest:g}: win rate of {method} over {SINGLE}"
        cell = {"table": TABLE, "share": largest, "method": method}
        for name, of in WHOM.items():
            found.append((claims.mean_within(f"{text}, {of}", rows, f"{name}_win_rate", cell, low=0.5), PAPER))
    return found


def spreads(rows: Sequence[Row], metric: str, cells: Sequence[Row]) -> list[Row]:
    """Largest difference of a metric between cells, of every seed."""
    columns = [claims.paired(rows, metric, cells[0], cell)[1] for cell in cells]
    return [{"seed": i, "spread": max(own) - min(own)} for i, own in enumerate(zip(*columns, strict=True))]


def panels(rows: Sequence[Row]) -> list[parts.Panel]:
    """Both groups' rewards over the share of the majority."""
    own = [row for row in rows if row["table"] == TABLE]
    return [
        (f"the {group}, by the share of the majority", [{**row, "reward": row[group]} for row in own], BY, "reward")
        for group in ("minority", "majority")
    ]


PART = parts.Part(
    get_config,
    cells,
    rows,
    tested,
    panels,
    {
        TABLE: parts.Table(
            "Rewards of the groups by the share of the majority",
            BY,
            ("majority", "minority", "worst", *(f"{of}_win_rate" for of in WHOM), "kl", "found", "converged"),
        ),
    },
    note="Two groups whose rewards of 20 actions have correlation -0.6, 250 users with 20 comparisons each, beta 0.3, "
    "uniform reference. *one reward model*: Bradley-Terry on all comparisons; *mean reward*: the true one, weighted by "
    "the shares; *maxmin*: with rewards found by hard EM over users, as the paper has it, by EM that knows of the size "
    "of groups (ours), or the true ones. A group's reward is measured from its mean under the reference, which "
    "comparisons do not tell. *win rates* are against the policy of the one reward model; *found*: share of the users "
    "whose group EM found; *converged*: share of its runs that did.",
    cell_keys=("seeds", "shares"),
)
