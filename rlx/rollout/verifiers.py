"""Verifiers: functions ``(response, example) -> float`` from 0 to 1, by name, by import path, or as they are.

One that reads token ids says so with an attribute, ``verify.reads = "ids"``; all others read text. ``Scorer`` runs one
over a batch: a verifier that raises, or returns no number from 0 to 1, costs its response the reward, not the batch.
"""

import inspect
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from rlx.data.tokenizers import Tokenizer
from rlx.errors import UserError
from rlx.rollout import answers
from rlx.rollout.arithmetic import NotArithmetic, evaluate, literals
from rlx.rollout.calls import Caller, Calls
from rlx.rollout.imports import by_name, check_options
from rlx.rollout.tasks.example import Example
from rlx.rollout.tasks.graphs import is_path
from rlx.rollout.tasks.sentiment import sentiment
from rlx.rollout.worker import Failure

Verifier = Callable[..., float]
Response = str | Sequence[int] | np.ndarray


def exact(response: str, example: Example) -> float:
    """1 if the response is the answer, but for spaces around it.

    >>> exact(" 12", Example("05+07=", "12"))
    1.0
    """
    return float(response.strip() == example.answer.strip())


def final_answer(response: str, example: Example) -> float:
    r"""1 if the final answer of the response equals the reference, see ``answers``: for GSM8K, MATH and their like.

    >>> final_answer("9 * 2 = 18 so \\boxed{18.0}", Example("?", "18")), final_answer("9 * 2 = 18", Example("?", "18"))
    (1.0, 0.0)
    """
    return float(answers.equal(answers.extract(response), example.answer))


def has_answer(response: str, example: Example) -> float:
    """1 if the response gives a final answer, right or wrong: a gate for its form.

    >>> has_answer("#### 5", Example("?", "18"))
    1.0
    """
    return float(answers.extract(response) is not None)


def matches(response: str, example: Example, *, pattern: str) -> float:
    """1 if the whole response matches a regular expression, in which ``.`` is any character.

    >>> matches("<think>a</think> 5", Example("?", "5"), pattern="<think>.*</think>.*")
    1.0
    """
    return float(re.fullmatch(pattern, response, re.DOTALL) is not None)


def countdown(response: str, example: Example) -> float:
    """1 if the response is an expression of all the numbers, each used once, with the target as its value.

    >>> example = Example("2,3,4=14:", "2+3*4", {"numbers": [2, 3, 4], "target": 14})
    >>> countdown("4*3+2", example), countdown("14", example), countdown("(2+3)*4", example)
    (1.0, 0.0, 0.0)
    """
    text = response.strip()
    try:
        if not re.fullmatch(r"[0-9+*() -]*", text) or "**" in text:
            return 0.0
        used = Counter(literals(text))
        right = used == Counter(example.info["numbers"]) and evaluate(text) == example.info["target"]
    except NotArithmetic:
        return 0.0
    return float(right)


def graphpath(response: str, example: Example) -> float:
    """1 if the response is a path from the source to the target.

    >>> example = Example("a>b b>c a:c=", "abc", {"edges": {"a": "b", "b": "c"}, "source": "a", "target": "c"})
    >>> graphpath("abc", example), graphpath("ac", example)
    (1.0, 0.0)
    """
    info = example.info
    return float(is_path(response, info["edges"], info["source"], info["target"]))


def toysentiment(response: str, example: Example) -> float:
    """How good the tokens feel, from 0 to 1; a response of no token is as bad as can be.

    >>> toysentiment("0 1 20 21", Example("3", ""))
    0.75
    """
    words = response.split()
    return (1 + sentiment(int(word) for word in words)) / 2 if words else 0.0


VERIFIERS: dict[str, Verifier] = {
    "exact": exact,
    "modadd": exact,
    "final_answer": final_answer,
    "gsm8k": final_answer,
    "math": final_answer,
    "has_answer": has_answer,
    "matches": matches,
    "countdown": countdown,
    "graphpath": graphpath,
    "toysentiment": toysentiment,
}


