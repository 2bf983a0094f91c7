"""Random arrays for any method of the catalogue, made from the vocabulary alone."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rlx
from rlx import errors, method
from rlx.types import VOCABULARY

SIZES = {"K": 3, "T": 5, "V": 7, "E": 4, "D": 6, "J": 2, "S": 4, "N": 5}
ROWS = 4
INTEGERS = {
    "lengths": (1, 9),
    "target_lengths": (1, 9),
    "think_ends": (-1, SIZES["T"]),
    "difficulty": (0, 3),
    "high_entropy_counts": (0, 30),
    "tokens": (0, SIZES["V"]),
    "targets": (0, SIZES["V"]),
    "index": (0, 50),
    "set_ids": (0, 2),
    "step_ends": (-1, SIZES["T"]),
    "user_ids": (0, 3),
    "finished": (0, 2),
    "answers": (0, 3),
    "tree_parent": (-1, SIZES["N"]),
    "state_ids": (0, 3),
    "edges": (0, 2),
    "turn_ids": (-1, 3),
    "ranks": (1, SIZES["K"] + 1),
    "format_status": (0, 3),
}
PROBABILITIES = (
    "preference_probs",
    "label_table",
    "ensemble_probs",
    "win_rates",
    "preferences",
    "judge_probs",
    "predicted_probs",
    "target_probs",
    "reward_masks",
    "kl_masks",
)


def entry(name: str) -> rlx.catalog.Entry:
    return rlx.catalog.lookup(name)


def keywords(name: str) -> dict[str, Any]:
    """The preset of a name, and what has no default: a key for random numbers, the size of the vocabulary."""
    known = method.keywords_of(entry(name).function)
    given = {"key": jax.random.PRNGKey(0), "vocab_size": SIZES["V"]}
    return dict(entry(name).preset) | {keyword: value for keyword, value in given.items() if keyword in known}


def array_names(name: str) -> tuple[str, ...]:
    """Everything that a direct call reads: the required arrays, and what its coupled constants are made of."""
    coupled = [n for part in entry(name).coupled.values() for n in method.arrays_of(part.function)[0]]
    return tuple(dict.fromkeys((*entry(name).needs, *coupled)))


def unit_axes(name: str) -> str:
    """Axes of ``where``: those of the first array without the vocabulary or embedding axis."""
    return VOCABULARY[entry(name).needs[0]][0].lstrip(".").rstrip("VED")


@functools.cache
def candidates(name: str) -> int:
    """How many candidates the method compares: lists of three where it takes them, pairs otherwise."""
    if "K" not in unit_axes(name):
        return SIZES["K"]
    for count in (SIZES["K"], 2):
        try:
            arrays, where = make(name, 0, count=count)
            jax.eval_shape(lambda a, w: call(name, a, w), arrays, where)
        except errors.UserError:
            continue
        return count
    raise AssertionError(f"{name} takes neither lists of three nor pairs")


def make(
    name: str,
    seed: int,
    *,
    rows: int = ROWS,
    count: int | None = None,
    dtype: Any = np.float32,
    sizes: Mapping[str, int] | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays by name, and ``where`` with at least one unit in every row."""
    rng = np.random.default_rng(seed)
    sizes = SIZES | {"K": candidates(name) if count is None else count} | dict(sizes or {})

    def shape(axes: str) -> tuple[int, ...]:
        return (rows, *(sizes[axis] for axis in axes))

    arrays = {n: values(n, shape(VOCABULARY[n][0].lstrip(".")), rng, dtype) for n in array_names(name)}
    axes = unit_axes(name)
    where = rng.random(shape(axes)) < 0.7 if axes else np.ones(rows, bool)
    if axes == "KT":  # a prefix of every response, as data has it
        where = np.arange(sizes["T"]) < rng.integers(1, sizes["T"] + 1, shape("K"))[..., None]
    elif axes:
        where[..., 0] = True
    if "K" in axes and sizes["K"] == 2 and axes == "K":
        where[: rows // 2] = True  # pairs count whole: keep some
    return arrays, where


def values(name: str, shape: tuple[int, ...], rng: np.random.Generator, dtype: Any) -> np.ndarray:
    """Plausible values of a vocabulary name."""
    if name in INTEGERS:
        return rng.integers(*INTEGERS[name], shape).astype(np.int32)
    if name == "labels":
        return rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1).astype(dtype) % 2
    if name in PROBABILITIES:
        return rng.random(shape).astype(dtype)
    if name.endswith(("logps", "logprobs")):
        return (-np.abs(rng.normal(2.0, 1.0, shape)) - 0.1).astype(dtype)
    return rng.normal(size=shape).astype(dtype)


def call(name: str, arrays: Mapping[str, Any], where: Any, **more: Any) -> Any:
    """The catalogue's function on these arrays; ``where`` goes along when the function takes one."""
    options = keywords(name) | more
    if "where" in method.keywords_of(entry(name).function):
        options["where"] = where
    return entry(name).function(**arrays, **options)


@functools.cache
def compiled(name: str, *, units: bool = False) -> Callable[..., Any]:
    """:func:`call` on ``(arrays, where)`` as one program; with ``units``, the losses of all units."""
    more = {"reduce": None} if units else {}
    return jax.jit(lambda arrays, where: call(name, arrays, where, **more))


@functools.cache
def derivative(name: str) -> Callable[..., Any]:
    """Compiled: ``(arrays, where)`` -> value, and gradient in the first array, the differentiable one."""
    first = entry(name).needs[0]

    def both(arrays: Mapping[str, Any], where: Any) -> tuple[jax.Array, jax.Array]:
        return jax.value_and_grad(lambda x: call(name, {**arrays, first: x}, where))(arrays[first])

    return jax.jit(both)


def poison(name: str, arrays: Mapping[str, np.ndarray], where: np.ndarray, value: float) -> dict[str, np.ndarray]:
    """Overwrites what is masked: float arrays at the level of the units, and rows that are masked as a whole."""
    poisoned = {}
    for key, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            poisoned[key] = array
            continue
        selected = where
        while selected.ndim > array.ndim:
            selected = selected.any(-1)
        while selected.ndim < array.ndim:
            selected = selected[..., None]
        fits = all(a in (b, 1) for a, b in zip(selected.shape, array.shape, strict=True))
        poisoned[key] = np.where(selected, array, np.asarray(value, array.dtype)) if fits else array
    return poisoned


def batch(name: str, arrays: Mapping[str, Any], where: Any) -> dict[str, Any]:
    """What ``Method.prepare`` and ``Method.apply`` take: the arrays that the method (not the function) needs."""
    built = rlx.build(name)
    found = {k: jnp.asarray(v) for k, v in arrays.items()}
    rng = np.random.default_rng(7)
    for needed in (*built.needs, *built.prepare_needs):
        if needed not in found:
            axes = VOCABULARY[needed][0].lstrip(".")
            sizes = SIZES | {"K": candidates(name)}
            found[needed] = jnp.asarray(values(needed, (len(where), *(sizes[a] for a in axes)), rng, np.float32))
    if "index" in found:
        found["index"] = jnp.arange(len(where), dtype=jnp.int32)
    return found | {"where": jnp.asarray(where)}
