"""One optimiser step: a jitted, donated function of ``(state, batch, auxiliary)``, exact over micro-batches and shards.

Numerators, denominators and gradients of numerators are summed over micro-batches (and, under pmap, over devices); the
division comes once, after the global sum. What couples the batch is computed by ``method.prepare`` on all of it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from rlx import errors, metrics, numerics
from rlx.method import Constants, Method
from rlx.models import Model
from rlx.models.moving import join
from rlx.parts import Call, parse
from rlx.train import policies, sharding
from rlx.train.forward import TOKENS, Arrays, Forward, method_arrays
from rlx.train.guard import Guard, decide
from rlx.train.moved import donating
from rlx.train.split import Split, cut_batch, split_of
from rlx.train.state import TrainState, moving_params

Auxiliary = Mapping[str, Any]
Step = Callable[[TrainState, Mapping[str, jax.Array], Auxiliary], tuple[TrainState, metrics.Metrics]]


def make_train_step(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
    prompt_length: int,
    micro_batches: int = 1,
    rules: Mapping[str, policies.Rule] | None = None,
    models: Mapping[str, Model] | None = None,
    shared_prefix: bool = False,
    guard: Guard | None = None,
) -> Step:
    """The jitted step ``(state, batch, auxiliary) -> (state, metrics)``; the state is donated.

    Args:
      model: policy and head.
      method: what is minimised.
      optimizer: any optax transformation.
      mesh: rows of the batch are spread over its data and fsdp axes; parameters lie as the state has them.
      prompt_length: positions of a row that hold the prompt.
      micro_batches: parts that the batch is worked off in, one after the other; the result is that of the whole batch.
      rules: how the policies beside this one follow it; those of the state alone need one.
      models: of the roles (:data:`rlx.train.policies.ROLES`) whose model is another one.
      shared_prefix: evaluate the prompt once for all candidates of a row, which must have the same.
      guard: what is made of updates that are not finite, or too large; None: nothing.

    Raises:
      UserError: micro-batches with a loss that couples the whole batch through its gradient; rows that do not divide;
        a shared prompt with a model that has no such form.
    """
    check_split(method, micro_batches)
    options = {"prompt_length": prompt_length, "models": models, "shared_prefix": shared_prefix}
    forward = Forward(model, mesh=mesh if mesh.size > 1 else None, **options)

    def step(state: TrainState, batch: Mapping[str, jax.Array], auxiliary: Auxiliary):
        split = split_of(method, batch, micro_batches, sharding.batch_shards(mesh))
        return _step(forward, method, optimizer, split, rules or {}, None, guard, state, batch, auxiliary)

    return donating(model, step)


def make_pmap_step(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    axis_name: str,
    prompt_length: int,
    micro_batches: int = 1,
    rules: Mapping[str, policies.Rule] | None = None,
    models: Mapping[str, Model] | None = None,
    shared_prefix: bool = False,
    guard: Guard | None = None,
    devices: Sequence[Any] | None = None,
) -> Step:
    """The same step under ``jax.pmap``: state and auxiliary replicated, batch arrays ``[devices, rows, ...]``.

    ``method`` must be built for the axis: ``rlx.build(config, axis_name=axis_name)``. ``devices`` are the first ones
    unless given.
    """
    check_split(method, micro_batches)
    forward = Forward(model, prompt_length=prompt_length, models=models, shared_prefix=shared_prefix)

    def step(state: TrainState, batch: Mapping[str, jax.Array], auxiliary: Auxiliary):
        split = split_of(method, batch, micro_batches, 1)
        return _step(forward, method, optimizer, split, rules or {}, axis_name, guard, state, batch, auxiliary)

    return jax.pmap(step, axis_name=axis_name, donate_argnums=0, devices=devices)


def check_split(method: Method, micro_batches: int) -> None:
    """Refuses to split what only the whole batch defines, by name."""
    if micro_batches > 1 and not method.splittable:
        raise errors.UserError(
            f"{method.name} couples the whole batch through its gradient: it cannot be split into "
            f"{micro_batches} micro-batches. Set micro_batches=1, or use more devices."
        )


def _step(
    forward: Forward,
    method: Method,
    optimizer: optax.GradientTransformation,
    split: Split,
    rules: Mapping[str, policies.Rule],
    axis_name: numerics.AxisName,
    guard: Guard | None,
    state: TrainState,
    batch: Mapping[str, jax.Array],
    auxiliary: Auxiliary,
) -> tuple[TrainState, metrics.Metrics]:
    key = jax.random.fold_in(state.key, state.step)
    auxiliary = {**auxiliary, **state.followers}
    policy, moved = state.params["policy"], moving_params(forward.model, state.params)
    pieces = cut_batch(split, batch)

    def prepare(arrays: Arrays) -> tuple[Constants, Any]:
        frozen = jax.lax.stop_gradient(arrays)
        return method.prepare(frozen, jax.lax.stop_gradient(state.params["method"]), state.method_state, key)

    def objective(params, piece, constants):
        """Numerator of a micro-batch; without ``constants`` it is the whole batch and prepares itself."""
        names = method.needs if constants is not None else (*method.needs, *method.prepare_needs)
        own = join(params["policy"], policy)
        arrays = method_arrays(method, forward(own, piece, auxiliary, wanted(method, piece, names)))
        method_state = state.method_state
        if constants is None:
            constants, method_state = prepare(arrays)
        numerator, denominator = method.aggregate.terms(*method.apply(constants, arrays, params["method"]))
        return numerator, (denominator, report(method, arrays, constants), method_state)

    differentiate = jax.value_and_grad(objective, has_aux=True)
    if split.parts == 1:
        piece = {name: x[0] for name, x in pieces.items()}
        (numerator, (denominator, reported, method_state)), grads = differentiate(moved, piece, None)
    else:
        constants, method_state = prepare(_global_arrays(forward, method, state, split, batch, pieces, auxiliary))
        units = {name: split.cut(x) for name, x in constants.units.items()}

        def one(piece_and_units):
            piece, units = piece_and_units
            out = differentiate(moved, piece, Constants(constants.shared, units))
            (numerator, (denominator, reported, _)), grads = out
            return numerator, denominator, reported, grads

        numerator, denominator, reported, grads = _sum_over(one, (pieces, units))

    numerator, denominator, grads = numerics.psum((numerator, denominator, grads), axis_name)
    grads = jax.tree.map(lambda g: method.aggregate.divide(g, denominator.astype(g.dtype)), grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, moved)
    after: Any = optax.apply_updates(moved, updates)
    reported = metrics.psum(reported, axis_name) | {
        "loss": _loss(method, numerator, denominator),
        "grad_norm": metrics.mean_of(optax.tree.norm(grads)),
    }
    if guard is not None:
        changed, before = (after, opt_state, method_state), (moved, state.opt_state, state.method_state)
        (after, opt_state, method_state), reported = decide(guard, before, changed, reported)
    params = {**after, "policy": join(after["policy"], policy)}
    followers = policies.follow(rules, state.followers, after["policy"], state.step + 1)
    return TrainState(state.step + 1, params, opt_state, method_state, state.key, followers), reported


def _sum_over(function: Callable[[Any], Any], pieces: Any) -> Any:
    """Sums numerator, denominator, metrics and gradients over the leading axis of ``pieces``, one piece at a time."""
    numerator, denominator, reported, grads = jax.eval_shape(function, jax.tree.map(lambda x: x[0], pieces))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (numerator, denominator, grads))

    def add(total: Any, piece: Any) -> tuple[Any, None]:
        (sums, before), (numerator, denominator, reported, grads) = total, function(piece)
        sums = jax.tree.map(jnp.add, sums, (numerator, denominator, grads))
        return (sums, metrics.merge(before, reported)), None

    ((numerator, denominator, grads), reported), _ = jax.lax.scan(add, (zero, metrics.nothing(reported)), pieces)
    return numerator, denominator, reported, grads


def _global_arrays(
    forward: Forward, method: Method, state: TrainState, split: Split, batch, pieces, auxiliary: Auxiliary
) -> Arrays:
    """What ``prepare`` reads, of the whole batch: a forward-only pass, skipped where the data has it all."""
    names = wanted(method, batch, method.prepare_needs)

    def one(piece):
        return {k: x for k, x in forward(state.params["policy"], piece, auxiliary, names).items() if k not in given}

    given = {name: batch[name] for name in names if name in batch and name not in TOKENS}
    _, arrays = jax.lax.scan(lambda carry, piece: (carry, one(piece)), None, pieces)
    return method_arrays(method, given | {name: split.join(x) for name, x in arrays.items()})


def wanted(method: Method, batch: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """Arrays to compute: ``names``, and the method's optional ones that come with the data or cost nothing."""
    free = {"lengths", *batch}
    return (*dict.fromkeys(names), *(name for name in method.optional if name in free))


