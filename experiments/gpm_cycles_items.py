"""Items with free embeddings: cycles, random tournaments, and any skew-symmetric matrix; exact expectations."""

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
from rlx.reward.general_preference import preference_score
from rlx.types import Array

BT, GPM, EXACT = "bradley_terry_rm", "gpm", "eigenvectors"
CYCLES, TOURNAMENTS, SKEW = "cycles", "tournaments", "any skew-symmetric matrix"
ABSTRACT = "abstract: Bradley-Terry is a random guess on cycles, GPM models them"
THEORY = "theory: dimension n is enough for n items"


def get_config(size: str) -> ConfigDict:
    """Sizes of the specification; ``full`` has more seeds."""
    config = ConfigDict(
        {
            "seeds": tuple(range(20)),
            "cycles": (3, 5, 9),
            "num_items": 10,
            "dimensions": (2, 4, 6, 8),
            "probability": 0.9,
            "fit": {"steps": 3000, "learning_rate": 0.05},
        }
    )
    if size == "full":
        config.seeds = tuple(range(100))
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "cycles": (3,), "num_items": 3, "dimensions": (2,)})
        config.fit.steps = 200
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Bradley-Terry has dimension 1; the constructed embedding the dimension of its matrix."""
    settings = [(CYCLES, n, method, d) for n in config.cycles for method, d in ((BT, 1), (GPM, 2))]
    models = [(BT, 1), *((GPM, d) for d in config.dimensions)]
    settings += [(TOURNAMENTS, config.num_items, method, d) for method, d in models]
    even = config.num_items + config.num_items % 2
    settings += [(SKEW, config.num_items, method, even) for method in (GPM, EXACT)]
    names = ("table", "items", "method", "dimension", "seed")
    return [dict(zip(names, (*setting, seed), strict=True)) for setting in settings for seed in config.seeds]


def logits(table: str, items: int, probability: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True log-odds ``[n, n]``, and the pairs that are compared ``[N, 2]``, each once."""
    rng = np.random.default_rng([seed, items])
    strength = np.log(probability / (1 - probability))
    if table == CYCLES:
        pairs = np.stack([np.arange(items), (np.arange(items) + 1) % items], -1)
    else:
        pairs = np.stack(np.triu_indices(items, 1), -1)
    if table == CYCLES:
        odds = np.full(items, strength)
    else:
        odds = rng.standard_normal(len(pairs)) if table == SKEW else strength * rng.choice([-1, 1], len(pairs))
    matrix = np.zeros((items, items))
    matrix[pairs[:, 0], pairs[:, 1]] = odds
    return matrix - matrix.T, pairs


def scores(method: str, embeddings: Array, pairs: Array) -> Array:
    """Log-odds that a model gives to pairs ``[..., 2]`` of items with embeddings ``[n, d]``."""
    chosen = embeddings[pairs]
    return preference_score(chosen) if method == GPM else (chosen[..., 0, :] - chosen[..., 1, :])[..., 0]


def loss(method: str, embeddings: Array, pairs: Array) -> Array:
    """The library's loss of pairs, the first of them preferred; ``[N]``."""
    chosen = embeddings[pairs]
    if method == GPM:
        return rlx.gpm(chosen, tau=1.0, reduce=None)
    return rlx.bradley_terry_rm(chosen[..., 0], reduce=None)


@functools.partial(jax.jit, static_argnames=("method", "dimension", "steps", "learning_rate"))
def fit(
    keys: Array, odds: Array, pairs: Array, *, method: str, dimension: int, steps: int, learning_rate: float
) -> Array:
    """Embeddings ``[S, n, d]`` that minimise the expected loss of matrices ``[S, n, n]``, from random starts."""
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def one(key: Array, odds: Array) -> Array:
        probability = jax.nn.sigmoid(odds[pairs[:, 0], pairs[:, 1]])

        def expected(v: Array) -> Array:
            return (probability * loss(method, v, pairs) + (1 - probability) * loss(method, v, pairs[:, ::-1])).mean()

        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            v, state = carry
            updates, state = optimizer.update(jax.grad(expected)(v), state)
            return (optax.apply_updates(v, updates), state), None

        start = jax.random.normal(key, (odds.shape[0], dimension))
        return jax.lax.scan(step, (start, optimizer.init(start)), length=steps)[0][0]

    return jax.vmap(one)(keys, odds)


