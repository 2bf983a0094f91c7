"""The stages of a recipe: finds the parts that a config names, checks them, and runs them on a batch."""

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.levels import LEVELS, Level
from rlx.method import arrays_of, keywords_of, take
from rlx.parts import Call, parse, part
from rlx.policy import importance, ratios, regularize, surrogates
from rlx.types import VOCABULARY, Array, Ratio, Surrogate

Spec = str | Callable[..., Any]
AMBIENT = ("where", "reduce", "key", "axis_name")

STAGES: dict[str, str] = {
    "reward": "statistic",
    "reward_bonus": "statistic",
    "advantage": "advantage",
    "shape": "weights",
    "ratio": "",
    "surrogate": "",
    "weight": "weights",
    "select": "weights",
    "mask": "weights",
    "kl": "",
    "old_kl": "",
    "old_kl_select": "weights",
    "entropy": "",
}
"""Stage -> the kind of catalogue entries that are its parts; none for those with parts of their own."""
MODULES = {"weights": ("select", "small_parts"), "advantage": ("returns", "tree_parts")}
"""Kind -> modules of rlx.policy with parts of it that are no published method."""
BEFORE_ADVANTAGES = ("reward", "reward_bonus", "advantage")

RATIOS: dict[str, Callable[..., Array]] = {
    f.__name__: f
    for f in (
        ratios.none,
        ratios.token,
        ratios.sequence,
        ratios.sequence_straight_through,
        ratios.sequence_sum,
        ratios.bounded_sum,
        ratios.geometric,
    )
}
SURROGATES: dict[str, Callable[..., Surrogate]] = {
    "unclipped": lambda: surrogates.unclipped,
    "sapo": surrogates.soft,
} | {
    f.__name__: f
    for f in (
        surrogates.clip,
        surrogates.soft,
        surrogates.reinforce,
        surrogates.cispo,
        surrogates.opmd,
        surrogates.topr,
        surrogates.vespo,
        surrogates.red,
        surrogates.rec_one_side,
        surrogates.rec_two_side,
        surrogates.rec_ring,
    )
}


class Part(NamedTuple):
    """A function of arrays with its arguments.

    Attributes:
      label: for errors.
      function: arrays by vocabulary name, then keywords.
      keywords: its arguments.
      required: names of the arrays that it must have.
      optional: names of those that it takes when they are there.
      coupling: ``example``, ``group`` or ``batch``.
    """

    label: str
    function: Callable[..., Any]
    keywords: Mapping[str, Any]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    coupling: str

    @property
    def changes(self) -> str:
        """The array that a part of the stage ``reward`` gives anew: rewards of tokens where it reads them."""
        return "token_rewards" if "token_rewards" in self.required else "rewards"

    @property
    def level(self) -> Level | None:
        """What the numbers of an estimator are of, where that is neither tokens nor responses."""
        return next((LEVELS[name] for name in self.required if name in LEVELS), None)

    @property
    def reads(self) -> tuple[str, ...]:
        """The arrays that it must have, and those that lead from its results to the tokens."""
        return (*self.required, *(self.level.index if self.level else ()))


class Known(NamedTuple):
    """What a name stands for."""

    function: Callable[..., Any]
    preset: Mapping[str, Any]
    coupling: str


def known(stage: str) -> dict[str, Known]:
    """Parts of a stage by name: of the catalogue, with and without what their name ends in, and of modules."""
    from rlx import catalog  # the catalogue holds recipes: it is loaded before any is made

    found: dict[str, Known] = {}
    for module in MODULES.get(STAGES[stage], ()):
        loaded = importlib.import_module(f"rlx.policy.{module}")
        for name, function in vars(loaded).items():
            own = inspect.isfunction(function) and function.__module__ == loaded.__name__ and name[0] != "_"
            read = set(arrays_of(function)[0]) if own else set()
            if read and read <= set(VOCABULARY):
                found[name] = Known(function, {}, "batch" if "axis_name" in keywords_of(function) else "example")
    for name, entry in catalog.CATALOG.items():
        if entry.kind == STAGES[stage] and entry.arrays is None:
            made = Known(entry.function, entry.preset, entry.coupling)
            found |= {name: made, name.removesuffix(f"_{STAGES[stage]}"): made}
    return found


def parts_of(stage: str, value: Spec | Sequence[Spec] | None) -> tuple[Part, ...]:
    """The parts that a stage of a config names."""
    specs = [] if value is None else [value] if isinstance(value, str) or callable(value) else list(value)
    if stage == "advantage" and len(specs) > 1:
        raise errors.UserError(f"The stage advantage takes one estimator, got {specs}; the stage shape takes several.")
    return tuple(checked(stage, find(stage, spec)) for spec in specs)


