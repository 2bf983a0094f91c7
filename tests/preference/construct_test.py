"""Pairs from lists and trees: which ones, masks, margins, halves, ties, strengths, jit; and the pairs as a batch."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import aggregate, errors
from rlx.preference import construct

SCORES = jnp.array([[3.0, 1.0, 4.0, 2.0], [5.0, 5.0, 0.0, 9.0]])
WHERE = jnp.array([[True, True, True, True], [True, True, True, False]])


NAMES = ("all_pairs", "best_vs_worst", "best_vs_rest", "adjacent_pairs", "prescreened_pairs", "ranked_pairs")


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


def by_hand(name, scores, real, margin):
    """Pairs -> strengths of one list, from a loop over all pairs of candidates."""
    order = sorted(real, key=lambda i: -scores[i])  # stable, as ties are
    rank, n = {i: r for r, i in enumerate(order)}, len(order)
    meets = {
        "all_pairs": lambda a, b: True,
        "best_vs_worst": lambda a, b: (a, b) == (0, n - 1),
        "best_vs_rest": lambda a, b: a == 0,
        "adjacent_pairs": lambda a, b: b == a + 1,
        "prescreened_pairs": lambda a, b: a < n // 2 and b >= n - n // 2,
        "ranked_pairs": lambda a, b: True,
    }[name]

    def middle(i):
        return np.mean([rank[j] for j in real if scores[j] == scores[i]])

    return {
        (i, j): 0.5 + (middle(j) - middle(i)) / (2 * (n - 1))
        for i, j in itertools.permutations(real, 2)
        if scores[i] > scores[j] and scores[i] - scores[j] >= margin and meets(rank[i], rank[j])
    }


@pytest.mark.parametrize("name", sorted(NAMES))
def test_pairs_by_brute_force(name):
    """Ragged lists full of ties."""
    rng = np.random.default_rng(0)
    scores, where = rng.integers(0, 5, (40, 5)).astype(np.float32), rng.random((40, 5)) < 0.8
    margins = np.repeat(np.array([0, 2], np.float32), 20)
    pairs = jax.jit(lambda s, w, m: getattr(rlx, name)(s, margin=m, where=w))(scores, where, margins[:, None])
    for row in range(40):
        found = dict(zip(listed(pairs, row), pairs.strengths[row][pairs.where[row]].tolist(), strict=True))
        expected = by_hand(name, scores[row], np.flatnonzero(where[row]).tolist(), margins[row])
        assert found == pytest.approx(expected, abs=1e-6)


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


def test_all_pairs_of_lists_are_a_batch_of_pairs():
    """DPO of the pairs of two lists is the sum over a loop; a list of three counts its pairs only."""
    logps, reference = -SCORES, jnp.cos(SCORES)
    lists = {"policy_logps": logps, "reference_logps": reference}

    def total(lists):
        batch = construct.take_pairs(lists, rlx.all_pairs(SCORES, where=WHERE))
        return rlx.dpo(*(batch[n] for n in lists), where=batch["where"], reduce=aggregate.total)

    found, gradients = jax.jit(jax.value_and_grad(total))(lists)
    d, expected, slopes = np.asarray(logps - reference), 0.0, np.zeros(SCORES.shape)
    for row, i, j in itertools.product(range(2), range(4), range(4)):
        if WHERE[row, i] and WHERE[row, j] and SCORES[row, i] > SCORES[row, j]:
            m = 0.1 * (d[row, i] - d[row, j])
            expected += np.log1p(np.exp(-m))
            slopes[row, [i, j]] += 0.1 / (1 + np.exp(m)) * np.array([-1, 1])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(gradients["policy_logps"], slopes, rtol=1e-5, atol=1e-7)


def test_ranked_pairs_are_soft_labels():
    """Online self-preferring: the cross-entropy between strengths and the policy's Bradley-Terry probabilities."""
    pairs = rlx.ranked_pairs(SCORES, where=WHERE)
    batch = construct.take_pairs({"policy_logps": SCORES}, pairs)
    arrays = batch["policy_logps"], jnp.zeros_like(batch["policy_logps"]), batch["preference_probs"]
    p = np.array([0.5 + k / 6 for k in (1, 2, 3, 1, 2, 1)] + [0.5 + 1.5 / 4] * 2)
    m = np.array([1, 2, 3, 1, 2, 1, 5, 5]) / 2.0
    expected = np.mean(p * np.log1p(np.exp(-m)) + (1 - p) * np.log1p(np.exp(m)))
    np.testing.assert_allclose(rlx.adpo_pairwise(*arrays, tau=2.0, where=batch["where"]), expected, rtol=1e-6)