def skew_embedding(matrix: np.ndarray) -> np.ndarray:
    r"""Embeddings ``[n, 2 (n // 2)]`` whose preference scores are a skew-symmetric matrix, from its eigenvectors.

    The Hermitian :math:`iS` has eigenvalues :math:`\pm w`; :math:`S = \sum_w 2w\,\mathrm{Im}(u u^*)` over the positive.
    """
    values, vectors = np.linalg.eigh(1j * matrix)
    half = len(matrix) // 2
    scaled = vectors[:, -half:] * np.sqrt(2 * np.maximum(values[-half:], 0))
    return np.stack([scaled.imag, scaled.real], -1).reshape(len(matrix), -1)


def rows(cells: Sequence[Row], config: ConfigDict) -> list[Row]:
    """Share of pairs on the right side (ties are wrong), and the largest error of a log-odds."""
    first, method = cells[0], cells[0]["method"]
    drawn = [logits(first["table"], first["items"], config.probability, cell["seed"]) for cell in cells]
    odds, pairs = np.stack([matrix for matrix, _ in drawn]), drawn[0][1]
    if method == EXACT:
        embeddings = np.stack([skew_embedding(matrix) for matrix in odds])
    else:
        keys = jnp.stack([jax.random.key(cell["seed"]) for cell in cells])
        options = {"method": method, "dimension": first["dimension"], **config.fit}
        embeddings = np.asarray(fit(keys, jnp.asarray(odds, jnp.float32), pairs, **options))
    found = []
    for v, matrix in zip(embeddings, odds, strict=True):
        score = np.asarray(scores(GPM if method == EXACT else method, jnp.asarray(v, jnp.float32), pairs))
        true = matrix[pairs[:, 0], pairs[:, 1]]
        right = np.sign(score) == np.sign(true)
        found.append({"accuracy": float(right.mean()), "largest_error": float(np.abs(score - true).max())})
    return found


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """Bradley-Terry is no better than a coin on cycles; two dimensions are enough for them, n for everything."""
    found: list[parts.Tested] = []
    for items in config.cycles:
        cycle = {"table": CYCLES, "items": items}
        text = f"cycle of {items}: accuracy of bradley_terry_rm <= 0.6"
        found.append((claims.mean_within(text, rows, "accuracy", cycle | {"method": BT}, high=0.6), ABSTRACT))
        text = f"cycle of {items}: accuracy of gpm in 2 dimensions is 1"
        found.append((claims.every(text, rows, "accuracy", cycle | {"method": GPM}, low=1.0), ABSTRACT))
    dimensions = (1, *config.dimensions)
    for fewer, more in zip(dimensions, dimensions[1:], strict=False):
        text = f"tournaments: accuracy in {more} dimensions >= that in {fewer}{' (bradley_terry_rm)' * (fewer == 1)}"
        pair = ({"table": TOURNAMENTS, "dimension": d} for d in (more, fewer))
        found.append((claims.not_less(text, rows, "accuracy", *pair), "theory: more dimensions represent more"))
    for dimension in config.dimensions[1:]:
        text = f"tournaments: accuracy of gpm in {dimension} dimensions is 1"
        cell = {"table": TOURNAMENTS, "dimension": dimension}
        found.append((claims.every(text, rows, "accuracy", cell, low=1.0), "an earlier prototype of ours: 1.0"))
    for method, how in ((GPM, "fitted by the loss"), (EXACT, "made of the eigenvectors")):
        text = (
            f"gpm in {config.num_items} dimensions has any log-odds of {config.num_items} items, {how}: largest error"
        )
        found.append((claims.every(text, rows, "largest_error", {"table": SKEW, "method": method}, high=1e-3), THEORY))
    return found


def panels(rows: Sequence[Row]) -> list[parts.Panel]:
    """Accuracy on cycles, and over the dimension on tournaments."""
    cycles, tournaments = ([row for row in rows if row["table"] == table] for table in (CYCLES, TOURNAMENTS))
    return [
        ("cycles", cycles, ("items", "method"), "accuracy"),
        (f"tournaments ({BT}, then gpm)", tournaments, ("dimension",), "accuracy"),
    ]


PART = parts.Part(
    get_config,
    cells,
    rows,
    tested,
    panels,
    {
        CYCLES: parts.Table("Items in a cycle, each beats the next", ("items", "method", "dimension"), ("accuracy",)),
        TOURNAMENTS: parts.Table(
            "Random tournaments: every pair has a winner", ("items", "method", "dimension"), ("accuracy",)
        ),
        SKEW: parts.Table("Random log-odds, N(0, 1)", ("items", "method", "dimension"), ("accuracy", "largest_error")),
    },
    note="Items with free embeddings, trained on the expected loss (no sampling noise); winners win with probability "
    "0.9. *accuracy*: share of the pairs on the right side, ties are wrong. *largest_error*: of a log-odds. "
    "Mean over seeds ± half of the 95 % interval.",
)
