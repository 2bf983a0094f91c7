"""A made-up language with a known feeling: 32 tokens in a Markov chain, 8 of them good, 8 bad."""

import functools
from collections.abc import Iterable

import numpy as np

from rlx.errors import UserError
from rlx.rollout.tasks.example import Example, draw

SIZE = 32
POSITIVE = range(8)
NEGATIVE = range(8, 16)


@functools.lru_cache(maxsize=8)
def transitions(language: int = 0, sharpness: float = 1.0) -> np.ndarray:
    """Returns the chances ``[32, 32]`` of the next token after each, of one language.

    Args:
        language: its number.
        sharpness: standard deviation of the logits: 0 is a language without grammar.

    >>> transitions().shape, bool(np.allclose(transitions().sum(-1), 1))
    ((32, 32), True)
    """
    logits = sharpness * np.random.default_rng(language % 2**63).normal(size=(SIZE, SIZE))
    chances = np.exp(logits - logits.max(-1, keepdims=True))
    return chances / chances.sum(-1, keepdims=True)


def sentence(generator: np.random.Generator, length: int, first: int, *, language: int = 0, sharpness=1.0) -> list[int]:
    """Returns ``length`` tokens of the language that follow ``first``.

    >>> sentence(np.random.default_rng(0), 4, first=3)
    [21, 10, 1, 1]
    """
    chances, tokens = transitions(language, sharpness), [first]
    for _ in range(length):
        tokens.append(int(generator.choice(SIZE, p=chances[tokens[-1]])))
    return tokens[1:]


def sentiment(tokens: Iterable[int]) -> float:
    """Returns the share of good tokens less that of bad ones, from -1 to 1; 0 of no token.

    >>> sentiment([0, 1, 8, 20])
    0.25
    """
    ids = [int(token) for token in tokens if 0 <= int(token) < SIZE]
    score = sum(token in POSITIVE for token in ids) - sum(token in NEGATIVE for token in ids)
    return score / len(ids) if ids else 0.0


def toysentiment(
    seed: int,
    size: int,
    *,
    split: str = "train",
    held_out: float = 0.1,
    prompt_length: int = 4,
    length: int = 12,
    language: int = 0,
    sharpness: float = 1.0,
) -> list[Example]:
    """Beginnings of sentences; the answer is how the chain itself goes on, for a first stage to learn the language.

    Texts are numbers with spaces, for the tokenizer ``{"name": "ids", "size": 32}``.

    Args:
        seed: of the draws.
        size: how many distinct prompts.
        split: ``train`` or ``test``.
        held_out: share of the prompts in the test split.
        prompt_length: tokens of a prompt, at least 1.
        length: tokens of an answer.
        language: number of the chain.
        sharpness: of the chain, see ``transitions``.

    Raises:
        UserError: lengths below 1, or more prompts than the language has.

    >>> toysentiment(0, 1, length=3)
    [Example(prompt='27 4 3 0', answer='24 26 18', info={'language': 0, 'sentiment': 0.0})]
    """
    if prompt_length < 1 or length < 1:
        raise UserError(f"toysentiment needs prompt_length={prompt_length} and length={length} of at least 1.")

    def make(generator: np.random.Generator) -> Example:
        first = int(generator.integers(SIZE))
        rest = sentence(generator, prompt_length - 1 + length, first, language=language, sharpness=sharpness)
        tokens = [first, *rest]
        prompt, answer = (" ".join(map(str, part)) for part in (tokens[:prompt_length], tokens[prompt_length:]))
        return Example(prompt, answer, {"language": language, "sentiment": sentiment(tokens[prompt_length:])})

    return draw(make, seed, size, split=split, held_out=held_out)
