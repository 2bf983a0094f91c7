r"""Group-relative REINFORCE on stale samples (arXiv:2509.24203): is it the importance weight or the clip that helps?

The paper trains Qwen2.5-3B on GSM8K with a sampler that is brought up to date every 20 steps. Here the policy is a
table of logits, one row per context, the sampler is up to date every 1, 20 or 60 steps, and rewards are exact. Problem,
number of steps and learning rate are ours.

  python -m experiments.off_policy_reinforce [--full] [--smoke] [--part=tabular] [--workdir=DIR]

  (nothing)       10 seeds of 200 contexts with 64 actions, 600 steps; a minute on 2 cores
  --full          50 seeds; also 200 and 1800 steps, with the learning rate that reaches the same on fresh samples
  --smoke         seconds, without a verdict
  --part=tabular  the only part there is

writes metrics.jsonl (a row per seed and cell), table.md, table.csv and plot.png; a second call computes only the rows
that are missing. The learning rate was chosen on seeds from 1000 on, so that learning from fresh samples ends at a
reward of about 0.75, as in the specification's prototype; it is the same for all methods.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import rlx
from experiments import claims, parts
from experiments.parts import Row
from rlx.report.intervals import paired_interval
from rlx.types import Array

GRPO, NARROW, WIDE, VANILLA = "grpo, clip 0.2/0.2", "rec, 0.2/0.2", "rec, 0.6/2.0", "reinforce"
BY, METRICS = ("steps", "learning_rate", "stale", "method"), ("final_reward", "peak_reward", "first_update")
METHODS: dict[str, Callable[..., Array]] = {
    GRPO: rlx.ppo_clip_loss,
    NARROW: rlx.rec_one_side_loss,
    WIDE: functools.partial(rlx.rec_one_side_loss, clip_low=0.6, clip_high=2.0),
    VANILLA: lambda logprobs, old, advantages, **options: rlx.gpg_loss(logprobs, advantages, **options),
}
"""REC without importance weights; GRPO is REC with them, at the same clip."""
ON_POLICY = "theory: on fresh samples the ratio is 1 and all four have the gradient of REINFORCE"
CLIP = "arXiv:2509.24203: the clip, not the importance weight, makes the difference"
FASTER = "arXiv:2509.24203: a wider clip learns faster from stale samples (numbers not read)"


def get_config(size: str) -> ConfigDict:
    """Sizes of the specification; steps and learning rate are ours."""
    config = ConfigDict(
        {
            "seeds": tuple(range(50 if size == "full" else 10)),
            "staleness": (1, 20, 60),
            "methods": tuple(METHODS),
            "problem": {"contexts": 200, "actions": 64, "group": 32},
            "settings": ((600, 0.137),),
            "points": 41,
        }
    )
    if size == "full":
        config.settings = ((600, 0.137), (200, 0.405), (1800, 0.0465))
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "staleness": (1, 5), "methods": (GRPO, WIDE), "points": 3})
        config.settings = ((10, 0.5),)
        config.problem.update({"contexts": 5, "actions": 4, "group": 8})
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Every method at every staleness; a setting is the number of steps and the learning rate that goes with it."""
    return [
        {"table": "reward", "steps": steps, "learning_rate": rate, "stale": stale, "method": method, "seed": seed}
        for steps, rate in config.settings
        for stale in config.staleness
        for method in config.methods
        for seed in config.seeds
    ]


def draw(seed: int, contexts: int, actions: int) -> np.ndarray:
    """Which actions are right, ``[contexts, actions]``: one to three in every context."""
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(actions), (contexts, 1)), axis=1)
    return order < rng.integers(1, 4, (contexts, 1))


def sample(key: Array, logits: Array, count: int) -> Array:
    """Actions ``[contexts, count]`` of a softmax policy, by the inverse of its distribution function."""
    edges = jnp.cumsum(jax.nn.softmax(logits), -1)[:, None, :-1]
    points = jax.random.uniform(key, (len(logits), count, 1))
    return (points > edges).sum(-1)


def gradient(method: str, logits: Array, sampler: Array, taken: Array, right: Array) -> Array:
    """Gradient of the method's loss, summed over contexts, for samples ``taken`` of the sampler."""
    rewards = jnp.take_along_axis(right, taken, -1).astype(jnp.float32)
    advantages = rlx.grpo_advantage(rewards, scale=False)

    def logprobs(table: Array) -> Array:
        return jnp.take_along_axis(jax.nn.log_softmax(table), taken, -1)[..., None]

    def loss(table: Array) -> Array:
        return METHODS[method](logprobs(table), logprobs(sampler), advantages, reduce=rlx.aggregate.token_mean)

    return len(logits) * jax.grad(loss)(logits)


