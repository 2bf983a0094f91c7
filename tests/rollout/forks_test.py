"""Trees of responses: branches share what stands before a fork, and their numbers are those of the model."""

import jax
import numpy as np
import pytest

from rlx import models
from rlx.errors import UserError
from rlx.rollout import Sampling, sample
from rlx.rollout.forks import grow, trunks_of

MODEL = models.build({"vocab_size": 23, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "init_std": 0.5})
PARAMS = MODEL.init(0)
PROMPT = np.array([[0, 5, 6], [7, 8, 9]], np.int32)
VALID = PROMPT > 0
SAMPLING = Sampling(6, eos_id=4)


@pytest.fixture(scope="module")
def tree():
    trunks = sample(MODEL, PARAMS, PROMPT, VALID, group=2, sampling=SAMPLING, key=jax.random.key(1))
    options = {"num_forks": 2, "num_branches": 2, "sampling": SAMPLING, "key": jax.random.key(2)}
    return jax.device_get(trunks), grow(MODEL, PARAMS, PROMPT, VALID, trunks, **options)


def test_whole_responses_come_first_and_branches_share_their_beginning(tree):
    trunks, found = tree
    assert found.tokens.shape == (2, 2 * (1 + 2 * 2), 6)
    for whole, part in zip(found, trunks, strict=True):
        np.testing.assert_array_equal(whole[:, :2], part)
    for p in range(2):
        for branch in range(8):
            trunk, fork = branch // 4, branch % 4 // 2
            real = np.flatnonzero(trunks.where[p, trunk])
            order = real[np.argsort(-trunks.entropy[p, trunk][real], kind="stable")]
            place = order[fork] if fork < len(order) else 0
            np.testing.assert_array_equal(found.tokens[p, 2 + branch, :place], trunks.tokens[p, trunk, :place])


def test_log_probabilities_and_entropy_are_those_of_one_forward_pass(tree, assert_numbers_of_one_forward_pass):
    assert_numbers_of_one_forward_pass(MODEL, PARAMS, PROMPT, VALID, tree[1])


def test_lengths_ends_and_padding_agree(tree):
    _, found = tree
    np.testing.assert_array_equal(found.where.sum(-1), found.lengths)
    np.testing.assert_array_equal(found.where, np.arange(6) < found.lengths[..., None])
    last = np.take_along_axis(found.tokens, found.lengths[..., None] - 1, -1)[..., 0]
    np.testing.assert_array_equal(found.finished, last == 4)
    assert (found.tokens[~found.where] == 0).all() and (found.logprobs[~found.where] == 0).all()


def test_a_group_is_a_number_of_trees():
    with pytest.raises(UserError, match=r"1 \+ 3 x 2 = 7 leaves: the group must be a multiple of that, and is 8"):
        trunks_of(8, 3, 2)
