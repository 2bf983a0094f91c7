"""Small stories with a number for an answer, written as GSM8K is: for runs where its files are not at hand."""

import numpy as np

from rlx.rollout.tasks.example import Example, draw

NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn")
THINGS = ("apples", "books", "coins", "eggs", "pens", "shells")


def stories(seed: int, size: int, *, split: str = "train", held_out: float = 0.1, largest: int = 20) -> list[Example]:
    """Someone has some things and gets more; ``info`` has the ``solution``, which ends with ``#### x``.

    Args:
        seed: of the draws.
        size: how many distinct prompts.
        split: ``train`` or ``test``.
        held_out: share of the prompts in the test split.
        largest: of the two numbers, from 1.

    >>> print(stories(0, 1)[0].prompt, stories(0, 1)[0].info["solution"])
    Question: Finn has 11 eggs and gets 6 more. How many eggs has Finn?
    Answer: 11+6 = 17 eggs.
    #### 17
    """

    def make(generator: np.random.Generator) -> Example:
        name, things = NAMES[generator.integers(len(NAMES))], THINGS[generator.integers(len(THINGS))]
        has, more = generator.integers(1, largest + 1, 2).tolist()
        question = f"{name} has {has} {things} and gets {more} more. How many {things} has {name}?"
        solution = f"{has}+{more} = {has + more} {things}.\n#### {has + more}"
        return Example(f"Question: {question}\nAnswer:", str(has + more), {"solution": solution})

    return draw(make, seed, size, split=split, held_out=held_out)
