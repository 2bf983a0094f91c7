"""A method as three pure functions: ``init`` its parameters and state, ``prepare`` the batch, ``apply`` for losses.

A trainer computes what ``needs`` names, calls ``prepare`` on the global batch once per optimiser step, then ``apply``
on every micro-batch with the constants of that step. :func:`stateless` lifts a plain loss function; a method with
state or parameters replaces ``init`` or ``prepare`` of the lifted one.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from rlx import aggregate, errors, numerics
from rlx.types import Array, Batch

PyTree = Any


class Shapes(NamedTuple):
    """Sizes that a method's own parameters and state may depend on."""

    hidden_size: int = 0
    vocab_size: int = 0
    num_examples: int = 0


class Constants(NamedTuple):
    """What couples a batch, without gradient.

    Attributes:
      shared: the same for every micro-batch (a KL estimate, a threshold, a normaliser).
      units: one entry per row on the leading axis, cut up together with the batch (labels, a selection).
    """

    shared: dict[str, PyTree]
    units: dict[str, Array]


class Coupled(NamedTuple):
    """A constant that a loss takes as a keyword and that depends on the whole batch.

    Attributes:
      function: batch arrays by positional name, then keywords -> the constant. Keywords of the loss with the same name
        are handed on, and so are ``where``, ``key`` and ``axis_name`` where the function takes them.
      per_unit: whether the result has a leading batch axis.
    """

    function: Callable[..., Array]
    per_unit: bool = False


class Method(NamedTuple):
    """A method as the trainer sees it.

    Attributes:
      name: catalogue name.
      init: ``(key, shapes) -> (params, state)``, dictionaries of arrays; ``params`` join the policy in the optimiser.
      prepare: ``(batch, params, state, key) -> (constants, next state)`` on the global batch, without gradient.
        State is read as it stood at the start of the step and updated once.
      apply: ``(constants, batch, params) -> (losses, where)`` of the units of a micro-batch.
      aggregate: the reduction of the units.
      needs: names of the arrays (:data:`rlx.types.VOCABULARY`) that ``apply`` reads, ``where`` aside.
      optional: names that it reads when the batch has them.
      prepare_needs: those of them that ``prepare`` reads.
      coupling: ``example``, ``group`` or ``batch``: what may never be split without ``prepare``.
      splittable: whether micro-batches give the same result as the whole batch.
      separable: whether, once ``prepare`` has seen the whole batch, ``apply`` takes each response by itself, so that
        micro-batches may part those of a row.
      partition: ``(params, state) -> PartitionSpecs`` of the same structure, each None to replicate it; None: both.
      hyperparameters: the keywords it was built with.
      data: the kind of examples it trains on: ``pairs``, ``lists``, ``unpaired`` or ``sft`` (single responses).
      preferences: of a preference model, ``(batch, params) -> [..., K, K]``: the probability that response i beats j.
    """

    name: str
    init: Callable[[Array, Shapes], tuple[PyTree, PyTree]]
    prepare: Callable[[Batch, PyTree, PyTree, Array | None], tuple[Constants, PyTree]]
    apply: Callable[[Constants, Batch, PyTree], tuple[Array, Array]]
    aggregate: aggregate.Aggregation
    needs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    prepare_needs: tuple[str, ...] = ()
    coupling: str = "example"
    splittable: bool = True
    separable: bool = False
    partition: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]] | None = None
    hyperparameters: Mapping[str, Any] = {}
    data: str = "pairs"
    preferences: Callable[[Batch, PyTree], Array] | None = None


def arrays_of(function: Callable) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the arrays a function takes by position: the required ones, and those with a default.

    >>> arrays_of(lambda policy_logps, lengths=None, *, beta=0.1: None)
    (('policy_logps',), ('lengths',))
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]
    required = tuple(p.name for p in positional if p.default is inspect.Parameter.empty)
    return required, tuple(p.name for p in positional if p.default is not inspect.Parameter.empty)


