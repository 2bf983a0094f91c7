"""Rewards composed from a config: weighted verifiers, gates, penalties for length, bounds, and a report of each part.

.. math:: r = \\mathrm{clip}\\Big(\\prod_{g} v_g \\cdot \\sum_i w_i v_i + \\sum_l w_l\\, p_l\\Big)

with v of verifiers (from 0 to 1), gates g among them, and p of lengths.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlx.data.tokenizers import Tokenizer
from rlx.errors import UserError, close_matches
from rlx.rollout.calls import Calls
from rlx.rollout.imports import by_name, check_options
from rlx.rollout.tasks.example import Example
from rlx.rollout.verifiers import Response, Scorer

_KEYS = ("verifier", "penalty", "model", "weight", "gate", "threshold", "options")
_SOURCES = ("verifier", "penalty", "model")

Models = Callable[..., Any]
"""``(name, **options) -> score``, as :class:`Scorer` scores: finds a reward model. The trainer has one."""


class Rewards(NamedTuple):
    """Rewards of a batch, and what they are made of.

    Attributes:
      total: ``[P, K]`` float32.
      components: name to ``[P, K]``, before weights: verifiers from 0 to 1, gates as they multiply, penalties.
      failures: responses of this batch that a verifier could not score.
    """

    total: np.ndarray
    components: dict[str, np.ndarray]
    failures: int

    def report(self) -> dict[str, float]:
        """Returns the mean of every part, for the metrics of a step.

        >>> Rewards(np.ones((1, 2)), {"correct": np.array([[1.0, 0.0]])}, 0).report()
        {'reward': 1.0, 'reward/correct': 0.5, 'reward/failures': 0.0}
        """
        means = {f"reward/{name}": float(values.mean()) for name, values in self.components.items() if values.size}
        total = float(self.total.mean()) if self.total.size else 0.0
        return {"reward": total, **means, "reward/failures": float(self.failures)}


def overlong(lengths: np.ndarray, *, max_length: int, buffer_length: int) -> np.ndarray:
    """DAPO's soft penalty: from 0, ``buffer_length`` tokens before ``max_length``, falling to -1.

    >>> overlong(np.array([70, 90, 200]), max_length=100, buffer_length=20)
    array([ 0. , -0.5, -1. ], dtype=float32)
    """
    import jax.numpy as jnp

    from rlx.reward.shaping import dapo_overlong_penalty

    found = dapo_overlong_penalty(jnp.asarray(lengths), max_length=max_length, buffer_length=buffer_length)
    return np.asarray(found, np.float32)


def linear(lengths: np.ndarray, *, per_token: float = 1e-3) -> np.ndarray:
    """The same price for every token.

    >>> linear(np.array([0, 100]), per_token=0.01)
    array([-0., -1.], dtype=float32)
    """
    return (-per_token * np.asarray(lengths)).astype(np.float32)


PENALTIES = {"overlong": overlong, "linear": linear}


class _Part(NamedTuple):
    """A component of the config, read."""

    score: Any
    weight: float
    gate: bool
    threshold: float | None
    options: dict[str, Any]
    is_penalty: bool


class Reward:
    """A reward as a config says it.

    Args:
        components: name to a verifier (a name, path or function), or to a dict with ``verifier``, ``penalty`` or
            ``model`` (a learned one) and ``weight`` (1), ``gate`` (False: is added; True: multiplies the sum),
            ``threshold`` (None; else what is at least as large counts 1, the rest 0), ``options`` of the verifier,
            penalty or model.
        clip: lowest and highest total, or None.
        tokenizer: for verifiers that read something else than the responses are.
        models: finds learned models.
        calls: how verifiers by import path are called, see ``Scorer``.

    Raises:
        UserError: an unknown name, key or option, with close matches, or no component that is added.

    >>> reward = Reward({"correct": "final_answer", "form": {"verifier": "has_answer", "weight": 0.5}}, clip=(0, 1))
    >>> reward([["#### 5", "#### 6", "six"]], [Example("2+3", "5")]).total
    array([[1. , 0.5, 0. ]], dtype=float32)
    """

    def __init__(
        self,
        components: Mapping[str, Any],
        clip: Sequence[float] | None = None,
        tokenizer: Tokenizer | None = None,
        models: Models | None = None,
        calls: Calls | None = None,
    ):
        self.parts = {name: _part(name, value, tokenizer, models, calls) for name, value in components.items()}
        if all(part.gate or part.is_penalty for part in self.parts.values()):
            raise UserError("reward.components needs a verifier that is no gate: there is nothing to add up.")
        if clip is not None and (len(clip) != 2 or not clip[0] <= clip[1]):
            raise UserError(f"reward.clip={clip!r} must be None or two numbers, the lower one first.")
        self.clip = clip

    def __call__(
        self,
        responses: Sequence[Sequence[Response]],
        examples: Sequence[Example],
        lengths: np.ndarray | None = None,
        where: np.ndarray | None = None,
    ) -> Rewards:
        """Returns the rewards of K responses, text or ids, to each of P examples.

        Args:
            responses: ``[P][K]``.
            examples: P.
            lengths: ``[P, K]`` tokens of the responses; None takes those of ids.
            where: ``[P]`` real examples; the parts and totals of others mean nothing.

        Raises:
            UserError: a penalty on texts whose ``lengths`` were not given, or shapes that disagree.
        """
        before = self._failures()
        shape = (len(responses), max(map(len, responses), default=0))
        total, gates = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        penalties, values = np.zeros(shape, np.float32), {}
        for name, part in self.parts.items():
            if part.is_penalty:
                values[name] = part.score(_lengths(name, responses, lengths, shape), **part.options)
                penalties += part.weight * values[name]
                continue
            values[name] = _above(part.score(responses, examples, where), part.threshold)
            if part.gate:
                gates *= values[name]
            else:
                total += part.weight * values[name]
        total = total * gates + penalties
        if self.clip is not None:
            total = np.clip(total, self.clip[0], self.clip[1])
        return Rewards(total.astype(np.float32), values, self._failures() - before)

    @property
    def learned(self) -> bool:
        """Whether a learned model takes part."""
        return not all(part.is_penalty or isinstance(part.score, Scorer) for part in self.parts.values())

    def _failures(self) -> int:
        return sum(part.score.failures for part in self.parts.values() if isinstance(part.score, Scorer))


def build(
    config: Mapping[str, Any],
    tokenizer: Tokenizer | None = None,
    models: Models | None = None,
    calls: Calls | None = None,
) -> Reward:
    """Returns the reward of a config: ``components`` and ``clip`` of ``Reward``, or a single ``verifier``.

    >>> build({"verifier": "exact"})([["5"]], [Example("2+3", "5")]).report()
    {'reward': 1.0, 'reward/exact': 1.0, 'reward/failures': 0.0}
    """
    known = ("verifier", "components", "clip")
    for key in config:
        if key not in known:
            raise UserError(f"unknown key reward.{key}; keys are {list(known)}.{close_matches(key, known)}")
    if ("verifier" in config) == ("components" in config):
        raise UserError("reward needs either a verifier or components.")
    verifier = config.get("verifier")
    components = config["components"] if verifier is None else {_name(verifier): verifier}
    return Reward(components, config.get("clip"), tokenizer, models, calls)


def _name(verifier: Any) -> str:
    return verifier.rpartition(":")[2] if isinstance(verifier, str) else getattr(verifier, "__name__", "verifier")


def _part(
    name: str, value: Any, tokenizer: Tokenizer | None, models: Models | None, calls: Calls | None = None
) -> _Part:
    given = dict(value) if hasattr(value, "keys") else {"verifier": value}
    owner = f"reward.components.{name}"
    for key in given:
        if key not in _KEYS:
            raise UserError(f"unknown key {owner}.{key}; keys are {list(_KEYS)}.{close_matches(key, _KEYS)}")
    if len([key for key in _SOURCES if key in given]) != 1:
        raise UserError(f"{owner} needs one of a verifier, a penalty and a model.")
    is_penalty, options = "penalty" in given, dict(given.get("options") or {})
    gate, weight = bool(given.get("gate", False)), float(given.get("weight", 1.0))
    if is_penalty and (gate or given.get("threshold") is not None):
        raise UserError(f"{owner}: a penalty is no gate, and has no threshold.")
    if gate and "weight" in given:
        raise UserError(f"{owner}: a gate multiplies the sum of the others, and has no weight.")
    if is_penalty:
        penalty = by_name(given["penalty"], PENALTIES, "penalty")
        check_options(penalty, options, f"penalty {given['penalty']!r}")
        return _Part(penalty, weight, False, None, options, True)
    if "model" in given:
        if models is None:
            raise UserError(f"{owner}: a learned model scores in a run alone, which has the model's tokens.")
        return _Part(models(given["model"], **options), weight, gate, given.get("threshold"), {}, False)
    scorer = Scorer(given["verifier"], tokenizer, options, calls)
    return _Part(scorer, weight, gate, given.get("threshold"), {}, False)


def _above(values: np.ndarray, threshold: float | None) -> np.ndarray:
    return values if threshold is None else (values >= threshold).astype(np.float32)


def _lengths(name: str, responses: Sequence[Sequence[Response]], lengths: Any, shape: tuple[int, int]) -> np.ndarray:
    if lengths is None:
        if any(isinstance(response, str) for group in responses for response in group):
            raise UserError(f"reward.components.{name} reads lengths: give lengths, or the responses as token ids.")
        found = np.zeros(shape, np.int32)
        for p, group in enumerate(responses):
            found[p, : len(group)] = [len(response) for response in group]
        return found
    if np.shape(lengths) != shape:
        raise UserError(f"lengths have the shape {np.shape(lengths)}, the responses {shape}.")
    return np.asarray(lengths)