def test_every_kind_of_array_is_taken():
    """Tokens, opponents, what a row has once; a mask of tokens loses those of pairs that are not real."""
    pairs, rng = rlx.all_pairs(SCORES, where=WHERE), np.random.default_rng(0)
    shapes = {"tokens": (2, 4, 3), "opponent_logps": (2, 6, 4), "user_ids": (2,), "ideal_points": (2, 5)}
    lists = {name: rng.integers(0, 99, shape) for name, shape in shapes.items()}
    lists["where"] = rng.random((2, 4, 3)) < 0.7
    found = construct.take_pairs(lists, pairs)
    for row, pair in itertools.product(range(2), range(6)):
        members, real = np.asarray(pairs.indices[row, pair]), bool(pairs.where[row, pair])
        np.testing.assert_array_equal(found["tokens"][row, pair], lists["tokens"][row, members])
        np.testing.assert_array_equal(found["opponent_logps"][row, pair], lists["opponent_logps"][row][:, members])
        np.testing.assert_array_equal(found["where"][row, pair], real & lists["where"][row, members])
        assert found["user_ids"][row, pair] == lists["user_ids"][row]
        np.testing.assert_array_equal(found["ideal_points"][row, pair], lists["ideal_points"][row])


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"policy_logp": SCORES}, "'policy_logp' is not in the vocabulary. Did you mean 'policy_logps'"),
        ({"scores": SCORES[0]}, r"scores has shape \(4,\): pairs of \(2,\) lists want \[2, 'K'\]"),
        ({"tokens": SCORES}, r"tokens has shape \(2, 4\): pairs of \(2,\) lists want \[2, 'K', 'T'\]"),
        ({"preferences": jnp.zeros((2, 4, 4))}, "preferences compares all candidates with all"),
    ],
)
def test_lists_that_pairs_cannot_take_are_named(lists, message):
    with pytest.raises(errors.UserError, match=message):
        construct.take_pairs(lists, rlx.all_pairs(SCORES))


def test_steps_follow_the_best_node():
    """Two trees; a node that is masked is not there, an only child makes no pair but is gone through."""
    parents = jnp.array([[-1, 0, 0, 0, 1, 4, 4, 9], [-1, 0, 0, 0, 1, 4, 4, 9]])
    values = jnp.array([[0.0, 9.0, 1.0, 2.0, 5.0, 3.0, 7.0, 0.0]] * 2)
    where = jnp.ones((2, 8), bool).at[1, 1].set(False)
    pairs = jax.jit(lambda v, p, w: rlx.step_pairs(v, p, depth=4, where=w))(values, parents, where)
    assert listed(pairs) == [(1, 2), (6, 5)] and listed(pairs, 1) == [(3, 2)]
    np.testing.assert_array_equal(pairs.where[0], [True, False, True, False])
    assert listed(rlx.step_pairs(values, parents, depth=4, margin=5.0)) == [(1, 2)]


def test_steps_by_brute_force():
    """Random trees with ties and masked nodes, walked with a loop."""
    rng, trees, nodes, depth = np.random.default_rng(1), 30, 9, 4
    parents = np.array([[rng.integers(-1 + (n > 0), max(n, 1) - (n == 0)) for n in range(nodes)] for _ in range(trees)])
    values, where = rng.integers(0, 6, (trees, nodes)).astype(np.float32), rng.random((trees, nodes)) < 0.8
    pairs = jax.jit(lambda v, p, w: rlx.step_pairs(v, p, depth=depth, where=w))(values, parents, where)
    for row in range(trees):
        node, expected = 0, []
        for _ in range(depth):
            children = [c for c in range(nodes) if where[row, c] and parents[row, c] == node]
            if not children:
                break
            order = sorted(children, key=lambda c: -values[row, c])
            if values[row, order[0]] > values[row, order[-1]]:
                expected.append((order[0], order[-1]))
            node = order[0]
        assert listed(pairs, row) == expected


def test_wrong_inputs_are_named():
    with pytest.raises(errors.UserError, match=r"scores has shape \(3, 1\): pairs want at least two candidates"):
        construct.make_pairs(jnp.zeros((3, 1)))
    with pytest.raises(errors.UserError, match="depth counts the steps from the root .* got 0"):
        construct.step_pairs(jnp.zeros(3), jnp.array([-1, 0, 0]), depth=0)
