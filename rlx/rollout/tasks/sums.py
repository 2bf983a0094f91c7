"""Sums that are made up: addition modulo 100, expressions with a given value, and problems for a calculator."""

import itertools
from collections.abc import Sequence

import numpy as np

from rlx.errors import UserError
from rlx.rollout.arithmetic import evaluate, steps
from rlx.rollout.tasks.example import Example, check_split, draw, is_held_out

_SIGNS = "+-*"


def modadd(
    seed: int, size: int | None = None, *, split: str = "train", held_out: float = 0.1, modulus: int = 100
) -> list[Example]:
    """Addition modulo 100: ``dd+dd=`` is answered by two digits.

    Args:
        seed: of the order; 10,000 prompts are all there are.
        size: how many; None for all of the split.
        split: ``train`` or ``test``.
        held_out: share of the prompts in the test split.
        modulus: of the sum, at most 100.

    Raises:
        UserError: more examples than the split has, or a modulus that two digits do not hold.

    >>> modadd(0, 2)
    [Example(prompt='78+97=', answer='75', info={}), Example(prompt='34+90=', answer='24', info={})]
    """
    check_split(split)
    if not 1 <= modulus <= 100:
        raise UserError(f"modulus={modulus} must be from 1 to 100: the answer has two digits.")
    prompts = [f"{a:02d}+{b:02d}=" for a, b in itertools.product(range(100), repeat=2)]
    prompts = [prompt for prompt in prompts if is_held_out(prompt, held_out) == (split == "test")]
    if size is not None and size > len(prompts):
        raise UserError(f"size={size}: the {split} split of modadd has {len(prompts)} prompts (held_out={held_out}).")
    order = np.random.default_rng(seed % 2**63).permutation(len(prompts))[:size]
    chosen = [prompts[place] for place in order]
    return [Example(p, f"{(int(p[:2]) + int(p[3:5])) % modulus:02d}") for p in chosen]


def countdown(
    seed: int,
    size: int,
    *,
    split: str = "train",
    held_out: float = 0.1,
    counts: Sequence[int] = (3, 4),
    largest: int = 20,
    target: int = 50,
) -> list[Example]:
    """Numbers and a target: any expression of ``+ - *`` that uses each number once and has that value is right.

    Args:
        seed: of the draws.
        size: how many distinct prompts.
        split: ``train`` or ``test``.
        held_out: share of the prompts in the test split.
        counts: how many numbers there may be.
        largest: of the numbers, from 1.
        target: the largest value asked for, from 1.

    Returns:
        Examples whose ``answer`` is one solution; ``info`` has ``numbers`` and ``target``.

    >>> countdown(1, 1)
    [Example(prompt='11,16,20=47:', answer='16+11+20', info={'numbers': [11, 16, 20], 'target': 47})]
    """

    def make(generator: np.random.Generator) -> Example:
        while True:
            numbers = generator.integers(1, largest + 1, int(generator.choice(list(counts)))).tolist()
            signs = generator.choice(list(_SIGNS), len(numbers) - 1).tolist()
            solution = _expression(generator.permutation(numbers).tolist(), signs, int(generator.integers(2)))
            value = int(evaluate(solution))
            if 1 <= value <= target:
                prompt = f"{','.join(map(str, numbers))}={value}:"
                return Example(prompt, solution, {"numbers": numbers, "target": value})

    return draw(make, seed, size, split=split, held_out=held_out)


def calculator(
    seed: int, size: int, *, split: str = "train", held_out: float = 0.1, counts: Sequence[int] = (3, 4), largest=99
) -> list[Example]:
    """Products and sums too large to guess, for the environment of the same name; ``info`` has the ``calls`` of a way.

    >>> calculator(0, 1)[0]
    Example(prompt='64+52+28+32=', answer='176',
            info={'problem': '64+52+28+32', 'calls': ['64+52', '116+28', '144+32']})
    """

    def make(generator: np.random.Generator) -> Example:
        numbers = generator.integers(2, largest + 1, int(generator.choice(list(counts)))).tolist()
        signs = generator.choice(list(_SIGNS), len(numbers) - 1).tolist()
        problem = _expression(numbers, signs, int(generator.integers(2)))
        return Example(f"{problem}=", str(evaluate(problem)), {"problem": problem, "calls": steps(problem)})

    return draw(make, seed, size, split=split, held_out=held_out)


def _expression(numbers: Sequence[int], signs: Sequence[str], grouped: int) -> str:
    """The numbers with signs between them; ``grouped`` puts parentheses around the first two."""
    first = f"{numbers[0]}{signs[0]}{numbers[1]}"
    rest = "".join(f"{sign}{number}" for sign, number in zip(signs[1:], numbers[2:], strict=True))
    return f"({first}){rest}" if grouped and rest else f"{first}{rest}"
