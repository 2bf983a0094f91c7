"""Reductions: their definitions, exactness over any split, and the names a config may use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import aggregate, errors

RNG = np.random.default_rng(0)
LOSS = RNG.normal(size=(6, 5))
WHERE = RNG.random((6, 5)) < 0.6
WHERE[2] = False
ROWS = [LOSS[i][WHERE[i]] for i in range(6) if WHERE[i].any()]
EXPECTED = {
    "mean": LOSS[WHERE].mean(),
    "token_mean": LOSS[WHERE].mean(),
    "sequence_mean": np.mean([row.mean() for row in ROWS]),
    "sequence_sum": np.mean([row.sum() for row in ROWS]),
    "total": LOSS[WHERE].sum(),
    "sequence_mean_with_empty": np.sum([row.mean() for row in ROWS]) / 6,
    "sequence_sum_with_empty": np.sum([row.sum() for row in ROWS]) / 6,
    "constant(8)": np.mean([row.sum() / 8 for row in ROWS]),
    "constant(8, empty=True)": LOSS[WHERE].sum() / 8 / 6,
    "constant(40.0, per_row=False)": LOSS[WHERE].sum() / 40,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_definition(name, float64):
    dirty = np.where(WHERE, LOSS, np.nan)
    value = float64(lambda: aggregate.by_name(name)(jnp.asarray(dirty), jnp.asarray(WHERE)))
    np.testing.assert_allclose(value, EXPECTED[name], rtol=1e-12)


@pytest.mark.parametrize("name", EXPECTED)
def test_parts_add_up_to_the_whole_with_one_division(name, float64):
    reduction = aggregate.by_name(name)

    def parts():
        terms = [reduction.terms(jnp.asarray(LOSS[i : i + 2]), jnp.asarray(WHERE[i : i + 2])) for i in (0, 2, 4)]
        return reduction.divide(sum(t[0] for t in terms), sum(t[1] for t in terms))

    np.testing.assert_allclose(float64(parts), EXPECTED[name], rtol=1e-12)


@pytest.mark.parametrize("name", EXPECTED)
def test_nothing_gives_zero(name):
    reduction = aggregate.by_name(name)
    value, gradient = jax.value_and_grad(lambda x: reduction(x, jnp.zeros((6, 5), bool)))(jnp.asarray(LOSS))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", EXPECTED)
def test_shares_of_shards_sum_to_the_whole(name):
    reduction = aggregate.by_name(name).over("i")
    share = jax.pmap(lambda x, where: reduction(x, where), axis_name="i")(
        LOSS.reshape(3, 2, 5).astype(np.float32), WHERE.reshape(3, 2, 5)
    )
    np.testing.assert_allclose(np.sum(share), EXPECTED[name], rtol=1e-5)


def test_a_count_of_tokens_given_from_outside_is_exact_over_parts():
    """The number of tokens of the whole batch, known before its parts are: the loss is its token mean."""
    reduction = aggregate.constant(jnp.asarray(WHERE.sum()), per_row=False)
    parts = [reduction(jnp.asarray(LOSS[i : i + 2]), jnp.asarray(WHERE[i : i + 2])) for i in (0, 2, 4)]
    np.testing.assert_allclose(sum(parts), EXPECTED["token_mean"], rtol=1e-5)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_reduction_shows_the_name_that_makes_it(name):
    again = aggregate.by_name(repr(aggregate.by_name(name)))
    np.testing.assert_array_equal(again(LOSS, WHERE), aggregate.by_name(name)(LOSS, WHERE))


def test_unknown_name_lists_close_matches():
    with pytest.raises(errors.UserError, match=r"Unknown aggregation 'token_maen'. Did you mean 'token_mean'"):
        aggregate.by_name("token_maen")
    for wrong in ("constant(long)", "constant()", "constant(8", "constant('a')", "constant(8, rows=True)", "total(1)"):
        with pytest.raises(errors.UserError, match=r"constant\(L\) with a number"):
            aggregate.by_name(wrong)
