"""Pairs from lists and trees: which ones, masks, margins, halves, ties, strengths, jit; and the pairs as a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from rlx.preference import construct

SCORES = jnp.array([[3.0, 1.0, 4.0, 2.0], [5.0, 5.0, 0.0, 9.0]])
WHERE = jnp.array([[True, True, True, True], [True, True, True, False]])


def listed(pairs, row=0):
    return [tuple(i) for i, real in zip(pairs.indices[row].tolist(), pairs.where[row].tolist(), strict=True) if real]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("all_pairs", [(2, 0), (2, 3), (2, 1), (0, 3), (0, 1), (3, 1)], [(0, 2), (1, 2)]),
        ("best_vs_worst", [(2, 1)], [(0, 2)]),
        ("best_vs_rest", [(2, 0), (2, 3), (2, 1)], [(0, 2)]),
        ("adjacent_pairs", [(2, 0), (0, 3), (3, 1)], [(1, 2)]),
        ("prescreened_pairs", [(2, 3), (2, 1), (0, 3), (0, 1)], [(0, 2)]),
    ],
)
def test_which_pairs(name, first, second):
    """The second list has three members, two of which are equal: no pair of theirs."""
    pairs = jax.jit(lambda s, w: getattr(rlx, name)(s, where=w))(SCORES, WHERE)
    assert (listed(pairs), listed(pairs, 1)) == (first, second)


def test_a_margin_leaves_close_pairs_out():
    assert listed(construct.make_pairs(SCORES, margin=2.0)) == [(2, 3), (2, 1), (0, 1)]


def test_strengths():
    pairs = rlx.ranked_pairs(SCORES, where=WHERE)
    np.testing.assert_allclose(pairs.strengths[0], 0.5 + np.array([1, 2, 3, 1, 2, 1]) / 6, rtol=1e-6)
    np.testing.assert_array_equal(pairs.strengths[~pairs.where], 0)
    soft = construct.make_pairs(SCORES, strength=construct.by_score(2.0))
    np.testing.assert_allclose(soft.strengths[0, 2], 1 / (1 + np.exp(-1.5)), rtol=1e-6)


def test_fewer_than_two_real_candidates_make_no_pair():
    for ranks in (construct.everyone, construct.extremes, construct.best_and_rest, construct.neighbours):
        for real in (0, 1):
            pairs = construct.make_pairs(SCORES, ranks=ranks, where=jnp.broadcast_to(jnp.arange(4) < real, (2, 4)))
            assert not pairs.where.any() and ((pairs.indices >= 0) & (pairs.indices < 4)).all()


def test_selected_candidates_are_a_batch_of_pairs():
    pairs, logps = rlx.all_pairs(SCORES, where=WHERE), -SCORES
    chosen = construct.select(logps, pairs.indices)
    loss = rlx.dpo(chosen, jnp.zeros_like(chosen), where=pairs.where[..., None].repeat(2, -1))
    expected = [np.logaddexp(0, -0.1 * (logps[b, i] - logps[b, j])) for b in (0, 1) for i, j in listed(pairs, b)]
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-6)
    tokens = np.arange(2 * 4 * 3).reshape(2, 4, 3)
    np.testing.assert_array_equal(construct.select(tokens, pairs.indices)[0, 0], tokens[0, [2, 0]])


def test_steps_follow_the_best_node():
    """Two trees; a node that is masked is not there, an only child makes no pair but is gone through."""
    parents = jnp.array([[-1, 0, 0, 0, 1, 4, 4, 9], [-1, 0, 0, 0, 1, 4, 4, 9]])
    values = jnp.array([[0.0, 9.0, 1.0, 2.0, 5.0, 3.0, 7.0, 0.0]] * 2)
    where = jnp.ones((2, 8), bool).at[1, 1].set(False)
    pairs = jax.jit(lambda v, p, w: rlx.step_pairs(v, p, depth=4, where=w))(values, parents, where)
    assert listed(pairs) == [(1, 2), (6, 5)] and listed(pairs, 1) == [(3, 2)]
    np.testing.assert_array_equal(pairs.where[0], [True, False, True, False])
    assert listed(rlx.step_pairs(values, parents, depth=4, margin=5.0)) == [(1, 2)]


def test_wrong_inputs_are_named():
    with pytest.raises(errors.UserError, match=r"scores has shape \(3, 1\): pairs want at least two candidates"):
        construct.make_pairs(jnp.zeros((3, 1)))
    with pytest.raises(errors.UserError, match="depth counts the steps from the root .* got 0"):
        construct.step_pairs(jnp.zeros(3), jnp.array([-1, 0, 0]), depth=0)
