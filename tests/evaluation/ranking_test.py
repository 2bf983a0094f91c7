"""Ranking metrics against their definitions, list by list."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.evaluation import ranking

RNG = np.random.default_rng(0)
SCORES, LABELS = RNG.normal(size=(8, 5)), RNG.integers(0, 4, (8, 5))
WHERE = RNG.random((8, 5)) < 0.8
LABELS[0] = 0


def written_out(scores, labels, topn):
    """The six metrics of one list without padding."""
    order = np.argsort(-scores)
    gains, relevant = 2.0 ** labels[order] - 1, labels[order] >= 2
    n = len(scores) if topn is None else min(topn, len(scores))
    discounts = 1 / np.log2(np.arange(2, n + 2))
    dcg, ideal = gains[:n] @ discounts, -np.sort(-gains)[:n] @ discounts
    hits = np.flatnonzero(relevant[:n])
    total = max(relevant.sum(), 1)
    precisions = [(relevant[: k + 1]).mean() for k in hits]
    mrr = 1 / (hits[0] + 1) if len(hits) else 0.0
    return [dcg / ideal if ideal else 0.0, dcg, mrr, len(hits) / total, len(hits) / n, sum(precisions) / total]


@pytest.mark.parametrize("topn", [None, 1, 3, 9])
def test_against_the_definitions(topn):
    found = ranking.ranking_metrics(
        jnp.asarray(SCORES), jnp.asarray(LABELS), relevant_from=2.0, topn=topn, where=jnp.asarray(WHERE)
    )
    for i in range(len(SCORES)):
        expected = written_out(SCORES[i, WHERE[i]], LABELS[i, WHERE[i]], topn)
        np.testing.assert_allclose([metric[i] for metric in found], expected, rtol=1e-5, err_msg=str(i))


def test_a_list_without_candidates_has_zeros():
    found = ranking.ranking_metrics(jnp.ones(3), jnp.ones(3), where=jnp.zeros(3, bool))
    assert all(metric == 0 for metric in found)


def test_shapes_must_agree():
    with pytest.raises(errors.UserError, match=r"labels has shape \(2,\), but scores has shape \(3,\)"):
        ranking.ranking_metrics(jnp.ones(3), jnp.ones(2))
