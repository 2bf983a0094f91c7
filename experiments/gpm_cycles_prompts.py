"""A small transformer whose prompt decides between a cycle and an order of the same items."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

import rlx
from experiments import claims, parts
from experiments.parts import Row
from rlx import models
from rlx.method import Constants, Shapes
from rlx.reward.general_preference import preference_score
from rlx.types import Array

BT, GPM = "bradley_terry_rm", "gpm"
TABLE, KINDS = "prompts", ("cycle", "order")
CLAIM = "abstract, on prompts of both kinds in one model"


def get_config(size: str) -> ConfigDict:
    """Nine items, so that each can beat the next four; ``full`` has more seeds."""
    config = ConfigDict(
        {
            "seeds": tuple(range(10)),
            "dimensions": (2, 8),
            "num_items": 9,
            "probability": 0.9,
            "comparisons": 4000,
            "model": {"hidden_size": 32, "num_layers": 1, "num_heads": 2},
            "fit": {"steps": 600, "learning_rate": 3e-3, "tau": 0.1},
        }
    )
    if size == "full":
        config.seeds = tuple(range(40))
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "dimensions": (2,), "num_items": 3, "comparisons": 100})
        config.model.hidden_size = 8
        config.fit.steps = 5
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Bradley-Terry has dimension 1."""
    methods = [(BT, 1), *((GPM, d) for d in config.dimensions)]
    return [{"table": TABLE, "method": m, "dimension": d, "seed": s} for m, d in methods for s in config.seeds]