def report(method: Method, arrays: Arrays, constants: Constants) -> metrics.Metrics:
    """The metrics that these arrays and constants can give, by the same names for every method."""
    arrays, units = jax.lax.stop_gradient((arrays, constants.units))
    beta = float(method.hyperparameters.get("beta", 1.0))
    if "policy_logps" in arrays:
        return metrics.preference(arrays, beta=beta)
    if "logprobs" in arrays:
        advantages = units.get("advantages", arrays.get("advantages"))
        shape = arrays["logprobs"].shape
        chosen = [x for x in units.values() if x.dtype == bool and x.shape == shape]
        selected = functools.reduce(jnp.logical_and, chosen, jnp.ones(shape, bool))
        found = metrics.tokens(arrays) | metrics.policy_gradient(arrays, advantages, selected, **clip_range(method))
        shared = jax.lax.stop_gradient(constants.shared)
        found |= {name: metrics.mean_of(value) for name, value in shared.items() if name.endswith("_coefficient")}
        if "returns" in arrays:
            found["value_error"] = metrics.mean_of(jnp.square(arrays["values"] - arrays["returns"]), arrays["where"])
        return found
    return metrics.scored(arrays["rewards"], arrays["where"]) if "rewards" in arrays else {}


def clip_range(method: Method) -> dict[str, float]:
    """How far from 1 the ratio may go before a method clips it; that of PPO, 0.2, for methods that have no clip."""
    given = method.hyperparameters
    call = given.get("surrogate", "")
    own = parse(call) if isinstance(call, str) and call.startswith("clip") else Call("clip")
    named = dict(zip(("low", "high"), own.arguments, strict=False)) | dict(own.keywords)
    found = {side: given.get(f"clip_{side}", named.get(side, 0.2)) for side in ("low", "high")}
    return {side: float(value) for side, value in found.items() if isinstance(value, int | float)}


