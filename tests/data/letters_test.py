"""Generated examples: what they claim of their true rewards holds."""

import numpy as np

from rlx.data import letters


def test_letter_pairs_are_what_they_say():
    rows = letters.letter_pairs(50, seed=3)
    assert rows == letters.letter_pairs(50, seed=3) != letters.letter_pairs(50, seed=4)
    for row in rows:
        wanted = row["prompt"][0]
        assert row["chosen"].count(wanted) > row["rejected"].count(wanted)


def test_letter_lists_are_what_they_say():
    rows = letters.letter_lists(20, seed=3, candidates=3)
    assert rows == letters.letter_lists(20, seed=3, candidates=3) != letters.letter_lists(20, seed=4, candidates=3)
    for row in rows:
        assert row["scores"] == [letters.reward(row["prompt"][0], response) for response in row["responses"]]


def test_what_is_known_is_consistent():
    for row in letters.letter_lists(5, seed=0):
        found = letters.known(row)
        preferences = np.array(found["preferences"])
        np.testing.assert_allclose(preferences + preferences.T, 1)
        np.testing.assert_allclose(preferences.mean(-1), found["win_rates"])
        assert max(found["rewards"]) == found["rewards"][np.argmax(found["win_rates"])]
