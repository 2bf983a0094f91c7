"""Extreme inputs for every loss: no value and no gradient may be anything but finite.

  python -m tests.extremes --count=1000                  # every loss, 1000 draws on each of three shapes
  python -m tests.extremes --count=1000 dpo rdpo         # these alone

Values come from both ends of what a run can meet (0, 1e-30, ... 1e4, both signs where an array has both, ties), masks
are random, all of a row may be masked, and what is masked is NaN. ``tests/extremes_test.py`` lets Hypothesis draw a
sample of the same; the draws of this script are plain random numbers, so that a thousand cost one compiled call.
"""

import argparse
import functools
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rlx
from tests import samples

VALUES = np.array([0.0, 1e-30, 1e-8, 0.1, 1.0, 1.0, 20.0, 88.0, 1e3, 1e4], np.float32)
SHAPES: tuple[Mapping[str, int], ...] = ({"rows": 4, "T": 5}, {"rows": 1, "T": 1}, {"rows": 3, "T": 8})
LOSSES = sorted(name for name, entry in rlx.catalog.CATALOG.items() if entry.kind == "loss")


def template(name: str, shape: Mapping[str, int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Plausible arrays of this shape; their names, shapes and types are what an extreme draw fills."""
    sizes = {key: size for key, size in shape.items() if key != "rows"}
    return samples.make(name, 0, rows=shape["rows"], sizes=sizes)


def limits(name: str, like: np.ndarray) -> np.ndarray:
    """The values that an array may take."""
    if name in samples.INTEGERS:
        low, high = int(like.min()), int(like.max())
        return np.array(sorted({low, high, max(low, 1)}), like.dtype)
    if name in samples.PROBABILITIES:
        return np.array([0.0, 1e-30, 1e-6, 0.5, 1 - 1e-6, 1.0], like.dtype)
    if name in ("labels", "correct"):
        return np.array([0.0, 1.0], like.dtype)
    if name.endswith(("logps", "logprobs")):
        return -VALUES
    return np.concatenate([VALUES, -VALUES])


def draw(name: str, shape: Mapping[str, int], rng: np.random.Generator, count: int) -> tuple[dict, np.ndarray]:
    """``count`` draws on a leading axis: arrays, and ``where``; masked floats are NaN."""
    arrays, where = template(name, shape)
    drawn = {key: rng.choice(limits(key, like), (count, *like.shape)) for key, like in arrays.items()}
    tied = rng.random(count) < 0.1
    for array in drawn.values():
        array[tied] = array[tied][(slice(None), *([slice(0, 1)] * (array.ndim - 1)))]
    masks = rng.random((count, *where.shape)) < rng.choice(
        [0.0, 0.5, 1.0], (count, *([1] * where.ndim)), p=[0.1, 0.6, 0.3]
    )
    hidden = [samples.poison(name, {k: a[i] for k, a in drawn.items()}, masks[i], np.nan) for i in range(count)]
    return {key: np.stack([h[key] for h in hidden]) for key in drawn}, masks


@functools.cache
def program(name: str) -> Any:
    """The compiled ``(arrays, where) -> (value, gradient)`` over draws on the leading axis."""
    return jax.jit(jax.vmap(samples.derivative(name)))


def bad(name: str, arrays: Mapping[str, np.ndarray], where: np.ndarray) -> np.ndarray:
    """Numbers of the draws whose value or gradient is not finite."""
    value, gradient = program(name)({k: jnp.asarray(v) for k, v in arrays.items()}, jnp.asarray(where))
    rows = np.asarray(gradient).reshape(len(where), -1)
    return np.flatnonzero(~(np.isfinite(np.asarray(value)) & np.isfinite(rows).all(-1)))


def check(name: str, count: int, seed: int = 0) -> list[str]:
    """A line for each shape on which a loss is not finite, with the first such draw."""
    found = []
    for shape in SHAPES:
        arrays, where = draw(name, shape, np.random.default_rng(seed), count)
        wrong = bad(name, arrays, where)
        if len(wrong):
            first = {key: array[wrong[0]].tolist() for key, array in arrays.items()}
            found.append(
                f"{name} {dict(shape)}: {len(wrong)} of {count}, first {first}, where {where[wrong[0]].tolist()}"
            )
    return found


def main(argv: list[str]) -> int:
    """The command line; returns 1 when a loss is not finite."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("names", nargs="*", default=LOSSES)
    options = parser.parse_args(argv)
    start, lines = time.monotonic(), []
    for i, name in enumerate(options.names, 1):
        found = check(name, options.count)
        lines += found
        print(f"[{i}/{len(options.names)}] {name}: {'; '.join(found) or 'finite'}", flush=True)
    print(
        f"{len(options.names)} losses, {options.count} draws on {len(SHAPES)} shapes each, {len(lines)} not finite, "
        f"{time.monotonic() - start:.0f} s"
    )
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
