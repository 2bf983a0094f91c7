"""Ends of responses."""

import jax.numpy as jnp
import numpy as np

from rlx.rollout.stopping import ended

DRAWN = jnp.array([[1, 2, 0, 3], [2, 1, 0, 1], [0, 2, 0, 2], [9, 9, 9, 9]])


def test_a_sequence_counts_where_it_ends():
    stops = ((1, 2), (3, 1, 2))
    want = [[False] * 4, [True, False, False, False], [False, True, False, True]]
    for i, row in enumerate(want):
        np.testing.assert_array_equal(ended(DRAWN, jnp.array(i), stop=stops), row)
    np.testing.assert_array_equal(ended(DRAWN, jnp.array(2), stop=stops[1:]), [False, False, False, True])


def test_each_of_several_tokens_ends():
    np.testing.assert_array_equal(ended(DRAWN, jnp.array(1), eos_id=(1, 0)), [False, True, True, True])
    np.testing.assert_array_equal(ended(DRAWN, jnp.array(1), eos_id=2), [True, False, False, False])
    assert not ended(DRAWN, jnp.array(1), eos_id=()).any()


def test_a_sequence_must_have_been_drawn_whole():
    """At the first token, there is nothing before it: the padding that a slice would read does not count."""
    assert not ended(DRAWN, jnp.array(0), stop=((1, 2),)).any()
    assert not ended(DRAWN, jnp.array(3), stop=((1, 2, 0, 9, 9),)).any()
    assert not ended(DRAWN, jnp.array(3)).any()
