"""Trees of segments: leaves share what stands before a branch, each token counts once, and values follow the tree."""

import jax
import numpy as np
import pytest

from rlx import models
from rlx.policy.trees import spo_tree_value, tree_mc_value
from rlx.rollout import Rollout, Sampling
from rlx.rollout.segments import ABSENT, ROOT, arrays_of, draw, tree_of

MODEL = models.build({"vocab_size": 7, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "init_std": 0.5})
PARAMS = MODEL.init(0)
PROMPT = np.array([[0, 5, 6], [1, 2, 3]], np.int32)
VALID = PROMPT > 0
SAMPLING = Sampling(7, eos_id=4)
BRANCHING, LENGTH = (2, 3, 2), 2


@pytest.fixture(scope="module")
def trees():
    options = {"length": LENGTH, "branching": BRANCHING, "sampling": SAMPLING, "key": jax.random.PRNGKey(5)}
    return draw(MODEL, PARAMS, PROMPT, VALID, **options)


def test_leaves_share_the_segments_above_them(trees):
    found = trees.rollout
    assert found.tokens.shape == (2, 12, 7)
    for level, below in enumerate((6, 2, 1)):
        part = slice(level * LENGTH, (level + 1) * LENGTH if below > 1 else None)
        for array in (found.tokens, found.where, found.logprobs, found.entropy):
            nodes = array[..., part].reshape(2, -1, below, array[..., part].shape[-1])
            np.testing.assert_array_equal(nodes, np.broadcast_to(nodes[:, :, :1], nodes.shape))
    assert len({tuple(row) for row in found.tokens[1]}) > 4  # branches go their own ways


def test_log_probabilities_and_entropy_are_those_of_one_forward_pass(trees, assert_numbers_of_one_forward_pass):
    assert_numbers_of_one_forward_pass(MODEL, PARAMS, PROMPT, VALID, trees.rollout)


def test_lengths_ends_and_padding_agree(trees):
    found = trees.rollout
    np.testing.assert_array_equal(found.where, np.arange(7) < found.lengths[..., None])
    last = np.take_along_axis(found.tokens, found.lengths[..., None] - 1, -1)[..., 0]
    np.testing.assert_array_equal(found.finished, last == 4)
    assert found.finished.any() and not found.finished.all()
    assert not found.tokens[~found.where].any() and not found.logprobs[~found.where].any()


def test_every_token_that_was_drawn_is_owned_once(trees):
    nodes = {}  # (prompt, node) -> tokens of its segment
    for p, k, level in zip(*np.nonzero(trees.node_ids >= 0), strict=True):
        here = trees.segments[p, k] == level
        nodes.setdefault((p, trees.node_ids[p, k, level]), trees.rollout.tokens[p, k][here].tolist())
    owned = np.count_nonzero(trees.own & trees.present[..., None])
    assert owned == sum(map(len, nodes.values()))
    assert not (trees.own & ~trees.present[..., None]).any()


def whole_tree(lengths):
    """Leaves of a tree (2, 2) of segments of one token, that end after so many tokens."""
    where = np.arange(2) < np.array(lengths)[..., None]
    numbers = where.astype(np.float32)
    drawn = Rollout(where.astype(np.int32), where, where.sum(-1), where.any(-1), numbers, numbers, numbers)  # type: ignore[arg-type]
    return tree_of(drawn, 1, (2, 2))


def test_a_response_that_ends_early_is_a_leaf():
    found = whole_tree([[1, 1, 2, 2]])
    assert found.present.tolist() == [[True, False, True, True]]
    assert found.tree_parent.tolist() == [[ROOT, 0, 0, ABSENT, ABSENT, 2, 2]]
    assert found.node_ids.tolist() == [[[1, -1], [1, -1], [2, 5], [2, 6]]]
    assert found.segments.tolist() == [[[0, -1], [0, -1], [0, 1], [0, 1]]]
    assert found.own.tolist() == [[[True, False], [False, False], [True, True], [False, True]]]
    arrays = arrays_of(found, np.array([[1.0, 9.0, 1.0, 0.0]]))
    assert arrays["node_rewards"].tolist() == [[0, 1, 0, 0, 0, 1, 0]]
    real = arrays["tree_parent"] >= ROOT
    tree = arrays["node_rewards"], arrays["tree_parent"]
    np.testing.assert_allclose(spo_tree_value(*tree, where=real), [[0.75, 1, 0.5, 0, 0, 1, 0]])
    np.testing.assert_allclose(tree_mc_value(*tree, where=real).values, [[2 / 3, 1, 0.5, 0, 0, 1, 0]], rtol=1e-6)