@functools.partial(jax.jit, static_argnames=("method", "group", "steps", "points"))
def learn(
    keys: Array, right: Array, stale: Array, learning_rate: Array, *, method: str, group: int, steps: int, points: int
) -> tuple[Array, Array]:
    """Expected reward over the steps ``[S, points]``, and how far the first update is from GRPO's, ``[S]``."""

    def one(key: Array, right: Array) -> tuple[Array, Array]:
        def reward(logits: Array) -> Array:
            return jnp.where(right, jax.nn.softmax(logits), 0).sum(-1).mean()

        def step(carry: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
            logits, sampler = carry
            sampler = jnp.where(i % stale == 0, logits, sampler)
            taken = sample(jax.random.fold_in(key, i), sampler, group)
            return (logits - learning_rate * gradient(method, logits, sampler, taken, right), sampler), None

        def stretch(carry: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], Array]:
            carry, _ = jax.lax.scan(step, carry, start + jnp.arange(steps // (points - 1)))
            return carry, reward(carry[0])

        logits = jax.lax.optimization_barrier(jnp.zeros(right.shape))  # XLA would compute the first step to compile
        taken = sample(jax.random.fold_in(key, 0), logits, group)
        own, grpo = (gradient(name, logits, logits, taken, right) for name in (method, GRPO))
        starts = jnp.arange(points - 1) * (steps // (points - 1))
        _, curve = jax.lax.scan(stretch, (logits, logits), starts)
        return jnp.append(reward(logits), curve), learning_rate * jnp.abs(own - grpo).max()

    return jax.vmap(one)(keys, right)


def rows(cells: Sequence[Row], config: ConfigDict) -> list[Row]:
    """Reward at the end, its highest, and how far the first update is from that of GRPO."""
    first, problem = cells[0], config.problem
    keys = jnp.stack([jax.random.key(cell["seed"]) for cell in cells])
    right = jnp.stack([draw(cell["seed"], problem.contexts, problem.actions) for cell in cells])
    options = {"group": problem.group, "steps": first["steps"], "points": config.points}
    numbers = jnp.asarray(first["stale"]), jnp.asarray(first["learning_rate"])
    curves, apart = map(np.asarray, learn(keys, right, *numbers, method=first["method"], **options))
    return [
        {
            "final_reward": float(curve[-1]),
            "peak_reward": float(curve.max()),
            "first_update": float(distance),
            "curve": curve.tolist(),
        }
        for curve, distance in zip(curves, apart, strict=True)
    ]


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """Agreement on fresh samples; weight against clip, and wide against narrow, on stale ones."""
    found: list[parts.Tested] = []
    for steps, _ in config.settings:
        for method in config.methods[1:]:
            text = f"{steps} steps, stale 1: first update of {method} is that of {GRPO} (largest difference of a logit)"
            cell = {"steps": steps, "stale": 1, "method": method}
            found.append((claims.every(text, rows, "first_update", cell, high=1e-5), ON_POLICY))
        for stale in config.staleness:
            cells = {method: {"steps": steps, "stale": stale, "method": method} for method in METHODS}
            text = f"{steps} steps, stale {stale}: final reward with importance weights less that without, clip 0.2/0.2"
            measured = paired_interval(*claims.paired(rows, "final_reward", cells[GRPO], cells[NARROW]))
            verdict = claims.within(measured, -0.02, 0.02)
            found.append((claims.Claim(text, measured, "paired difference in [-0.02, 0.02]", verdict), CLIP))
            if stale >= 20:
                text = f"{steps} steps, stale {stale}: final reward of {WIDE} > that of {NARROW}"
                found.append((claims.greater(text, rows, "final_reward", cells[WIDE], cells[NARROW]), FASTER))
    return found


def panels(rows: Sequence[Row]) -> list[parts.Panel]:
    """The curves, a panel per setting and staleness."""
    shown: dict[str, list[Row]] = {}
    for row in rows:
        title = f"{row['steps']} steps, sampler {row['stale'] - 1} old at most"
        every = row["steps"] // (len(row["curve"]) - 1)
        own = {"method": row["method"], "seed": row["seed"]}
        points = [{"step": i * every, **own, "reward": value} for i, value in enumerate(row["curve"])]
        shown.setdefault(title, []).extend(points)
    return [(title, points, ("step", "method"), "reward") for title, points in shown.items()]


PART = parts.Part(
    get_config,
    cells,
    rows,
    tested,
    panels,
    {"reward": parts.Table("Rewards", BY, METRICS)},
    note="A softmax policy per context, 64 actions of which 1 to 3 are right (reward 1, else 0); each step draws 32 "
    "actions in each of 200 contexts from the sampler, which is the policy as it was up to *stale* - 1 steps ago; "
    "advantage: reward less the mean of the group; plain gradient descent. Rewards are exact expectations over all "
    "contexts. "
    "*rec*: REC-OneSide without importance weights. *first_update*: largest difference from the first update of GRPO. "
    "Plain REINFORCE has no clip: whether it collapses with shared parameters is not asked here.",
    cell_keys=("seeds", "staleness", "methods", "settings"),
)
EXPERIMENT = parts.Experiment(
    "off_policy_reinforce",
    "Group-relative REINFORCE on stale samples",
    __doc__.split("\n\n", 2)[2],
    {"tabular": PART},
)

if __name__ == "__main__":
    parts.command_line(EXPERIMENT)
