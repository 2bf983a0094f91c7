"""How well an update of a population follows the gradient, and how heavy the tails of low-rank noise are."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import claims, parts
from experiments.parts import Row
from rlx.policy import evolution
from rlx.types import Array

FULL = 0  # the rank of noise without factors
COSINE, KURTOSIS = "cosine", "kurtosis"
THEORY = "theory for antithetic pairs: cos = (1 + (c - 1) / pairs)^(-1/2), c = nk + 2 full, (n + 2)(k + 2) rank 1"
ABSTRACT = "arXiv:2511.16652, abstract: low rank is enough (numbers not read)"
TAILS = "theory: a mean of r products of two normals has excess kurtosis 6/r"


def get_config(size: str) -> ConfigDict:
    """Sizes of the specification; ``full`` has more draws."""
    config = ConfigDict(
        {
            "seeds": tuple(range(100 if size == "full" else 20)),
            "populations": (256, 1024, 4096),
            "ranks": (1, 2, 4, 8, FULL),
            "shape": (64, 64),
            "sigma": 0.1,
        }
    )
    if size == "smoke":
        config.update({"seeds": (1000, 1001), "populations": (64,), "ranks": (1, FULL), "shape": (8, 8)})
    return config


def cells(config: ConfigDict) -> list[Row]:
    """Every rank at every population; tails are those of the middle one, where there are factors."""
    middle = config.populations[len(config.populations) // 2]
    settings = [(COSINE, members, rank) for members in config.populations for rank in config.ranks]
    settings += [(KURTOSIS, middle, rank) for rank in config.ranks if rank != FULL]
    names = ("table", "members", "rank", "seed")
    return [dict(zip(names, (*setting, seed), strict=True)) for setting in settings for seed in config.seeds]


@functools.partial(jax.jit, static_argnames=("shape", "members", "rank"))
def cosine(key: Array, sigma: float, *, shape: tuple[int, int], members: int, rank: int) -> Array:
    """Cosine of the update with the gradient of a quadratic loss, at a random point and target."""
    target, start, draw = jax.random.split(key, 3)
    goal, w = jax.random.normal(target, shape), jax.random.normal(start, shape)
    noise = evolution.eggroll_noise(draw, w, members=jnp.arange(members), rank=rank or None)
    scores = -0.5 * jnp.square(evolution.perturb(w, noise, sigma=sigma) - goal).sum((1, 2))
    found = evolution.eggroll_gradient(noise, evolution.eggroll_fitness(scores), sigma=sigma)
    true = w - goal
    return (found * true).sum() / jnp.sqrt(jnp.square(found).sum() * jnp.square(true).sum())


@functools.partial(jax.jit, static_argnames=("shape", "members", "rank"))
def excess_kurtosis(key: Array, *, shape: tuple[int, int], members: int, rank: int) -> Array:
    """Of the entries of the noise, one member of every pair; their mean is 0 and their variance 1."""
    noise = evolution.eggroll_noise(key, jnp.zeros(shape), members=jnp.arange(0, 2 * members, 2), rank=rank)
    return jnp.mean(noise.dense() ** 4) - 3


def rows(cells: Sequence[Row], config: ConfigDict) -> list[Row]:
    """What was measured in cells that differ in the seed alone."""
    first, found = cells[0], []
    options = {"shape": tuple(config.shape), "members": first["members"], "rank": first["rank"]}
    for cell in cells:
        key = jax.random.key(cell["seed"])
        if first["table"] == KURTOSIS:
            found.append({"kurtosis": float(excess_kurtosis(key, **options))})
        else:
            expected = theory(options["shape"], first["members"], first["rank"])
            found.append({"cosine": float(cosine(key, config.sigma, **options)), "theory": expected})
    return found


def theory(shape: tuple[int, int], members: int, rank: int) -> float | None:
    """The cosine that theory gives to an update of antithetic pairs; None between rank 1 and full."""
    n, k = shape
    if rank not in (1, FULL):
        return None
    c = n * k + 2 if rank == FULL else (n + 2) * (k + 2)
    return (1 + (c - 1) / (members / 2)) ** -0.5


def tested(config: ConfigDict, rows: Sequence[Row]) -> list[parts.Tested]:
    """The formula, ranks against each other, tails."""
    found: list[parts.Tested] = []
    shape = tuple(config.shape)
    for members in config.populations:
        cell = {"table": COSINE, "members": members}
        for rank in (1, FULL):
            expected = theory(shape, members, rank)
            bounds = {"low": 0.95 * expected, "high": 1.05 * expected}
            text = f"{members} members, {named(rank)}: cosine within 5% of the formula, {expected:.4f}"
            found.append((claims.mean_within(text, rows, "cosine", cell | {"rank": rank}, **bounds), THEORY))
        for rank in config.ranks[:-1]:
            pair = cell | {"rank": rank}, cell | {"rank": FULL}
            text = f"{members} members, {named(rank)}: cosine within 5% of that of full rank"
            found.append((claims.ratio_within(text, rows, "cosine", *pair, 0.95, 1.05), ABSTRACT))
    for rank in config.ranks[:-1]:
        bounds = {"low": 0.9 * 6 / rank, "high": 1.1 * 6 / rank}
        text = f"{named(rank)}: excess kurtosis of the noise within 10% of {6 / rank:g}"
        cell = {"table": KURTOSIS, "rank": rank}
        found.append((claims.mean_within(text, rows, "kurtosis", cell, **bounds), TAILS))
    return found


def named(rank: int) -> str:
    """How a rank is called in a table."""
    return "full rank" if rank == FULL else f"rank {rank}"


def panels(rows: Sequence[Row]) -> list[parts.Panel]:
    """Cosine over the population, a line per rank; kurtosis over the rank."""
    shown = [{**row, "noise": named(row["rank"])} for row in rows]
    cosines, tails = ([row for row in shown if row["table"] == table] for table in (COSINE, KURTOSIS))
    return [
        ("cosine of the update with the gradient", cosines, ("members", "noise"), "cosine"),
        ("excess kurtosis of the noise", tails, ("rank",), "kurtosis"),
    ]


PART = parts.Part(
    get_config,
    cells,
    rows,
    tested,
    panels,
    {
        COSINE: parts.Table("Cosine of an update with the gradient", ("members", "rank"), ("cosine", "theory")),
        KURTOSIS: parts.Table("Excess kurtosis of the entries of the noise", ("members", "rank"), ("kurtosis",)),
    },
    note="A quadratic loss of a 64 x 64 matrix, at a random point; members in antithetic pairs, whose even terms "
    "cancel, so that the theory of a linear objective holds. Rank 0 is noise without factors. Mean over draws ± half "
    "of the 95 % interval. Theory makes rank 1 worse than full rank, by 3% at most here.",
    cell_keys=("seeds", "populations", "ranks"),
)
