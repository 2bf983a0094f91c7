"""The exact log-linear problem: counts, the weighted fit and the closed-form measures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from experiments import loglinear

OPTIONS = {"beta": 1.0, "learning_rate": 2.0, "ridge": 1e-4}
METHODS = ("dpo", "cdpo", "rdpo")


@pytest.fixture(scope="module")
def problem() -> loglinear.Problem:
    return loglinear.problem(3, contexts=4, actions=3, dimension=5, scale=3.0)


def counts(problem: loglinear.Problem, pairs: int, rate: float) -> np.ndarray:
    return loglinear.preference_counts(problem, 3, pairs=pairs, flip_rate=rate)


def fit(problem: loglinear.Problem, table: np.ndarray, method: str, epsilon: float, steps: int) -> loglinear.Fit:
    loss = loglinear.bind(method, epsilon)
    return loglinear.fit(problem.features.astype("f4"), table.astype("f4"), loss=loss, steps=steps, **OPTIONS)


def test_counts_share_their_numbers(problem: loglinear.Problem) -> None:
    few, many = counts(problem, 50, 0.2), counts(problem, 80, 0.2)
    assert few.shape == (4, 6) and few.sum() == 50 and many.sum() == 80
    assert (few <= many).all()


def test_flips_exchange_chosen_and_rejected(problem: loglinear.Problem) -> None:
    clean, noisy = counts(problem, 400, 0.0), counts(problem, 400, 0.3)
    swapped = [
        [tuple(pair[::-1]) for pair in map(tuple, loglinear.ordered_pairs(3))].index(tuple(pair))
        for pair in loglinear.ordered_pairs(3)
    ]
    np.testing.assert_array_equal(clean + clean[:, swapped], noisy + noisy[:, swapped])
    assert 60 < np.abs(clean - noisy).sum() / 2 < 140


def test_labels_follow_the_reward(problem: loglinear.Problem) -> None:
    table, pairs = counts(problem, 4000, 0.0), loglinear.ordered_pairs(3)
    chosen, rejected = (problem.rewards[:, pairs[:, side]] for side in (0, 1))
    assert np.average(chosen - rejected, weights=table) > 0


@pytest.mark.parametrize("method", METHODS)
def test_weighted_table_is_the_mean_over_rows(problem: loglinear.Problem, method: str) -> None:
    table, pairs = counts(problem, 40, 0.2), loglinear.ordered_pairs(3)
    fitted = fit(problem, table, method, 0.2, steps=3)
    context, column = np.repeat(np.argwhere(table > 0), table[table > 0].astype(int), axis=0).T
    logps = np.asarray(jax.nn.log_softmax(problem.features @ np.asarray(fitted.theta), -1))
    policy = jnp.asarray(logps[context[:, None], pairs[column]])
    rows = loglinear.bind(method, 0.2)(policy, jnp.full(policy.shape, -np.log(3)), beta=1.0)
    assert len(context) == 40
    np.testing.assert_allclose(fitted.loss, rows, rtol=1e-5)


def test_without_flips_the_losses_agree(problem: loglinear.Problem) -> None:
    fits = [np.asarray(fit(problem, counts(problem, 200, 0.0), method, 0.0, steps=20).theta) for method in METHODS]
    for other in fits[1:]:
        np.testing.assert_allclose(fits[0], other, atol=1e-6)


def test_the_optimum_has_no_error_and_the_best_objective(problem: loglinear.Problem) -> None:
    beta = 0.5
    best = loglinear.evaluate(problem, problem.theta / beta, beta=beta)
    uniform = loglinear.evaluate(problem, np.zeros(5), beta=beta)
    assert best["parameter_error"] == 0 and abs(uniform["kl"]) < 1e-12
    np.testing.assert_allclose(uniform["reward"], problem.rewards.mean())
    for seed in range(5):
        near = problem.theta / beta + 0.1 * np.random.default_rng(seed).standard_normal(5)
        other = loglinear.evaluate(problem, near, beta=beta)
        assert other["reward"] - beta * other["kl"] < best["reward"] - beta * best["kl"]


def test_bind_gives_one_object_per_program() -> None:
    assert loglinear.bind("dpo", 0.1) is loglinear.bind("dpo", 0.4) is rlx.dpo
    assert loglinear.bind("rdpo", 0.1) is loglinear.bind("rdpo", 0.1)
    assert loglinear.bind("rdpo", 0.1) is not loglinear.bind("rdpo", 0.2)
