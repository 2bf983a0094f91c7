"""EGGROLL: the factors against dense noise, jit, shards of a population, mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.policy import evolution

KEY = jax.random.key(3)
PARAMETERS = {"w": jnp.arange(12.0).reshape(4, 3), "b": jnp.ones(4)}
MEMBERS = jnp.arange(8)
SCORES = jax.random.normal(jax.random.key(1), (8,))


@pytest.mark.parametrize("rank", [1, 2, None])
def test_factors_are_dense_noise(rank: int | None) -> None:
    noise = evolution.eggroll_noise(KEY, PARAMETERS, members=MEMBERS, rank=rank)
    dense = noise["w"].dense() if rank else noise["w"]
    x = jax.random.normal(KEY, (8, 2, 3))
    found = evolution.perturbed_linear(x, PARAMETERS["w"], noise["w"], sigma=0.5)
    formed = evolution.perturb(PARAMETERS, noise, sigma=0.5)["w"]
    np.testing.assert_allclose(formed, PARAMETERS["w"] + 0.5 * dense, rtol=1e-5)
    np.testing.assert_allclose(found, jnp.einsum("nxb,nab->nxa", x, formed), rtol=1e-4, atol=1e-4)
    gradient = evolution.eggroll_gradient(noise, SCORES, sigma=0.5)
    expected = -0.5 * jnp.einsum("n,nab->ab", SCORES, dense) / np.sqrt(8)
    np.testing.assert_allclose(gradient["w"], expected, rtol=1e-4, atol=1e-5)


def test_members_come_in_antithetic_pairs_that_differ() -> None:
    noise = evolution.eggroll_noise(KEY, PARAMETERS, members=MEMBERS)
    dense = noise["w"].dense()
    np.testing.assert_allclose(dense[::2], -dense[1::2])
    np.testing.assert_allclose(noise["b"][::2], -noise["b"][1::2])
    assert jnp.abs(dense[0] - dense[2]).max() > 0.1


def test_the_layout_of_a_draw() -> None:
    """fold_in(fold_in(key, epoch), member // 2), B in front of A."""
    noise = evolution.eggroll_noise(KEY, PARAMETERS["w"], members=MEMBERS, rank=2, epoch=7)
    draw = jax.random.normal(jax.random.fold_in(jax.random.fold_in(KEY, 7), 1), (7, 2))
    np.testing.assert_allclose(noise.b[3], draw[:3])
    np.testing.assert_allclose(noise.a[3], -draw[3:])


def test_a_device_draws_its_own_members_alone() -> None:
    whole = evolution.eggroll_noise(KEY, PARAMETERS, members=MEMBERS, epoch=2)
    part = evolution.eggroll_noise(KEY, PARAMETERS, members=MEMBERS[4:], epoch=2)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[4:], b), whole, part)


def test_a_population_over_shards() -> None:
    def share(members, fitness):
        noise = evolution.eggroll_noise(KEY, PARAMETERS, members=members)
        return evolution.eggroll_gradient(noise, fitness, sigma=0.3, axis_name="workers")

    found = jax.vmap(share, axis_name="workers")(MEMBERS.reshape(4, 2), SCORES.reshape(4, 2))
    whole = evolution.eggroll_gradient(evolution.eggroll_noise(KEY, PARAMETERS, members=MEMBERS), SCORES, sigma=0.3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-5), found, whole)


def test_a_step_climbs() -> None:
    """Under jit: the score of a linear objective rises along its own direction."""
    goal = jnp.ones((4, 3))

    @jax.jit
    def step(w, epoch):
        noise = evolution.eggroll_noise(KEY, w, members=jnp.arange(64), epoch=epoch)
        scores = (evolution.perturb(w, noise, sigma=0.1) * goal).sum((1, 2))
        return evolution.eggroll_update(w, noise, scores)

    w = jnp.zeros((4, 3))
    for epoch in range(3):
        after = step(w, epoch)
        assert ((after - w) * goal).sum() > 0
        w = after


def test_no_gradient_where_all_scores_are_equal() -> None:
    noise = evolution.eggroll_noise(KEY, PARAMETERS, members=MEMBERS)
    found = evolution.eggroll_update(PARAMETERS, noise, jnp.full(8, 3.0))
    jax.tree.map(np.testing.assert_array_equal, found, PARAMETERS)


def test_fitness_of_groups_shares_the_variance() -> None:
    scores = jnp.array([0.0, 1.0, 5.0, 9.0])
    found = evolution.eggroll_fitness(scores, group_size=2, epsilon=0.0)
    np.testing.assert_allclose(found * scores.std(), [-0.5, 0.5, -2, 2], rtol=1e-6)
    np.testing.assert_allclose(evolution.eggroll_fitness(scores, group_size=4), evolution.eggroll_fitness(scores))


@pytest.mark.parametrize("size", [3, -4, 8])
def test_groups_must_fit(size: int) -> None:
    with pytest.raises(errors.UserError, match=f"group_size must divide the 4 members, or be 0 for all; got {size}"):
        evolution.eggroll_fitness(jnp.zeros(4), group_size=size)


def test_rank_must_be_positive() -> None:
    with pytest.raises(errors.UserError, match="rank must be at least 1, or None for full-rank noise, got 0"):
        evolution.eggroll_noise(KEY, PARAMETERS, members=MEMBERS, rank=0)
