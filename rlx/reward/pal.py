"""PAL as a method with its own parameters: a projector of the items, prototypes, and the weights of every user."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rlx import errors, numerics
from rlx.method import Constants, Method, PyTree, Shapes, stateless, take
from rlx.preference import compare
from rlx.reward import embedding, ideal_point
from rlx.types import Array, Batch, check_positive

NEEDS = ("hidden", "user_ids")


def projector(layers: Sequence[dict[str, Array]], x: Array) -> Array:
    """Linear layers with GELU between them."""
    for i, layer in enumerate(layers):
        x = (jax.nn.gelu(x) if i else x) @ layer["weight"] + layer["bias"]
    return x


def prototype_bound(prototypes: Array, bound: float) -> Array:
    r"""By how much the norms of prototypes exceed a bound, in all: :math:`\sum_p \max(0, \|p\| - b)`.

    >>> print(prototype_bound(jnp.array([[3.0, 4.0], [1.0, 0.0]]), 4.0))
    1.0
    """
    return jax.nn.relu(embedding.norm(prototypes) - bound).sum()


def user_balance(
    user_ids: Array,
    counts: Array,
    *,
    where: Array | None = None,
    axis_name: numerics.AxisName = None,
) -> Array:
    """Weights ``[...]`` of pairs that give every user the same say: 1/(pairs of the user), of mean 1 over the batch.

    >>> print(user_balance(jnp.array([0, 1]), jnp.array([1, 3])))
    [1.5 0.5]
    """
    inverse = 1 / jnp.asarray(counts, jnp.result_type(float))[user_ids]
    return numerics.safe_divide(inverse, numerics.mean(inverse, where=where, axis_name=axis_name))


def pal_method(
    *,
    num_users: int = 1,
    prototypes: int = 2,
    dimension: int = 512,
    layers: int = 2,
    preference: str = "distance",
    loss: str = "hinge",
    learner: str = "Pw",
    temperature: float = 1.0,
    bound: float | None = 4.0,
    lmd: float = 1.0,
    user_counts: Sequence[int] | None = None,
    only_users: bool = False,
    axis_name: numerics.AxisName = None,
) -> Method:
    """Pluralistic alignment with everything it learns, joined to the policy in the optimiser.

    For new users take the parameters of a trained run, put ``zeros([new users, prototypes])`` in the place of
    ``users``, and go on with ``only_users=True``: no gradient reaches anything else.

    Args:
      num_users: users are numbered 0 to num_users - 1 in ``user_ids``.
      prototypes: P, the kinds of users; 2 in the paper's configs.
      dimension: of the space in which ideal points live.
      layers: linear layers of the projector.
      preference: ``distance`` or ``angle``; the angle learns its scale.
      loss: ``hinge``, ``hinge_smooth`` or ``logistic``.
      learner: ``Pw`` or another of :data:`~rlx.reward.ideal_point.LEARNERS`.
      temperature: of the users' softmax.
      bound: norm of the prototypes beyond which ``lmd`` times the excess is added to the loss; None for no bound.
      lmd: weight of that term.
      user_counts: pairs of each user in the data: pairs are then weighted so that users count alike.
      only_users: fit the weights of users alone.
      axis_name: mapped axes the batch is spread over.

    Raises:
      UserError: a size is not above 0, there are not as many counts as users, or the model tells no hidden size.

    >>> method = pal_method(num_users=5, dimension=4)
    >>> params, _ = method.init(jax.random.key(0), rlx.method.Shapes(hidden_size=16))
    >>> params["users"].shape, params["prototypes"].shape
    ((5, 2), (2, 4))

    References:
      Chen et al., *PAL: Pluralistic Alignment Framework for Learning from Heterogeneous Preferences*, arXiv:2406.08469.
    """
    hyperparameters = {k: v for k, v in locals().items() if k != "axis_name"}
    check_positive(num_users=num_users, prototypes=prototypes, dimension=dimension, layers=layers)
    if user_counts is not None and len(user_counts) != num_users:
        raise errors.UserError(f"user_counts has {len(user_counts)} entries for {num_users} users.")
    lifted = stateless(ideal_point.pal, keywords={"preference": preference, "loss": loss}, axis_name=axis_name)
    frozen = jax.lax.stop_gradient if only_users else lambda x: x

    def init(key: Array, shapes: Shapes) -> tuple[PyTree, PyTree]:
        if shapes.hidden_size <= 0:
            raise errors.UserError(f"pal needs the hidden size of the model, got {shapes.hidden_size}.")
        width = dimension if learner == "Pw" else shapes.hidden_size
        params: dict[str, Any] = {"projector": _layers(key, [shapes.hidden_size] + [dimension] * layers)}
        params["prototypes"] = jax.random.normal(jax.random.fold_in(key, layers), (prototypes, width)) / width**0.5
        params["users"] = jnp.zeros((num_users, prototypes))
        return params | ({"logit_scale": jnp.log(1 / 0.07)} if preference == "angle" else {}), {}

    def prepare(batch: Batch, params: PyTree, state: PyTree, key: Array | None = None) -> tuple[Constants, PyTree]:
        if user_counts is None:
            return Constants({}, {}), state
        where = compare.pair_where(batch.get("where"))
        counts, users = jnp.asarray(user_counts), take(batch, "user_ids", "pal")
        return Constants({}, {"weights": user_balance(users, counts, where=where, axis_name=axis_name)}), state

    def apply(constants: Constants, batch: Batch, params: PyTree) -> tuple[Array, Array]:
        hidden, users = (take(batch, name, "pal") for name in NEEDS)
        where, shared = batch.get("where"), frozen({k: v for k, v in params.items() if k != "users"})
        project = lambda x: projector(shared["projector"], x)  # noqa: E731
        hidden = frozen(numerics.clean(numerics.accumulate(hidden), None if where is None else where[..., None]))
        points = ideal_point.ideal_points(
            params["users"][users], shared["prototypes"], temperature=temperature, learner=learner, project=project
        )
        scale = Constants({k: v for k, v in shared.items() if k == "logit_scale"}, {})
        arrays = {"embeddings": project(hidden), "ideal_points": points, "where": where}
        losses, real = lifted.apply(scale, arrays, params)
        losses = losses * constants.units.get("weights", 1.0)
        beyond = 0.0 if bound is None else lmd * prototype_bound(shared["prototypes"], bound)
        return numerics.clean(losses + beyond, real), real

    return lifted._replace(
        init=init,
        prepare=prepare,
        apply=apply,
        needs=NEEDS,
        prepare_needs=("user_ids",) if user_counts is not None else (),
        hyperparameters=hyperparameters,
    )


def _layers(key: Array, sizes: Sequence[int]) -> list[dict[str, Array]]:
    """Weights of linear layers, normal with variance 1/(inputs)."""
    made = []
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        weight = jax.random.normal(jax.random.fold_in(key, i), (inputs, outputs)) / inputs**0.5
        made.append({"weight": weight, "bias": jnp.zeros(outputs)})
    return made
