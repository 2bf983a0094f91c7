"""Sizes of real models and of the project's own bars, and random inputs of those sizes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Shape(NamedTuple):
    """Rows (tokens) N, width D, vocabulary V, and the soft-cap of the logits if the model has one."""

    rows: int
    width: int
    vocabulary: int
    softcap: float | None = None

    @property
    def text(self) -> str:
        """``N,D,V``, with the soft-cap where there is one."""
        cap = "" if self.softcap is None else f" cap {self.softcap:g}"
        return f"{self.rows},{self.width},{self.vocabulary}{cap}"


SHAPES = {
    "qwen2.5-0.5b": Shape(8192, 896, 151936),
    "qwen2.5-1.5b": Shape(8192, 1536, 151936),
    "qwen2.5-7b": Shape(8192, 3584, 151936),
    "llama-3-8b": Shape(8192, 4096, 128256),
    "gemma-2-2b": Shape(8192, 2304, 256000, 30.0),
    "bar-given": Shape(2048, 256, 32768),
    "bar-given-half": Shape(512, 256, 151936),
    "bar-head": Shape(2048, 256, 32768),
}
"""The bars are sizes that two cores of a CPU can do; given logits have no use for the width."""


def parse(text: str) -> Shape:
    """A name of :data:`SHAPES`, or ``N,D,V``.

    >>> parse("16,8,32").text
    '16,8,32'
    """
    if text in SHAPES:
        return SHAPES[text]
    numbers = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if len(numbers) != 3:
        raise ValueError(f"{text!r} is neither N,D,V nor one of {', '.join(SHAPES)}")
    return Shape(*numbers)


class Case(NamedTuple):
    """Inputs of one measurement: ``arrays`` are what gradients are taken of, ``a b`` the weights of the loss."""

    shape: Shape
    arrays: tuple[Any, ...]
    targets: Any
    a: Any
    b: Any

    @property
    def dtype(self) -> Any:
        """Type of the inputs."""
        return self.arrays[0].dtype

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What a form with gradients is called with."""
        return (*self.arrays, self.targets, self.a, self.b)


def make(shape: Shape, dtype: str, *, given: bool, seed: int = 0) -> Case:
    """Random inputs: logits of standard deviation 3, or the states and weights of a head with such logits."""
    keys = iter(jax.random.split(jax.random.key(seed), 5))

    def normal(*size: int, scale: float = 1.0) -> jax.Array:
        return (scale * jax.random.normal(next(keys), size, jnp.float32)).astype(dtype)

    n, d, v, _ = shape
    arrays = (normal(n, v, scale=3.0),) if given else (normal(n, d), normal(d, v, scale=3.0 / d**0.5))
    targets = jax.random.randint(next(keys), (n,), 0, v, jnp.int32)
    a, b = (jax.random.normal(next(keys), (n,), jnp.float32) for _ in range(2))
    return jax.block_until_ready(Case(shape, arrays, targets, a, b))