def find(stage: str, spec: Spec) -> Part:
    """The part of a string or a function."""
    if not isinstance(spec, str):
        call = Call(getattr(spec, "__name__", "function"))
        target = Known(spec, {}, "batch" if "axis_name" in keywords_of(spec) else "example")
    else:
        call = parse(spec)
        target = lookup(stage, call.name, known(stage))
    free = [k for k in keywords_of(target.function) if k not in (*AMBIENT, *target.preset)]
    defaults = keywords_of(target.function)
    given = {name: part(name, value, defaults[name]) for name, value in arguments(stage, call, free).items()}
    return Part(
        f"{stage} {call.name!r}",
        target.function,
        {**target.preset, **given},
        *arrays_of(target.function),
        target.coupling,
    )


def checked(stage: str, found: Part) -> Part:
    """The part, if its arrays can be there when the stage runs."""
    label = found.label
    for name in found.required:
        if name not in VOCABULARY:
            hint = errors.close_matches(name, VOCABULARY)
            raise errors.UserError(f"{label} needs {name!r}, which no stage and no batch gives.{hint}")
        if name == "advantages" and stage in BEFORE_ADVANTAGES:
            raise errors.UserError(
                f"{label} needs 'advantages', which only the stage advantage makes: use it as shape."
            )
    return found


def lookup(stage: str, name: str, options: Mapping[str, Any]) -> Any:
    """The option of a name, or a UserError with close matches."""
    if name in options:
        return options[name]
    hint = errors.close_matches(name, options)
    raise errors.UserError(f"Unknown {stage} {name!r}.{hint} Known: {', '.join(sorted(options))}.")


def arguments(stage: str, call: Call, names: Sequence[str]) -> dict[str, Any]:
    """Keywords of a call whose positional arguments are the first of ``names``."""
    takes = f"It takes: {', '.join(names) or 'no arguments'}."
    if len(call.arguments) > len(names):
        raise errors.UserError(f"{stage} {call.name!r} got {len(call.arguments)} arguments. {takes}")
    found = dict(zip(names, call.arguments, strict=False))
    for name, value in call.keywords.items():
        if name not in names or name in found:
            twice = " twice" if name in found else ""
            hint = "" if twice else errors.close_matches(name, names)
            raise errors.UserError(f"{stage} {call.name!r} got the argument {name!r}{twice or ''}.{hint} {takes}")
        found[name] = value
    return found


def ratio_of(value: Spec) -> Ratio:
    """The ratio of a config."""
    if callable(value):
        return value
    call = parse(value)
    function = lookup("ratio", call.name, RATIOS)
    options = [name for name in keywords_of(function) if name not in AMBIENT]
    given = arguments("ratio", call, options)
    if not given:
        return function
    made = functools.partial(function, **given)
    made.__name__ = value  # type: ignore[attr-defined]  # what documents and configs show
    return made


def surrogate_of(value: Spec) -> Surrogate:
    """The surrogate of a config; its weight, where it has one, is a name of :mod:`rlx.policy.importance`."""
    if callable(value):
        return value
    call = parse(value)
    maker = lookup("surrogate", call.name, SURROGATES)
    given = arguments("surrogate", call, list(inspect.signature(maker).parameters))
    if "weight" in given:
        given["weight"] = part("weight", given["weight"], importance.uniform)
    return maker(**given)


class Penalty(NamedTuple):
    """A KL penalty: estimator, strength, and whether it is multiplied by the ratio."""

    estimator: regularize.Estimator
    strength: float
    corrected: bool = False

    @property
    def keywords(self) -> dict[str, Any]:
        """Keywords of :func:`rlx.policy.objective.policy_loss`."""
        return {"beta": self.strength, "estimator": self.estimator, "correct_kl": self.corrected}

    def of(self, logprobs: Array, other: Array, where: Array) -> Array:
        """The penalty of every token."""
        return self.strength * self.estimator.estimate(ratios.log_ratio(logprobs, other, where=where))


NO_PENALTY = Penalty(regularize.k3, 0.0)


def penalty_of(stage: str, value: str | None) -> Penalty | None:
    """The KL penalty of a config: ``estimator(strength)``."""
    if value is None:
        return None
    call = parse(value) if isinstance(value, str) else Call(repr(value))
    # '+' is no letter of a name
    options = {name.replace("+", "_plus"): estimator for name, estimator in regularize.ESTIMATORS.items()}
    estimator = regularize.check_use(lookup(stage, call.name, options), "loss")
    names = ("strength", "corrected") if stage == "kl" else ("strength",)
    given = arguments(stage, call, names)
    if "strength" not in given:
        raise errors.UserError(f"{stage} {value!r} has no strength: write '{call.name}(0.04)'.")
    return Penalty(estimator, **given)


def strength_of(stage: str, value: Any) -> float:
    """A number."""
    if isinstance(value, str) or not jnp.isscalar(value):
        raise errors.UserError(f"{stage} is the strength of the bonus, a number, got {value!r}.")
    return value