def keywords_of(function: Callable) -> dict[str, Any]:
    """Keyword-only parameters of a function and their defaults.

    >>> keywords_of(lambda policy_logps, *, beta=0.1, where=None: None)
    {'beta': 0.1, 'where': None}
    """
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def take(batch: Batch, name: str, method: str) -> Array:
    """An array of the batch, or an error that names the key, the method and what the batch has."""
    if name in batch:
        return batch[name]
    hint = errors.close_matches(name, batch)
    raise errors.UserError(
        f"{method} needs {name!r}, which the batch does not have.{hint} It has: {', '.join(sorted(batch))}."
    )


def stateless(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    keywords: Mapping[str, Any] | None = None,
    coupled: Mapping[str, Coupled] | None = None,
    coupling: str = "example",
    aggregation: aggregate.Aggregation | None = None,
    axis_name: numerics.AxisName = None,
) -> Method:
    """Lifts a loss function to a :class:`Method` without parameters or state.

    Args:
      function: a loss in the signature law: arrays by position, then keywords, among them ``where`` and ``reduce``.
      name: shown in errors; the function's own name by default.
      keywords: hyperparameters.
      coupled: keyword of the loss -> what computes it from the global batch.
      coupling: ``example``, ``group`` or ``batch``; a batch coupling without ``coupled`` cannot be split.
      aggregation: reduction of the units; the default of the function's ``reduce`` keyword otherwise.
      axis_name: mapped axes of pmap or shard_map that the batch is spread over.
    """
    name = name or function.__name__
    keywords, coupled = dict(keywords or {}), dict(coupled or {})
    required, optional = arrays_of(function)
    accepted = keywords_of(function)
    reduction = aggregation or accepted.get("reduce") or aggregate.mean

    def call(target: Callable, batch: Batch, key: Array | None, **more: Any) -> Any:
        wanted, wanted_optional = arrays_of(target)
        arrays = {n: take(batch, n, name) for n in wanted} | {n: batch[n] for n in wanted_optional if n in batch}
        ambient = {"where": batch.get("where"), "key": key, "axis_name": axis_name}
        options = keywords_of(target)
        chosen = {k: v for k, v in (ambient | keywords).items() if k in options}
        return target(**arrays, **(chosen | more))

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        del params
        frozen = jax.lax.stop_gradient(dict(batch))
        values = {k: jax.lax.stop_gradient(call(part.function, frozen, key)) for k, part in coupled.items()}
        shared = {k: v for k, v in values.items() if not coupled[k].per_unit}
        return Constants(shared, {k: v for k, v in values.items() if coupled[k].per_unit}), state

    def apply(constants: Constants, batch: Batch, params: PyTree) -> tuple[Array, Array]:
        del params
        return call(function, batch, None, **constants.shared, **constants.units, reduce=aggregate.units)

    prepare_needs = {n for part in coupled.values() for n in arrays_of(part.function)[0]}
    return Method(
        name,
        lambda key, shapes: ({}, {}),
        prepare,
        apply,
        reduction.over(axis_name),
        required,
        optional,
        tuple(sorted(prepare_needs)),
        coupling,
        coupling != "batch" or bool(coupled),
        hyperparameters=accepted | keywords,
    )


def loss(method: Method, batch: Batch, params: PyTree = None, state: PyTree = None, key: Array | None = None) -> Array:
    """The reduced loss of a whole batch in one go: ``prepare``, ``apply``, aggregate.

    >>> from rlx.preference.pairwise import dpo
    >>> import jax.numpy as jnp
    >>> batch = {"policy_logps": jnp.array([[-1.0, -2.0]]), "reference_logps": jnp.array([[-1.0, -1.0]])}
    >>> print(f"{loss(stateless(dpo, keywords={'beta': 1.0}), batch):.4f}")
    0.3133
    """
    constants, _ = method.prepare(batch, params, state, key)
    return method.aggregate(*method.apply(constants, batch, params))
