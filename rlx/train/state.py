"""The train state: one pytree with everything that a step changes, sharded from the moment it exists."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlx.method import Method, Shapes
from rlx.models import Model
from rlx.models.moving import join, moving, staying
from rlx.train import policies, sharding


class TrainState(NamedTuple):
    """Attributes:
    step: optimiser steps taken, int32.
    params: ``{"policy": ..., "method": ...}``; the optimiser moves it, but for leaves of the policy that stay.
    opt_state: of optax.
    method_state: signals of the method.
    key: base of the random numbers; step t uses ``fold_in(key, t)``.
    followers: the moving part of the policies that follow this one, by role (:mod:`rlx.train.policies`).
    memory: what rollouts remember between steps (:mod:`rlx.train.memory`), apart from what an update touches.
    """

    step: jax.Array
    params: dict[str, Any]
    opt_state: Any
    method_state: Any
    key: jax.Array
    followers: dict[str, Any] = {}
    memory: dict[str, Any] = {}


def moving_params(model: Model, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the optimiser moves of the ``params`` of a state."""
    return {**params, "policy": moving(model, params["policy"])}


def state_shardings(
    state: TrainState, model: Model, method: Method, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shardings of a state (arrays or shapes): moments of the optimiser lie where their parameter lies."""
    replicated = NamedSharding(mesh, PartitionSpec())
    policy = state.params["policy"]
    policy_specs = None if model.partition is None else model.partition(policy)
    method_specs = (None, None)
    if method.partition is not None:
        method_specs = method.partition(state.params["method"], state.method_state)
    params = {
        "policy": sharding.tree_shardings(policy, policy_specs, mesh),
        "method": sharding.tree_shardings(state.params["method"], method_specs[0], mesh),
    }
    moved = {**params, "policy": moving(model, policy, params["policy"])}
    opt_state = optax.tree_utils.tree_map_params(
        optimizer, lambda _, where: where, state.opt_state, moved, transform_non_params=lambda _: replicated
    )
    method_state = sharding.tree_shardings(state.method_state, method_specs[1], mesh)
    own_specs = policy_specs and moving(model, policy, policy_specs)
    followers = {
        role: sharding.tree_shardings(tree, _stacked(own_specs) if role == "opponents" else own_specs, mesh)
        for role, tree in state.followers.items()
    }
    memory = sharding.tree_shardings(state.memory, None, mesh)
    return TrainState._make((replicated, params, opt_state, method_state, replicated, followers, memory))


def _stacked(specs: Any) -> Any:
    """The specs of policies stacked on a leading axis, which is not split."""
    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    return None if specs is None else jax.tree.map(lambda spec: PartitionSpec(None, *spec), specs, is_leaf=is_spec)


def create_state(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    shapes: Shapes,
    *,
    seed: int,
    mesh: Mesh,
    policy: Any = None,
    rules: Mapping[str, policies.Rule] | None = None,
    memory: Mapping[str, Any] | None = None,
) -> TrainState:
    """A fresh state on the mesh.

    Args:
      model: policy; its parameters are drawn from ``seed`` unless ``policy`` gives them.
      method: brings its own parameters and state.
      optimizer: moves both.
      shapes: sizes for the method's own arrays.
      seed: of the policy, the method and the run's random numbers.
      mesh: where the state lives.
      policy: parameters to start from, of an earlier stage or a checkpoint; copied, so that donation cannot eat them
        (leaves that stay are not donated, and shared). Or what is called, instead of ``init``, as
        ``model.pretrained`` is.
      rules: the policies beside this one; those that follow it become part of the state.
      memory: of rollouts, as they start.
    """
    method_key, run_key = jax.random.split(jax.random.PRNGKey(seed))
    blank = blank_state(model, method, optimizer, shapes, mesh=mesh, policy=policy, rules=rules, memory=memory)
    places = jax.tree.map(lambda leaf: leaf.sharding, blank)
    here = places.params["policy"]
    put = place
    if policy is None or callable(policy):
        put, init = sharding.lay, policy or model.init
        policy = init(seed) if model.shapes is None else init(seed, here)
    own, method_state = method.init(method_key, shapes)
    moved = jax.tree.map(put, moving(model, policy), moving(model, policy, here))
    moved = {"policy": moved, "method": jax.tree.map(place, own, places.params["method"])}
    opt_state = jax.jit(optimizer.init, out_shardings=places.opt_state)(moved)
    kept = jax.tree.map(sharding.lay, staying(model, policy), staying(model, policy, here))
    params = {**moved, "policy": join(moved["policy"], kept)}
    followers = policies.followers(rules or {}, moved["policy"])
    step, method_state, run_key, followers, remembered = jax.tree.map(
        place,
        (jnp.zeros((), jnp.int32), method_state, run_key, followers, dict(memory or {})),
        (places.step, places.method_state, places.key, places.followers, places.memory),
    )
    return TrainState(step, params, opt_state, method_state, run_key, followers, remembered)


def blank_state(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    shapes: Shapes,
    *,
    mesh: Mesh,
    policy: Any = None,
    rules: Mapping[str, policies.Rule] | None = None,
    memory: Mapping[str, Any] | None = None,
) -> TrainState:
    """Shapes, types and shardings of a state, which holds no array: what a step can be compiled for.

    Arguments are those of :func:`create_state`; of ``policy`` only the shapes are read.
    """

    def make(policy: Any, memory: Any) -> TrainState:
        key = jax.random.PRNGKey(0)
        own, method_state = method.init(key, shapes)
        params = {"policy": policy, "method": own}
        moved = moving_params(model, params)
        followers = policies.followers(rules or {}, moved["policy"])
        step = jnp.zeros((), jnp.int32)
        return TrainState(step, params, optimizer.init(moved), method_state, key, followers, memory)

    if policy is None or callable(policy):
        policy = model.blank()
    blank = jax.eval_shape(make, policy, dict(memory or {}))
    places = state_shardings(blank, model, method, optimizer, mesh)
    return jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), blank, places)


def place(array: Any, where: NamedSharding) -> jax.Array:
    """A copy of an array with the given sharding, made shard by shard."""
    return jnp.copy(sharding.lay(array, where))
