"""Arrays that are made of responses where a method reads them."""

import numpy as np

from rlx.data.tokenizers import ByteTokenizer
from rlx.train.response_arrays import ARRAYS, Told, make

TOKENIZER = ByteTokenizer()
TEXTS = [["a</think>\n#### 1/2", "answer: 0.5", "7"], ["#### 3", "#### 03", ""]]


def told(texts=TEXTS, width: int = 24) -> Told:
    shape = (len(texts), len(texts[0]), width)
    tokens, where = np.full(shape, TOKENIZER.pad_id, np.int32), np.zeros(shape, bool)
    for p, group in enumerate(texts):
        for k, text in enumerate(group):
            ids = [*TOKENIZER.encode(text), TOKENIZER.eos_id] if text else []
            tokens[p, k, : len(ids)], where[p, k, : len(ids)] = ids, True
    entropy = np.random.default_rng(0).random(shape).astype(np.float32)
    correct = np.array([[1, 1, 0], [0, 0, 0]], np.float32)
    parts = {"right": correct, "short": -correct}
    return Told(tokens, where, entropy, correct, parts, np.ones(correct.shape, bool), TOKENIZER)


def test_what_is_read_is_made_and_nothing_else():
    assert set(make(ARRAYS, told())) == set(ARRAYS)
    assert set(make(["answers", "logprobs"], told())) == {"answers"}


def test_a_response_is_one_step():
    found, given = make(["turn_ids", "step_ends"], told()), told()
    np.testing.assert_array_equal(found["turn_ids"] == 0, given.where)
    assert (found["turn_ids"][~given.where] == -1).all()
    np.testing.assert_array_equal(found["step_ends"][..., 0], given.where.sum(-1) - 1)


def test_answers_are_compared_by_their_meaning():
    np.testing.assert_array_equal(make(["answers"], told())["answers"], [[0, 0, 2], [0, 0, 2]])


def test_the_thinking_ends_where_it_is_closed():
    np.testing.assert_array_equal(make(["think_ends"], told())["think_ends"], [[8, -1, -1], [-1, -1, -1]])
    assert (make(["think_ends"], told([["ab"]], width=3))["think_ends"] == -1).all()


def test_parts_of_a_reward_and_difficulty():
    found = make(["objective_rewards", "difficulty", "refined"], told())
    np.testing.assert_array_equal(found["objective_rewards"][0, 0], [1, -1])
    np.testing.assert_array_equal(found["difficulty"], [[0, 0, 0], [2, 2, 2]])
    assert found["refined"].shape == (2, 3, 24) and not found["refined"].any()


def test_tokens_before_high_entropy_are_counted():
    low, given = np.full((1, 2, 12), 0.1, np.float32), told([["a" * 11, "b" * 11]], width=12)
    low[0, 1, 6:] = 2.0
    given = given._replace(entropy=low, correct=np.ones((1, 2)), real=np.ones((1, 2), bool))
    counts = make(["high_entropy_counts"], given)["high_entropy_counts"]
    assert counts[0, 1] > 0 and counts[0, 1] >= counts[0, 0]
