"""Windows of entropies against loops: ragged rows, holes, rows without a complete window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors, ops

RNG = np.random.default_rng(0)
ENTROPY = RNG.random((3, 6)).astype(np.float32)
WHERE = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 1]], bool)


def forward(row, real, window):
    """Mean of the next tokens by position, None where the window is not complete."""
    spans = [range(t + 1, t + 1 + window) for t in range(len(row))]
    complete = [real[t] and span[-1] < len(row) and all(real[i] for i in span) for t, span in enumerate(spans)]
    return [np.mean([row[i] for i in span]) if ok else None for span, ok in zip(spans, complete, strict=True)]


@pytest.mark.parametrize("window", [1, 2, 4])
def test_windows_equal_the_loop(window: int) -> None:
    poisoned = np.where(WHERE, ENTROPY, np.nan)
    found = ops.window_entropy(poisoned, window=window, where=WHERE)
    expected = [forward(*row, window) for row in zip(ENTROPY, WHERE, strict=True)]
    np.testing.assert_array_equal(found.complete, [[x is not None for x in row] for row in expected])
    np.testing.assert_allclose(found.mean, [[x or 0.0 for x in row] for row in expected], rtol=1e-6)


def test_trailing_windows_are_shorter_at_the_start() -> None:
    found = ops.trailing_entropy(ENTROPY[:1], window=3)
    np.testing.assert_allclose(found[0], [ENTROPY[0, max(t - 2, 0) : t + 1].mean() for t in range(6)], rtol=1e-6)


def test_the_threshold_of_rows_with_and_without_windows() -> None:
    found = ops.window_threshold(ENTROPY, window=3, percentile=60.0, where=WHERE)
    windows = [x for x in forward(ENTROPY[0], WHERE[0], 3) if x is not None]
    filled = windows + [np.mean(windows)] * (6 - len(windows))
    np.testing.assert_allclose(found[0], np.percentile(filled, 60), rtol=1e-6)
    np.testing.assert_allclose(found[1], ENTROPY[1, 0], rtol=1e-6)  # three tokens: no window of three follows any
    assert ops.window_threshold(ENTROPY, where=np.zeros_like(WHERE)).tolist() == [0, 0, 0]


def test_counts_and_excess() -> None:
    triggers = RNG.random(ENTROPY.shape) < 0.6
    found = ops.window_counts(ENTROPY, triggers, 0.5, window=2, where=WHERE)
    for row, (high, low, excess) in enumerate(zip(*found, strict=True)):
        means = [
            x for x, t in zip(forward(ENTROPY[row], WHERE[row], 2), triggers[row], strict=True) if t and x is not None
        ]
        assert (high, low) == (sum(x >= 0.5 for x in means), sum(x < 0.5 for x in means))
        np.testing.assert_allclose(excess, sum(max(x - 0.5, 0) for x in means), rtol=1e-5, atol=1e-7)


def test_masked_tokens_have_no_gradient() -> None:
    poisoned = jnp.asarray(np.where(WHERE, ENTROPY, np.nan))
    gradient = jax.grad(lambda x: ops.window_entropy(x, window=2, where=WHERE).mean.sum())(poisoned)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~WHERE].any()


def test_an_empty_window_is_refused() -> None:
    for function in (ops.window_entropy, ops.trailing_entropy):
        with pytest.raises(errors.UserError, match="window is a number of tokens and must be at least 1, got 0"):
            function(ENTROPY, window=0)