def truth(items: int, seed: int) -> np.ndarray:
    """Which item beats which, ``[2, n, n]`` of +1 and -1: a cycle, each beats the next half, and an order."""
    ahead = (np.arange(items) - np.arange(items)[:, None]) % items
    rank = np.random.default_rng([seed, 0]).permutation(items)
    cycle = np.where(ahead <= items // 2, 1, -1)
    return np.stack([cycle, np.sign(rank[:, None] - rank)]) * (ahead > 0)


def observed(beats: np.ndarray, config: ConfigDict, seed: int) -> np.ndarray:
    """How often each ordered pair was seen, ``[2, n, n]``: winners win with the probability of the config."""
    rng, items = np.random.default_rng([seed, 1]), config.num_items
    kind = rng.integers(0, 2, config.comparisons)
    first = rng.integers(0, items, config.comparisons)
    second = (first + rng.integers(1, items, config.comparisons)) % items
    upset = rng.random(config.comparisons) >= config.probability
    won = (beats[kind, first, second] > 0) ^ upset
    counts = np.zeros((2, items, items), np.float32)
    np.add.at(counts, (kind, np.where(won, first, second), np.where(won, second, first)), 1)
    return counts


def texts(items: int) -> np.ndarray:
    """A text of two tokens, kind and item, for both kinds: ``[2 n, 2]``."""
    return np.stack([np.repeat([0, 1], items), 2 + np.tile(np.arange(items), 2)], -1).astype(np.int32)


def compared(items: int) -> np.ndarray:
    """All ordered pairs of a kind as rows of :func:`texts`, ``[2 n n, 2]``."""
    first, second = np.repeat(np.arange(items), items), np.tile(np.arange(items), items)
    return np.concatenate([np.stack([first, second], -1) + items * kind for kind in (0, 1)])


@functools.cache
def program(items: int, method: str, dimension: int, sizes: tuple, steps: int, learning_rate: float, tau: float):
    """(initial parameters of a seed, training of all seeds at once -> scores ``[S, 2, n, n]``)."""
    config = {"name": "transformer", "vocab_size": 2 + items, "head": "scalar", **dict(sizes)}
    model = models.build(config)
    built = rlx.build({"name": GPM, "dimension": dimension, "tau": tau} if method == GPM else {"name": BT})
    tokens, pairs = jnp.asarray(texts(items)), jnp.asarray(compared(items))
    optimizer = optax.adam(learning_rate)

    def init(seed: int) -> dict:
        own, _ = built.init(jax.random.key(seed), Shapes(model.hidden_size, model.vocab_size))
        return {"policy": model.init(seed), "method": own}

    def embedded(params: dict) -> Array:
        """Hidden states of the last token, ``[2 n n, 2, D]``."""
        return model.apply(params["policy"], tokens)[0][:, -1][pairs]

    def losses(params: dict) -> Array:
        hidden = embedded(params)
        batch = {"hidden": hidden} if method == GPM else {"rewards": model.head(params["policy"], hidden)}
        return built.apply(Constants({}, {}), batch, params["method"])[0]

    def scores(params: dict) -> Array:
        hidden = embedded(params)
        if method == GPM:
            return preference_score(hidden @ params["method"]["head"])
        rewards = model.head(params["policy"], hidden)
        return rewards[..., 0] - rewards[..., 1]

    def train(params: dict, counts: Array) -> Array:
        weights = counts.ravel() / counts.sum()

        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            params, state = carry
            updates, state = optimizer.update(jax.grad(lambda p: (weights * losses(p)).sum())(params), state)
            return (optax.apply_updates(params, updates), state), None

        trained = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[0][0]
        return scores(trained).reshape(2, items, items)

    return init, jax.jit(jax.vmap(train))


def rows(cells: Sequence[Row], config: ConfigDict) -> list[Row]:
    """Share of the pairs on the right side, on prompts of either kind."""
    first, sizes = cells[0], tuple(sorted(config.model.items()))
    init, train = program(config.num_items, first["method"], first["dimension"], sizes, **config.fit)
    beats = np.stack([truth(config.num_items, cell["seed"]) for cell in cells])
    counts = np.stack([observed(own, config, cell["seed"]) for own, cell in zip(beats, cells, strict=True)])
    params = jax.tree.map(lambda *x: np.stack(x), *(init(cell["seed"]) for cell in cells))
    score = np.asarray(train(params, counts))
    right = (np.sign(score) == beats) & (beats != 0)
    share = right.sum((-2, -1)) / (beats != 0).sum((-2, -1))
    return [{f"accuracy_{kind}": float(own[i]) for i, kind in enumerate(KINDS)} for own in share]


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """GPM is at least as good on both kinds, and better on cycles."""
    bt = {"method": BT}
    text = "prompts with a cycle: accuracy of bradley_terry_rm <= 0.6"
    found = [(claims.mean_within(text, rows, "accuracy_cycle", bt, high=0.6), CLAIM)]
    for dimension in config.dimensions:
        gpm = {"method": GPM, "dimension": dimension}
        text = f"accuracy of gpm in {dimension} dimensions"
        found += [
            (claims.greater(f"prompts with a cycle: {text} > bt", rows, "accuracy_cycle", gpm, bt), CLAIM),
            (claims.not_less(f"prompts with an order: {text} >= bt", rows, "accuracy_order", gpm, bt), CLAIM),
        ]
    return found


def panels(rows: Sequence[Row]) -> list[parts.Panel]:
    """Bars of both kinds."""
    names = {row["dimension"]: BT if row["method"] == BT else f"{GPM}, {row['dimension']} dimensions" for row in rows}
    shown = [
        {"prompt": kind, "model": names[row["dimension"]], "accuracy": row[f"accuracy_{kind}"]}
        for kind in KINDS
        for row in rows
    ]
    return [("transformer, by prompt", shown, ("prompt", "model"), "accuracy")]


PART = parts.Part(
    get_config,
    cells,
    rows,
    tested,
    panels,
    {
        TABLE: parts.Table(
            "A transformer reads kind and item; the kind decides how items compare",
            ("method", "dimension"),
            ("accuracy_cycle", "accuracy_order"),
        )
    },
    note="A transformer of one layer (hidden size 32) reads a prompt token, which says whether the items form a cycle "
    "(each beats the next four of nine) or a random order, and an item. 4000 comparisons, won with probability 0.9, "
    "all methods on the same ones; 600 steps of Adam on all of them.",
)