class Scorer:
    """Runs a verifier over the responses to a batch of prompts.

    Args:
        verifier: a name of ``VERIFIERS``, an import path ``"package.module:function"``, or a function.
        tokenizer: for responses that are given as ids to a verifier that reads text, or the other way around.
        options: further keywords of the verifier.
        calls: how functions by import path are called; None: once, and one that raises costs its response the reward.

    Attributes:
        failures: how many responses could not be scored so far; the first one was warned of.
        first_failure: what was wrong with it.

    Raises:
        UserError: an unknown verifier or option, with close matches.

    >>> Scorer("exact")([["12", "13"]], [Example("05+07=", "12")])
    array([[1., 0.]], dtype=float32)
    >>> Scorer("gsm8")
    Traceback (most recent call last):
    rlx.errors.UserError: unknown verifier 'gsm8'; verifiers are [...] or 'module:function'. Did you mean 'gsm8k'?
    """

    def __init__(
        self,
        verifier: Any,
        tokenizer: Tokenizer | None = None,
        options: Mapping[str, Any] | None = None,
        calls: Calls | None = None,
    ):
        self.verify: Verifier = by_name(verifier, VERIFIERS, "verifier")
        self.name = verifier if isinstance(verifier, str) else getattr(verifier, "__name__", type(verifier).__name__)
        self.options, self.tokenizer = dict(options or {}), tokenizer
        self.reads = _reads(self.verify)
        self.failures, self.first_failure = 0, ""
        if self.options:
            check_options(self.verify, self.options, f"verifier {self.name!r}")
        self.stop, self.call = False, partial(self.verify, **self.options)
        if calls is not None and isinstance(verifier, str) and verifier not in VERIFIERS:
            self.stop, self.call = calls.stop, Caller(verifier, self.verify, self.options, calls)

    def __call__(
        self,
        responses: Sequence[Sequence[Response]],
        examples: Sequence[Example],
        where: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns the rewards ``[P, K]`` of K responses to each of P examples; 0 where lists are shorter than K.

        ``where [P]`` marks real examples: the responses to others get 0, and no verifier sees them.

        Raises:
            UserError: another number of examples than of responses, ids without a tokenizer, or a function whose calls
                have all failed.
        """
        if len(responses) != len(examples):
            raise UserError(f"got responses to {len(responses)} prompts, and {len(examples)} examples.")
        rewards = np.zeros((len(examples), max(map(len, responses), default=0)), np.float32)
        for p, (group, example) in enumerate(zip(responses, examples, strict=True)):
            if where is not None and not where[p]:
                continue
            for k, response in enumerate(group):
                rewards[p, k] = self._score(self._seen(response), example, (p, k))
        return rewards

    def _seen(self, response: Response) -> Any:
        """The response as the verifier reads it."""
        is_text = isinstance(response, str)
        if is_text == (self.reads == "text"):
            return response if is_text else [int(token) for token in response]
        if self.tokenizer is None:
            given = "text" if is_text else "ids"
            raise UserError(f"verifier {self.name!r} reads {self.reads}, the responses are {given}: give a tokenizer.")
        return self.tokenizer.encode(str(response)) if is_text else self.tokenizer.decode([int(t) for t in response])

    def _score(self, response: Any, example: Example, place: tuple[int, int]) -> float:
        try:
            reward = float(self.call(response, example))
        except Failure as failure:
            if self.stop:
                raise UserError(
                    f"verifier {self.name!r} {failure}, at {self._place(response, example, place)}. Mend it, or let "
                    "such responses have the reward 0: config.rl.rollout.on_reward_error='zero'."
                ) from None
            return self._failed(str(failure), response, example, place)
        except Exception as error:  # a user's function may raise anything
            return self._failed(f"raised {type(error).__name__}: {error}", response, example, place)
        if not (math.isfinite(reward) and 0 <= reward <= 1):
            return self._failed(f"returned {reward}, not a number from 0 to 1", response, example, place)
        return reward

    def _failed(self, problem: str, response: Any, example: Example, place: tuple[int, int]) -> float:
        self.failures += 1
        if self.failures == 1:
            self.first_failure = (
                f"verifier {self.name!r} {problem}, at {self._place(response, example, place)}. Its reward is 0; later "
                "failures are counted, not shown."
            )
            warnings.warn(self.first_failure, RuntimeWarning, stacklevel=4)
        return 0.0

    def _place(self, response: Any, example: Example, place: tuple[int, int]) -> str:
        where = example.info.get("place", f"prompt {place[0]} of the batch")
        return f"{where}, response {place[1]}: prompt {example.prompt[:60]!r}, response {str(response)[:60]!r}"


def _reads(verify: Verifier) -> str:
    """``ids`` or ``text``, as an attribute of the function says, or the default of its keyword ``reads``."""
    reads = getattr(verify, "reads", None)
    if reads is None:
        parameter = inspect.signature(verify).parameters.get("reads")
        reads = "text" if parameter is None else parameter.default
    if reads not in ("text", "ids"):
        raise UserError(f"a verifier must have reads='text' or reads='ids', found {reads!r}.")
    return reads


def score(
    responses: Sequence[Sequence[Response]],
    examples: Sequence[Example],
    verifier: Any,
    *,
    tokenizer: Tokenizer | None = None,
) -> np.ndarray:
    """Returns the rewards ``[P, K]`` of one batch, see ``Scorer``.

    >>> score([["ab", "b"]], [Example("?", "b")], lambda response, example: len(response) / 4)
    array([[0.5 , 0.25]], dtype=float32)
    """
    return Scorer(verifier, tokenizer)(responses, examples)


def responses_of(tokens: np.ndarray, where: np.ndarray) -> list[list[list[int]]]:
    """Returns the real tokens of a rollout, ``[P, K, M]`` with a mask, as ragged lists.

    >>> responses_of(np.array([[[5, 6, 0]]]), np.array([[[True, True, False]]]))
    [[[5, 6]]]
    """
    tokens, where = np.asarray(tokens), np.asarray(where)
    return [[tokens[p, k][where[p, k]].tolist() for k in range(tokens.shape[1])] for p in range(len(tokens))]
