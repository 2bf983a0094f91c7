"""Windows of metrics and evaluations: sums and counts, not means of means."""

import json

import numpy as np
import pytest

from rlx.errors import UserError
from rlx.metrics import Mean
from rlx.train.loop import Window, evaluate
from rlx.train.watch import Watch


def metrics(loss, count=1.0, **more):
    return {"loss": Mean(np.float32(loss * count), np.float32(count))} | more


def test_a_window_is_a_weighted_mean_and_survives_a_checkpoint():
    window = Window("sft", Watch("stop"))
    window.push(1, metrics(1.0, 1.0), {})
    window.push(2, metrics(4.0, 2.0), {})
    window.settle()
    again = Window("sft", Watch("stop"), json.loads(json.dumps(window.saved())))
    again.push(3, metrics(0.0, 3.0), {})
    assert again.take() == {"loss": 1.5}
    assert again.saved() == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_window_refuses_what_is_not_finite(value):
    window = Window("sft", Watch("stop"))
    window.push(4, metrics(value), {})
    with pytest.raises(UserError, match=r"loss is (nan|inf) at step 4 of the stage 'sft'"):
        window.settle()
    window.push(5, metrics(1.0, grad_norm=Mean(np.float32(value), np.float32(1))), {})
    with pytest.raises(UserError, match=r"grad_norm is (nan|inf) at step 5"):
        window.settle()
    tolerant = Window("sft", Watch("continue"))
    tolerant.push(4, metrics(value), {})
    assert not np.isfinite(tolerant.take()["loss"])


def test_a_row_of_skipped_steps_has_no_loss():
    window = Window("sft", Watch("skip"))
    window.push(1, metrics(0.0, 0.0, skipped=Mean(np.float32(1), np.float32(1))), {})
    row = window.take()
    assert row["skipped"] == 1.0 and np.isnan(row["loss"]), "and no loss is below until_loss"


def test_evaluation_counts_examples_and_bounds_accuracies():
    real = np.array([[True, True], [True, True], [False, False]])
    batches = [{"candidate_where": real}, {"candidate_where": real[:1]}]
    accuracy = {"reward_accuracy": Mean(np.float32(2), np.float32(4))}
    row = evaluate(lambda batch: metrics(2.0, len(batch["candidate_where"]), **accuracy), batches)
    assert list(row)[:4] == ["reward_accuracy", "reward_accuracy_low", "reward_accuracy_high", "loss"]
    assert row["examples"] == 3 and row["loss"] == 2.0 and row["reward_accuracy"] == 0.5
    np.testing.assert_allclose([row["reward_accuracy_low"], row["reward_accuracy_high"]], [0.215, 0.785], atol=1e-3)


def test_nothing_held_out_gives_nothing():
    assert evaluate(lambda batch: metrics(1.0), []) == {}