class LossParts(NamedTuple):
    """What the differentiated part of a recipe is made of."""

    ratio: Ratio
    surrogate: Surrogate
    kl: Penalty | None
    old_kl: Penalty | None
    entropy: float


class Reads(NamedTuple):
    """Names of arrays."""

    required: tuple[str, ...]
    optional: tuple[str, ...]


def arrays_read(parts: Mapping[str, Sequence[Part]]) -> Reads:
    """What the parts read of the batch: the estimator gives the advantages, and the mask the lengths."""
    made = {"lengths", "group_where", *(("advantages",) if parts["advantage"] else ())}
    if parts["reward"] and parts["reward"][0].changes not in parts["reward"][0].required:
        made |= {parts["reward"][0].changes}  # made of other arrays altogether
    every = [part for stage in parts.values() for part in stage]
    given = [] if parts["advantage"] else ["advantages"]
    given += [name for name in (bonus_of(parts),) if parts["reward_bonus"] and name not in made]
    required = [name for part in every for name in part.reads if name not in made]
    optional = ["weights", "lengths", *(name for part in every for name in part.optional if name not in made)]
    required = tuple(dict.fromkeys((*given, *required)))
    return Reads(required, tuple(name for name in dict.fromkeys(optional) if name not in required))


def bonus_of(parts: Mapping[str, Sequence[Part]]) -> str:
    """The rewards that the stage ``reward_bonus`` adds to: those that the estimator reads."""
    read = [name for part in parts["advantage"] for name in part.required]
    return "token_rewards" if "token_rewards" in read and "rewards" not in read else "rewards"


def coupling_of(parts: Mapping[str, Sequence[Part]]) -> str:
    """The widest coupling of the parts."""
    found = {part.coupling for stage in parts.values() for part in stage}
    return next((kind for kind in ("batch", "group") if kind in found), "example")


class Run:
    """Runs parts on a batch.

    Attributes:
      pool: arrays by name, to which stages add theirs.
      where: ``[..., K, T]`` response tokens.
      axis_name: mapped axes that the batch is spread over.
    """

    def __init__(self, pool: dict[str, Any], where: Array, key: Array | None, axis_name: numerics.AxisName):
        self.pool, self.where, self.axis_name = pool, where, axis_name
        self._keys = _keys(key)

    def __call__(self, part: Part) -> Any:
        """The result of a part; arrays of its names, and the mask of the level of the first of them."""
        taken = {name: take(self.pool, name, part.label) for name in part.required}
        taken |= {name: self.pool[name] for name in part.optional if name in self.pool}
        options = keywords_of(part.function)
        ambient: dict[str, Any] = {"axis_name": self.axis_name} if "axis_name" in options else {}
        if "where" in options and part.required:
            ambient["where"] = self._where(part)
        if "key" in options:
            ambient["key"] = next(self._keys)
        return part.function(**taken, **{**ambient, **part.keywords})

    def _where(self, part: Part) -> Array | None:
        if part.level and part.level.where:
            return part.level.where(self.pool)
        axes = VOCABULARY[part.required[0]][0].lstrip(".")
        if axes == "KT":
            return self.where
        return self.pool["group_where"] if axes in ("K", "KE") else None

    def tokens(self, part: Part) -> Array:
        """The result of a part as ``[..., K, T]`` or ``[..., K, 1]``; of several results, the advantages."""
        found = self(part)
        array = getattr(found, "advantages", found)
        if part.level:
            return part.level.tokens(array, self.pool)
        if not hasattr(array, "ndim") or array.ndim not in (self.where.ndim - 1, self.where.ndim):
            raise errors.UserError(f"{part.label} gives no array of tokens or responses, but {type(found).__name__}.")
        return array if array.ndim == self.where.ndim else array[..., None]

    def bonus(self, part: Part, name: str) -> Array:
        """The rewards of a name with the result of a part added, at the last token where they are those of tokens."""
        found, rewards = self.tokens(part), take(self.pool, name, part.label)
        if found.shape[-1] != 1:
            raise errors.UserError(f"{part.label} gives numbers of tokens, not of responses: use it as reward.")
        if name == "rewards":
            return rewards + found[..., 0]
        after = jnp.cumsum(self.where[..., ::-1], -1)[..., ::-1]
        return rewards + jnp.where(self.where & (after == 1), found, 0)

    def selected(self, part: Part) -> Array:
        """The result of a part as a boolean array."""
        array = self.tokens(part)
        if array.dtype != bool:
            raise errors.UserError(f"{part.label} gives {array.dtype} numbers, no selection: use it as weight.")
        return array


def _keys(key: Array | None) -> Iterator[Array | None]:
    """The key itself for the first part that draws, others for those after it."""
    yield key
    count = 1
    while True:
        yield None if key is None else jax.random.fold_in(key, count)
        count += 1
