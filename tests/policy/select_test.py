"""Selections: exact counts, ties, uniform draws, and the same tokens however the batch is padded or spread."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.policy import select

RNG = np.random.default_rng(0)
SHAPE = (4, 2, 5)
LOGPROBS, OLD, ADVANTAGES = (jnp.asarray(RNG.normal(size=SHAPE), jnp.float32) for _ in range(3))
WHERE = jnp.asarray(RNG.random(SHAPE) < 0.8)
KEY = jax.random.key(0)
WIDE = {"lower": 0.0, "upper": 50.0}


def test_covariance_by_hand_with_broadcast_advantages() -> None:
    logprobs, where = jnp.array([[-1.0, -3.0], [-5.0, jnp.nan]]), jnp.array([[True, True], [True, False]])
    actual = select.covariance(logprobs, jnp.array([[1.0], [4.0]]), where=where)
    np.testing.assert_allclose(actual, [[2 * -1, 0], [-2 * 2, 0]])


@pytest.mark.parametrize("ratio", [2e-4, 0.01, 0.1, 0.29, 0.3, 0.7, 1.0])
def test_requested_rounds_like_python(ratio: float) -> None:
    size, sizes = 400, np.array([0, 1, 3, 10, 29, 30, 70, 100, 110, 200, 299, 300, 400])
    where = jnp.asarray(np.arange(size) < sizes[:, None])
    actual = jax.vmap(lambda w: select.requested(ratio, w, where=w))(where)
    np.testing.assert_array_equal(actual, [max(int(ratio * n), 1) for n in sizes])


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.5])
def test_ratio_is_a_fraction(ratio: float) -> None:
    with pytest.raises(errors.UserError, match=r"ratio .* in \(0, 1\]"):
        select.requested(ratio, LOGPROBS)


@pytest.mark.parametrize("ratio", [2e-4, 0.2, 0.5, 1.0])
def test_exactly_k_are_selected_under_ties(ratio: float) -> None:
    k = max(int(ratio * int(WHERE.sum())), 1)
    selected = select.kl_cov_select(jnp.ones(SHAPE), jnp.ones(SHAPE), ratio=ratio, where=WHERE)
    expected = np.flatnonzero(np.asarray(WHERE))[:k]
    np.testing.assert_array_equal(np.flatnonzero(selected), expected)


def test_kl_cov_selects_the_largest() -> None:
    selected = select.kl_cov_select(LOGPROBS, ADVANTAGES, ratio=0.2, where=WHERE)
    cov = np.asarray(select.covariance(LOGPROBS, ADVANTAGES, where=WHERE))
    k = int(0.2 * int(WHERE.sum()))
    assert int(selected.sum()) == k and cov[np.asarray(selected)].min() >= np.sort(cov[np.asarray(WHERE)])[-k]


@pytest.mark.parametrize("ratio", [2e-4, 0.1, 1.0])
def test_clip_cov_drops_exactly_min_of_requested_and_candidates(ratio: float) -> None:
    candidates = np.asarray(select.clip_cov_candidates(LOGPROBS, OLD, ADVANTAGES, **WIDE, where=WHERE))
    dropped = ~np.asarray(select.clip_cov_keep(LOGPROBS, OLD, ADVANTAGES, **WIDE, ratio=ratio, key=KEY, where=WHERE))
    requested = max(int(ratio * int(WHERE.sum())), 1)
    assert 3 < candidates.sum() < WHERE.sum()
    assert dropped.sum() == min(requested, candidates.sum()) and not (dropped & ~candidates).any()


def test_candidates_exclude_what_ppo_clips_and_bounds_are_strict() -> None:
    logprobs, advantages = jnp.array([1.0, 1.0, -1.0, -1.0]), jnp.array([1.0, 1.0, -1.0, -1.0])
    old = logprobs - jnp.array([0.0, 0.5, 0.0, 0.0])
    options = {"clip_low": 0.2, "clip_high": 0.2}
    within = select.clip_cov_candidates(logprobs, old, advantages, **options, lower=0.5, upper=2.0)
    np.testing.assert_array_equal(within, [True, False, True, True])
    for bounds in ({"lower": 1.0, "upper": 2.0}, {"lower": 0.5, "upper": 1.0}):
        assert not select.clip_cov_candidates(logprobs, old, advantages, **options, **bounds).any()


def test_clip_cov_draws_uniformly() -> None:
    keys = jax.random.split(KEY, 6000)
    options = {"ratio": 0.1, "where": WHERE, **WIDE}
    draw = jax.jit(jax.vmap(lambda key: ~select.clip_cov_keep(LOGPROBS, OLD, ADVANTAGES, key=key, **options)))
    counts = np.asarray(draw(keys)).sum(0)
    candidates = np.asarray(select.clip_cov_candidates(LOGPROBS, OLD, ADVANTAGES, **WIDE, where=WHERE))
    p = max(int(0.1 * int(WHERE.sum())), 1) / candidates.sum()
    assert counts[~candidates].sum() == 0
    deviation = (counts[candidates] - len(keys) * p) / np.sqrt(len(keys) * p * (1 - p))
    assert np.abs(deviation).max() < 4, deviation


def test_clip_cov_needs_a_key() -> None:
    with pytest.raises(errors.UserError, match="pass key="):
        select.clip_cov_keep(LOGPROBS, OLD, ADVANTAGES)


def test_padding_does_not_change_a_draw() -> None:
    arrays = (LOGPROBS, OLD, ADVANTAGES)
    options = {"ratio": 0.1, "key": KEY, **WIDE}
    pads = [(0, 0), (0, 0), (2, 1)]
    padded = [jnp.pad(x, pads, constant_values=jnp.nan) for x in arrays]
    keep = select.clip_cov_keep(*padded, **options, where=jnp.pad(WHERE, pads))
    np.testing.assert_array_equal(keep[..., 2:-1], select.clip_cov_keep(*arrays, **options, where=WHERE))


def test_shards_agree_on_a_global_selection() -> None:
    def one(logprobs, old, advantages, where, axis_name=None):
        shared = {"where": where, "axis_name": axis_name}
        keep = select.clip_cov_keep(logprobs, old, advantages, ratio=0.2, key=KEY, **WIDE, **shared)
        return keep, select.kl_cov_select(logprobs, advantages, ratio=0.2, **shared)

    arrays = (LOGPROBS, OLD, jnp.round(ADVANTAGES), WHERE)
    spread = jax.pmap(lambda *x: one(*x, axis_name="data"), axis_name="data")
    sharded = spread(*(x.reshape(4, 1, *SHAPE[1:]) for x in arrays))
    for actual, expected in zip(sharded, jax.jit(one)(*arrays), strict=True):
        np.testing.assert_array_equal(np.asarray(actual).reshape(SHAPE), expected)
