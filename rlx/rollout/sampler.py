"""Draws a group of responses to every prompt and says how probable each token was: one jitted program."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlx.errors import UserError
from rlx.models import axes
from rlx.models.base import Model, Params
from rlx.models.sampling import chosen, continuations, decoder, invert
from rlx.rollout import stopping
from rlx.rollout.truncation import COLDEST, statistics, truncate
from rlx.rollout.types import Engine, Rollout, Sampling, check

ROWS = ("data", "fsdp")  # axes of a mesh that the prompts are spread over, and over "sequence" where it divides


def sample(
    model: Model,
    params: Params,
    prompt_tokens: Any,
    prompt_valid: Any = None,
    *,
    group: int = 1,
    sampling: Sampling,
    key: jax.Array,
    mesh: Mesh | None = None,
) -> Rollout:
    """Continues each of P prompts K times.

    The prompt is evaluated once and its keys and values are read by its whole group. A token takes one uniform number,
    which follows from ``key``, the number of its row and its position alone: rows of padding at the end, or a longer
    ``max_new_tokens``, leave the others' as they were. The numbers in ``sampling`` (temperature, top_k, top_p, min_p)
    may change from call to call without another compilation.

    Args:
        model: with ``decode`` None the whole sequence is evaluated for each token; without ``decode.fork`` the prompt
            is evaluated K times.
        params: of the model.
        prompt_tokens: int32 ``[P, L]``, padded on the left.
        prompt_valid: bool ``[P, L]``, real tokens, by default all; rows without any are drawn for, and mean nothing.
        group: K, responses to each prompt.
        sampling: how they are drawn.
        key: of the random numbers.
        mesh: spreads the prompts over the axes ``data``, ``fsdp`` and, where they divide, ``sequence``, the model over
            ``model``; parameters that are split over ``fsdp`` are gathered once.

    Returns:
        Tokens ``[P, K, M]`` with their log-probabilities; see :class:`Rollout`.

    Raises:
        UserError: a field of ``sampling`` out of its range, prompts of another shape or padded on the right, or P is
            not a multiple of the shards of the mesh.

    >>> from rlx import models
    >>> model = models.build({"vocab_size": 16, "hidden_size": 8, "num_heads": 2, "num_layers": 1})
    >>> drawn = sample(
    ...     model, model.init(0), np.array([[1, 2, 3]]), group=2, sampling=Sampling(4, top_p=0.9), key=jax.random.key(0)
    ... )
    >>> print(drawn.tokens.shape, drawn.lengths, bool((drawn.rollout_logprobs >= drawn.logprobs).all()))
    (1, 2, 4) [[4 4]] True
    """
    check(sampling, model.vocab_size)
    if prompt_valid is None:
        prompt_valid = np.ones(np.shape(prompt_tokens), bool)
    _check_prompts(prompt_tokens, prompt_valid, group, mesh)
    plan, numbers = _split(sampling)
    if model.decode is not None and model.decode.unrolled is not None:
        model, params = model.decode.unrolled(params)
    prompts = _laid(prompt_tokens, jnp.int32), _laid(prompt_valid, bool)
    return _sample(model, plan, group, mesh, params, *prompts, numbers, key)


def _laid(x: Any, kind: Any) -> Any:
    """Arrays of a device as they are; what every process has on its host goes to the devices of all of them."""
    return jnp.asarray(x, kind) if isinstance(x, jax.Array) else np.asarray(x, kind)


def engine(model: Model, sampling: Sampling, *, mesh: Mesh | None = None) -> Engine:
    """The sampler as an engine: what remains to be given are parameters, prompts, the group's size and a key.

    Raises:
        UserError: a field of ``sampling`` out of its range.
    """
    check(sampling, model.vocab_size)
    return functools.partial(sample, model, sampling=sampling, mesh=mesh)


def _check_prompts(tokens: Any, valid: Any, group: int, mesh: Mesh | None) -> None:
    shape = np.shape(tokens)
    if len(shape) != 2 or not shape[0] or not shape[1]:
        raise UserError(f"prompt_tokens must be [prompts, length] with at least one token, not of shape {shape}.")
    if np.shape(valid) != shape:
        raise UserError(f"prompt_valid has shape {np.shape(valid)}, prompt_tokens {shape}: they must be equal.")
    if not isinstance(group, (int, np.integer)) or group < 1:
        raise UserError(f"group is the number of responses to a prompt and must be at least 1, got {group!r}.")
    if isinstance(valid, np.ndarray):  # what is on a device already is not read back
        wrong = np.flatnonzero(valid.any(-1) & ~valid[:, -1].astype(bool))
        if len(wrong):
            raise UserError(f"prompt {wrong[0]} ends with padding: prompts must be padded on the left.")
    shards = 1 if mesh is None else int(np.prod([mesh.shape.get(axis, 1) for axis in ROWS]))
    if shape[0] % shards:
        raise UserError(
            f"{shape[0]} prompts do not divide over mesh.data x mesh.fsdp = {shards} shards: pad them with rows that "
            "are not valid."
        )


def _split(sampling: Sampling) -> tuple[Sampling, dict[str, float]]:
    """What decides the program, and the numbers in it: of those the plan only says that they are there."""
    plan, numbers = sampling, {}
    if sampling.top_p == 1:
        plan = plan._replace(top_p=None)
    for name, plain in (("temperature", (0, 1)), ("top_k", (None,)), ("top_p", (None,)), ("min_p", (None,))):
        value = getattr(plan, name)
        if value not in plain and not callable(value):
            numbers[name] = np.float32(value)
            plan = plan._replace(**{name: -1})
    return plan, numbers


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _sample(model: Model, plan: Sampling, group: int, mesh: Mesh | None, params, tokens, valid, numbers, key):
    size, (count, _) = plan.max_new_tokens, tokens.shape
    params, tokens, valid = _place(model, mesh, params, tokens, valid)
    found = continuations(
        decoder(model),
        params,
        tokens,
        valid,
        size=size,
        choose=functools.partial(_choose, plan, numbers, _uniform(key, count * group, size)),
        ended=lambda i, drawn: stopping.ended(drawn, i, eos_id=plan.eos_id, stop=plan.stop),
        group=group,
        fill=plan.pad_id,
        softcap=model.softcap,
    )
    where = jnp.arange(size) < found.lengths[:, None]
    arrays = (found.tokens, where, found.lengths, found.finished, *found.statistics)
    drawn = Rollout(*(x.reshape(count, group, *x.shape[1:]) for x in arrays))
    if mesh is None or len({device.process_index for device in mesh.devices.flat}) == 1:
        return drawn
    return jax.lax.with_sharding_constraint(drawn, NamedSharding(mesh, PartitionSpec()))  # every process reads it


def _place(model: Model, mesh: Mesh | None, params, *rows):
    """Prompts spread over the mesh, parameters split over its axis ``model`` alone."""
    if mesh is None:
        return params, *rows

    def put(x, *axes):
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))

    def whole(x, spec):
        ways = mesh.shape.get("model", 1)
        split = zip(tuple(spec) + (None,) * (x.ndim - len(spec)), x.shape, strict=True)
        return put(x, *("model" if name == "model" and not size % ways else None for name, size in split))

    if model.partition is None:
        params = jax.tree.map(put, params)
    else:
        leaves, structure = jax.tree.flatten(params)
        specs = structure.flatten_up_to(model.partition(params))
        params = structure.unflatten([whole(*pair) for pair in zip(leaves, specs, strict=True)])
    prompts = axes.fit(PartitionSpec((*ROWS, "sequence")), rows[0].shape[:1], mesh.shape)
    return params, *(put(x, *prompts) for x in rows)


def _uniform(key: jax.Array, rows: int, size: int) -> jax.Array:
    """Numbers in [0, 1) for every step and row, ``[M, N]``: neither more rows nor more steps change the others."""
    # one step after the other: the generator compiles in half the time that it takes for all of them at once
    return jax.lax.map(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (rows,)), jnp.arange(size))


def _choose(plan: Sampling, numbers: dict[str, jax.Array], uniform: jax.Array, i: jax.Array, logits: jax.Array):
    """The tokens of step i; their log-probability under the policy and under what is drawn from, and the entropy."""
    found = statistics(logits)

    def logprob(token: jax.Array, temperature: Any = 1.0, normaliser: jax.Array = found.total) -> jax.Array:
        return (chosen(logits, token) - found.top[:, 0]) / temperature - jnp.log(normaliser)

    if plan.temperature == 0:
        token = jnp.argmax(logits, -1)
        return token, (logprob(token), jnp.zeros_like(found.entropy), found.entropy)
    weights, temperature = found.weights, 1.0
    if plan.temperature != 1:
        temperature = numbers.get("temperature", 1.0)
        if callable(plan.temperature):
            temperature = jnp.maximum(plan.temperature(found.entropy), COLDEST)
        temperature = jnp.broadcast_to(jnp.asarray(temperature, logits.dtype), found.entropy.shape)
        weights = jnp.exp((logits - found.top) / temperature[:, None])
    cuts = {name: numbers[name] for name in ("top_k", "top_p", "min_p") if name in numbers}
    weights = truncate(weights, **cuts) if cuts else weights
    token = invert(weights, uniform[i])
    return token, (logprob(token), logprob(token, temperature, weights.sum(-1)), found.entropy)