def _loss(method: Method, numerator: jax.Array, denominator: jax.Array) -> metrics.Mean:
    """The loss as a mean that merges over batches; a plain sum counts batches."""
    return metrics.Mean(numerator, jnp.ones_like(numerator) if method.aggregate.count is None else denominator)


def make_eval_step(
    model: Model, method: Method, *, mesh: Mesh, prompt_length: int, models: Mapping[str, Model] | None = None
) -> Callable[..., metrics.Metrics]:
    """The jitted ``(params, method_state, batch, auxiliary) -> metrics``, loss included; state is only read."""
    forward = Forward(model, prompt_length=prompt_length, mesh=mesh if mesh.size > 1 else None, models=models)
    names = (*method.needs, *method.prepare_needs)

    def evaluate(params, method_state, batch: Mapping[str, jax.Array], auxiliary: Auxiliary) -> metrics.Metrics:
        arrays = method_arrays(method, forward(params["policy"], batch, auxiliary, wanted(method, batch, names)))
        constants, _ = method.prepare(arrays, params["method"], method_state, jax.random.PRNGKey(0))
        terms = method.aggregate.terms(*method.apply(constants, arrays, params["method"]))
        return report(method, arrays, constants) | {"loss": _loss(method, *terms)}

    return jax.jit(evaluate)


def make_score(model: Model, *, mesh: Mesh, prompt_length: int) -> Callable[..., Arrays]:
    """The jitted ``(policy_params, batch) -> {"logps": [B, K], "kl_logps": [B, K] where the batch has kl_tokens}``."""
    forward = Forward(model, prompt_length=prompt_length, mesh=mesh if mesh.size > 1 else None)

    def score(params, batch: Mapping[str, jax.Array]) -> Arrays:
        scores = {"logps": forward.logps(params, batch)}
        return scores | ({"kl_logps": forward.logps(params, batch, prefix="kl_")} if "kl_tokens" in batch else {})

    return jax.jit(score)
