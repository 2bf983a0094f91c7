"""Nash-MD's policy gradients and XPO's order of candidates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import errors
from tests.examples.game import game

RNG = np.random.default_rng(4)
LOGPROBS, REFERENCE = (jnp.asarray(-RNG.exponential(1, (2, 3, 4)), jnp.float32) for _ in range(2))
WON = jnp.asarray(RNG.random((2, 3)), jnp.float32)


def test_nash_md_weighs_tokens_by_their_own_log_ratio():
    slope = jax.grad(lambda x: rlx.nash_md(x, REFERENCE, WON, beta=0.3))(LOGPROBS)
    expected = (0.3 * (LOGPROBS - REFERENCE) - (WON - 0.5)[..., None]) / 6
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-7)


def test_nash_md_pg_is_the_gradient_of_the_regularised_payoff(float64):
    """Of p' P q - beta KL(p || ref) at fixed q, up to sign: the expected score function loses nothing."""

    def check():
        preferences, thetas, reference = game(RNG, 4), jnp.asarray(RNG.normal(size=4)), RNG.normal(size=4)
        opponent = jax.nn.softmax(0.6 * thetas + 0.4 * reference)

        def payoff(logits):
            logs = jax.nn.log_softmax(logits)
            return jnp.exp(logs) @ (preferences @ opponent - 0.2 * (logs - jax.nn.log_softmax(reference)))

        options = {"beta": 0.2, "mixture_coef": 0.4}
        slope = jax.grad(lambda x: rlx.nash_md_pg_tabular(x, reference, preferences, **options))(thetas)
        np.testing.assert_allclose(slope, -jax.grad(payoff)(thetas), rtol=1e-9)

    float64(check)


def test_xpo_knows_the_winner_by_its_label():
    policy, reference = LOGPROBS.sum(-1)[:, :2], REFERENCE.sum(-1)[:, :2]
    lost = rlx.xpo(policy, reference, jnp.zeros(2), alpha=0.1)
    expected = rlx.dpo(policy[:, ::-1], reference[:, ::-1]) + 0.1 * policy[:, 1].mean()
    np.testing.assert_allclose(lost, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rlx.nash_md(LOGPROBS, REFERENCE, WON[:, :2]), r"win_rates has shape \(2, 2\)"),
        (lambda: rlx.nash_md(LOGPROBS, REFERENCE[..., :2], WON), "reference_logprobs has shape"),
        (lambda: rlx.nash_md_pg_tabular(WON, WON, LOGPROBS), "preferences has shape"),
        (lambda: rlx.xpo(WON, WON, WON[:, 0]), "a pairwise loss wants"),
        (lambda: rlx.xpo(WON[:, :2], WON[:, :2], WON), "must agree"),
    ],
)
def test_errors(call, message):
    with pytest.raises(errors.UserError, match=message):
        call()
