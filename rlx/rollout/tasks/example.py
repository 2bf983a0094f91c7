"""Examples of a task, and the parts that generators share: distinct draws, and a split that no seed can cross."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rlx.errors import UserError, close_matches

SPLITS = ("train", "test")
TRIES = 50  # draws for each example, before there are said to be no more


class Example(NamedTuple):
    """What is asked, what is right, and what a verifier or an environment may want to know beside them."""

    prompt: str
    answer: str
    info: dict[str, Any] = {}


def is_held_out(text: str, held_out: float) -> bool:
    """Returns whether a prompt belongs to the test split: a matter of its text alone, whatever the seed.

    >>> sum(is_held_out(f"{number}", 0.1) for number in range(1000))
    104
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < held_out * 2**64


def draw(
    make: Callable[[np.random.Generator], Example], seed: int, size: int, *, split: str, held_out: float
) -> list[Example]:
    """Returns ``size`` distinct examples of a split.

    Args:
        make: one example from a generator of random numbers.
        seed: of the draws; equal seeds give equal examples.
        size: how many.
        split: ``train`` or ``test``; no prompt is in both.
        held_out: share of the prompts in the test split.

    Raises:
        UserError: an unknown split, a share outside of [0, 1), or fewer distinct examples than asked for.
    """
    check_split(split)
    if not 0 <= held_out < 1 or size < 0:
        raise UserError(f"held_out={held_out} must be in [0, 1), and size={size} not negative.")
    if split == "test" and not held_out:
        raise UserError("held_out=0.0 leaves no test split; set held_out=0.1.")
    generator = np.random.default_rng(seed % 2**63)
    found: dict[str, Example] = {}
    share = held_out if split == "test" else 1 - held_out
    for _ in range(int(TRIES * max(size, 1) / share)):
        if len(found) >= size:
            break
        example = make(generator)
        if is_held_out(example.prompt, held_out) == (split == "test"):
            found.setdefault(example.prompt, example)
    if len(found) < size:
        raise UserError(f"size={size}: found only {len(found)} distinct examples in the {split} split of this task.")
    return list(found.values())


def check_split(split: str) -> None:
    """Raises ``UserError`` for a split that no task has."""
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; splits are {list(SPLITS)}.{close_matches(split, SPLITS)}")
