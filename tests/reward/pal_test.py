"""PAL with its parameters: two kinds of users are told apart, new users fit only themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx import errors, method
from rlx.reward import pal

RNG = np.random.default_rng(0)
USERS, PAIRS, SIZE = 6, 240, 4


def judged(users=USERS, pairs=PAIRS):
    """Even users like the first coordinate high, odd ones low."""
    hidden = RNG.normal(size=(pairs, 2, SIZE)).astype(np.float32)
    ids = np.arange(pairs) % users
    taste = np.where(ids % 2, -1, 1)[:, None] * hidden[..., 0]
    order = np.argsort(-taste, -1)[..., None]
    return {"hidden": jnp.asarray(np.take_along_axis(hidden, order, 1)), "user_ids": jnp.asarray(ids)}


def fit(built, params, batch, steps=200):
    optimizer = optax.adam(0.03)
    start = params, optimizer.init(params)

    @jax.jit
    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(lambda p: method.loss(built, batch, p, {}))(params)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, start, length=steps)
    return params, losses


def build(**more):
    built = rlx.build({"name": "pal", "num_users": USERS, "dimension": 3, "loss": "logistic", **more})
    return built, built.init(jax.random.key(0), method.Shapes(hidden_size=SIZE))[0]


def test_two_kinds_of_users_are_told_apart_and_new_ones_join_them():
    built, params = build()
    params, losses = fit(built, params, judged())
    kinds = np.sign(params["users"][:, 0] - params["users"][:, 1])
    assert losses[-1] < 0.4 * losses[0] and (kinds == kinds[0] * np.array([1, -1] * 3)).all()

    joined, _ = build(num_users=2, only_users=True)
    start = params | {"users": jnp.zeros((2, 2))}
    after, _ = fit(joined, start, judged(users=2, pairs=40), steps=60)
    assert (np.sign(after["users"][:, 0] - after["users"][:, 1]) == kinds[:2]).all()
    jax.tree.map(np.testing.assert_array_equal, after | {"users": 0}, params | {"users": 0})


def test_only_users_pass_no_gradient_to_the_policy():
    built, params = build(only_users=True)
    params["users"] += jax.random.normal(jax.random.key(1), params["users"].shape)
    batch = judged()
    slope = jax.grad(lambda h: method.loss(built, batch | {"hidden": h}, params, {}))(batch["hidden"])
    np.testing.assert_array_equal(slope, 0)


def test_users_count_alike_whatever_they_judged():
    batch = judged()
    batch["user_ids"] = jnp.asarray(np.where(np.arange(PAIRS) < 200, 0, 1))
    built, params = build(num_users=2, user_counts=(200, 40), bound=None)
    plain, _ = build(num_users=2, bound=None)
    losses, _ = plain.apply(method.Constants({}, {}), batch, params)
    wanted = (losses[:200].mean() + losses[200:].mean()) / 2
    np.testing.assert_allclose(method.loss(built, batch, params, {}), wanted, rtol=1e-5)


def test_prototypes_beyond_the_bound_cost_their_excess():
    batch = judged()
    built, params = build(bound=4.0, lmd=2.0)
    free, _ = build(bound=None)
    params["prototypes"] = jnp.array([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    difference = method.loss(built, batch, params, {}) - method.loss(free, batch, params, {})
    np.testing.assert_allclose(difference, 2.0, rtol=1e-4)


@pytest.mark.parametrize("learner", ["f(P)w", "f(Pw)", "|f(P)|w"])
def test_prototypes_live_among_the_items_for_other_learners(learner):
    built, params = build(learner=learner, preference="angle")
    assert params["prototypes"].shape == (2, SIZE) and params["logit_scale"].shape == ()
    slopes = jax.grad(lambda p: method.loss(built, judged(), p, {}))(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes)) and slopes["logit_scale"] != 0


def test_wrong_settings_are_named():
    with pytest.raises(errors.UserError, match="num_users must be above 0"):
        pal.pal_method(num_users=0)
    with pytest.raises(errors.UserError, match="user_counts has 1 entries for 2 users"):
        pal.pal_method(num_users=2, user_counts=(3,))
    with pytest.raises(errors.UserError, match="pal needs the hidden size"):
        pal.pal_method().init(jax.random.key(0), method.Shapes())
    with pytest.raises(errors.UserError, match="pal needs 'user_ids'"):
        build()[0].apply(method.Constants({}, {}), {"hidden": jnp.zeros((1, 2, SIZE))}, build()[1])
