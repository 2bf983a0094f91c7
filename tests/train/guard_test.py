"""Updates that are not finite, or too large, leave the state as it was: on every layout, decided in the step."""

from typing import Any

import jax
import numpy as np
import pytest

from rlx.method import Shapes
from rlx.train import sharding, state, step
from rlx.train.guard import Guard
from tests.train import layouts
from tests.train.layouts import LAYOUTS, ONE, OPTIMIZER, PROMPT, VOCAB

EVERY = [ONE, LAYOUTS["data 2 x 2 micro-batches"], LAYOUTS["pmap 8"]]


def programs(layout, guard) -> tuple[Any, Any]:
    """``(state, run)`` of value-head PPO, whose batches hold numbers; ``run(state, batch) -> (state, metrics)``."""
    model = layouts.make_model("float32")
    mesh = sharding.make_mesh({} if layout.pmap else layout.mesh)
    built = layouts.build("ppo", "rows" if layout.pmap else None)
    current = state.create_state(model, built, OPTIMIZER, Shapes(16, VOCAB, 16), seed=0, mesh=mesh)
    options = {"prompt_length": PROMPT, "micro_batches": layout.micro_batches, "guard": guard}
    if layout.pmap:
        advance = step.make_pmap_step(model, built, OPTIMIZER, axis_name="rows", **options)
        current = sharding.replicate(current, 8)
        put = lambda batch: {k: x.reshape(8, -1, *x.shape[1:]) for k, x in batch.items()}  # noqa: E731
    else:
        advance = step.make_train_step(model, built, OPTIMIZER, mesh=mesh, **options)
        put = lambda batch: sharding.put_batch(batch, mesh)  # noqa: E731
    return current, lambda current, batch: advance(current, put(batch), {})


def batch(seed=0, **changes):
    found = {key: layouts.as_type(array, "float32") for key, array in layouts.make_batch(seed, "ppo").items()}
    for name, factor in changes.items():
        found[name][0, 0] *= factor  # one row of the eight
    return found


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("layout", EVERY, ids=["one", "data and micro-batches", "pmap"])
def test_a_bad_update_changes_nothing_but_the_step(layout):
    current, run = programs(layout, Guard(limit=1e4))
    current, _ = run(current, batch(0))
    for bad in (batch(1, returns=np.nan), batch(1, returns=np.inf), batch(1, returns=1e9)):
        before = leaves(current._replace(step=0))
        steps = int(np.ravel(current.step)[0])
        current, found = run(current, bad)
        assert int(np.ravel(current.step)[0]) == steps + 1
        for ours, theirs in zip(leaves(current._replace(step=0)), before, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert np.ravel(found["skipped"].sum)[0] == 1.0
        assert all(np.isfinite(leaf).all() for name in ("loss", "grad_norm") for leaf in leaves(found[name]))
        assert np.ravel(found["loss"].count)[0] == 0, "it is merged with others as no data"
    before = leaves(current.params)
    current, found = run(current, batch(2))
    assert np.ravel(found["skipped"].sum)[0] == 0.0
    assert any((ours != theirs).any() for ours, theirs in zip(leaves(current.params), before, strict=True))


def test_good_updates_are_those_of_an_unguarded_step():
    (ours, guarded), (theirs, plain) = programs(ONE, Guard()), programs(ONE, None)
    for seed in range(2):
        ours, found = guarded(ours, batch(seed))
        theirs, of_plain = plain(theirs, batch(seed))
        np.testing.assert_allclose(found["loss"].value, of_plain["loss"].value, rtol=1e-6)
        assert set(found) == {*of_plain, "skipped"}
    for a, b in zip(leaves(ours.params), leaves(theirs.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_bound_without_skipping_marks_and_applies():
    current, run = programs(ONE, Guard(limit=1e-9, skip=False))
    before = leaves(current.params)
    current, found = run(current, batch(0))
    assert float(found["exploded"].value) == 1.0 and float(found["loss"].count) > 0
    assert any((ours != theirs).any() for ours, theirs in zip(leaves(current.params), before, strict=True))
