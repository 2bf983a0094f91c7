"""Builds sweeps: each function returns a plain list of override dicts such as ``{"method.beta": 0.1, "seed": 3}``."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rlx.errors import UserError

Overrides = dict[str, Any]
Sampler = Callable[[np.random.Generator], Any]


def product(**axes: Iterable[Any]) -> list[Overrides]:
    """Every combination of the axes' values; the last axis moves fastest.

    >>> product(**{"method.beta": [0.1, 0.5], "seed": [0, 1]})[:3]
    [{'method.beta': 0.1, 'seed': 0}, {'method.beta': 0.1, 'seed': 1}, {'method.beta': 0.5, 'seed': 0}]
    """
    values = [_axis(key, axis) for key, axis in axes.items()]
    return [dict(zip(axes, combination, strict=True)) for combination in itertools.product(*values)]


def zip_(**axes: Iterable[Any]) -> list[Overrides]:
    """The axes' values side by side; all axes have the same length.

    >>> zip_(**{"method.name": ["dpo", "rdpo"], "method.beta": [0.1, 0.5]})
    [{'method.name': 'dpo', 'method.beta': 0.1}, {'method.name': 'rdpo', 'method.beta': 0.5}]
    """
    values = {key: _axis(key, axis) for key, axis in axes.items()}
    lengths = {key: len(axis) for key, axis in values.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{key}: {length}" for key, length in lengths.items())
        raise UserError(f"zip_ needs axes of one length, not {found}.")
    return [dict(zip(axes, line, strict=True)) for line in zip(*values.values(), strict=True)]


def seeds(n: int, start: int = 0) -> list[Overrides]:
    """``n`` runs that differ in their seed.

    >>> seeds(2)
    [{'seed': 0}, {'seed': 1}]
    """
    return [{"seed": seed} for seed in range(start, start + n)]


def cross(*sweeps: Sequence[Overrides]) -> list[Overrides]:
    """Every run of the first sweep with every run of the second, and so on; they must not set the same key.

    >>> cross([{"method": "dpo"}, {"method": "ipo"}], seeds(2))[:3]
    [{'method': 'dpo', 'seed': 0}, {'method': 'dpo', 'seed': 1}, {'method': 'ipo', 'seed': 0}]
    """
    runs = []
    for parts in itertools.product(*sweeps):
        run: Overrides = {}
        for part in parts:
            twice = sorted(run.keys() & part.keys())
            if twice:
                raise UserError(f"cross: two of the sweeps set '{twice[0]}'.")
            run.update(part)
        runs.append(run)
    return runs


def chain(*sweeps: Iterable[Overrides]) -> list[Overrides]:
    """The runs of one sweep after those of the other.

    >>> chain([{"method": "dpo"}], product(**{"method": ["rdpo"], "method.epsilon": [0.1, 0.2]}))
    [{'method': 'dpo'}, {'method': 'rdpo', 'method.epsilon': 0.1}, {'method': 'rdpo', 'method.epsilon': 0.2}]
    """
    return [dict(run) for sweep in sweeps for run in sweep]


def random(n: int, seed: int, /, **samplers: Sampler) -> list[Overrides]:
    """``n`` runs with independent draws.

    The draws of a key depend on `seed` and on the key alone: another key, or a larger `n`, changes none of them.

    >>> few = random(2, 0, **{"method.beta": loguniform(0.01, 1.0)})
    >>> more = random(3, 0, **{"method.tau": uniform(0.0, 1.0), "method.beta": loguniform(0.01, 1.0)})
    >>> [run["method.beta"] for run in few] == [run["method.beta"] for run in more[:2]]
    True
    """
    generators = {key: np.random.default_rng([seed, zlib.crc32(key.encode())]) for key in samplers}
    return [{key: draw(generators[key]) for key, draw in samplers.items()} for _ in range(n)]


def uniform(low: float, high: float) -> Sampler:
    """Draws floats that are uniform in [low, high)."""
    if not low < high:
        raise UserError(f"uniform needs low < high, not {low} and {high}.")
    return lambda generator: float(generator.uniform(low, high))


def loguniform(low: float, high: float) -> Sampler:
    """Draws floats whose logarithm is uniform between those of low and high."""
    if not 0 < low < high:
        raise UserError(f"loguniform needs 0 < low < high, not {low} and {high}.")
    return lambda generator: math.exp(generator.uniform(math.log(low), math.log(high)))


def choice(options: Iterable[Any]) -> Sampler:
    """Draws one of the options, each with the same probability."""
    values = _axis("choice", options)
    return lambda generator: values[int(generator.integers(len(values)))]


def _axis(key: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise UserError(f"the values of '{key}' must be a list, not {values!r}.")
    found = [value.item() if hasattr(value, "item") else value for value in values]  # arrays give plain numbers
    if not found:
        raise UserError(f"the list of values of '{key}' is empty.")
    return found
