"""ADPO over groups of responses: sums of tokens, temperatures, penalties, and the three comparisons."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors
from rlx.preference import anchored, listwise

RNG = np.random.default_rng(0)
NEW, OLD = (-RNG.exponential(1.0, (2, 3, 4)).astype(np.float32) for _ in range(2))
ADVANTAGES = np.array([[[0.3], [-1.0], [0.7]], [[2.0], [2.0], [2.0]]], np.float32)
WHERE = np.arange(4) < np.array([[4, 2, 1], [3, 0, 4]])[..., None]
LOSSES = (anchored.adpo_listwise_tokens, anchored.adpo_softmax, anchored.adpo_plackett_luce, anchored.adpo_all_pairs)


def test_at_a_fixed_temperature_it_is_adpo_of_the_summed_tokens():
    advantages = ADVANTAGES[:1, :, 0]
    relative = (advantages - advantages.mean()) / advantages.std(ddof=1)
    expected = listwise.adpo_listwise(NEW[:1].sum(-1), OLD[:1].sum(-1), relative, tau=0.6)
    found = anchored.adpo_listwise_tokens(NEW[:1], OLD[:1], ADVANTAGES[:1], tau=0.6, alpha=0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_uniform_target_lowers_the_temperature_down_to_its_least():
    uniform = jnp.full(4, 0.25)
    np.testing.assert_allclose(anchored.entropy_temperature(uniform, tau=0.8, alpha=0.5), 0.4, rtol=1e-5)
    np.testing.assert_allclose(anchored.entropy_temperature(uniform, alpha=1.0, tau_min=0.3), 0.3, rtol=1e-6)
    np.testing.assert_allclose(anchored.entropy_temperature(jnp.eye(4)[0], tau=0.8), 0.8, rtol=1e-5)


def test_the_penalty_is_a_mean_over_the_tokens_of_the_batch():
    plain, penalised = (anchored.adpo_listwise_tokens(NEW, OLD, ADVANTAGES, beta_kl=b, where=WHERE) for b in (0.0, 0.3))
    d = (OLD - NEW)[WHERE]
    np.testing.assert_allclose(penalised - plain, 0.3 * np.mean(np.exp(d) - d - 1), rtol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_response_without_tokens_is_no_member(loss):
    kept = np.array([0, 2])
    found = loss(NEW[1], OLD[1], ADVANTAGES[0], where=WHERE[1])
    expected = loss(NEW[1, kept], OLD[1, kept], ADVANTAGES[0, kept], where=WHERE[1, kept])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_advantages_of_tokens_are_read_at_the_first_real_one(loss):
    spread = np.where(np.arange(4) == np.argmax(WHERE, -1)[..., None], ADVANTAGES, np.nan)
    np.testing.assert_array_equal(
        loss(NEW, OLD, spread.astype(np.float32), where=WHERE), loss(NEW, OLD, ADVANTAGES, where=WHERE)
    )


def test_tied_groups_make_no_pairs():
    both = anchored.adpo_all_pairs(NEW, OLD, ADVANTAGES)
    assert both == anchored.adpo_all_pairs(NEW[:1], OLD[:1], ADVANTAGES[:1])
    assert anchored.adpo_all_pairs(NEW[1:], OLD[1:], ADVANTAGES[1:]) == 0


def test_beyond_the_clip_there_is_no_gradient():
    far = NEW.copy()
    far[0, 0] = OLD[0, 0] + 6.0
    slope = jax.grad(anchored.adpo_softmax)(jnp.asarray(far), OLD, ADVANTAGES)
    assert not slope[0, 0].any() and slope[0, 1].any()
    freed = jax.grad(lambda x: anchored.adpo_softmax(x, OLD, ADVANTAGES, clip_log_ratio=9.0, clip_score=99.0))
    assert freed(jnp.asarray(far))[0, 0].any()


def test_selections_written_out():
    u, order = np.array([0.5, -1.0, 2.0]), [2, 0, 1]
    plain = [np.logaddexp.reduce(u[order[k:]]) - u[order[k]] for k in range(3)]
    smooth = [0.8 * x + 0.2 * (np.logaddexp.reduce(u[order[k:]]) - u[order[k:]].mean()) for k, x in enumerate(plain)]
    expected = np.array(smooth) + 0.5 * (1 - np.exp(-np.array(smooth)))
    losses, counted = anchored.selections(jnp.asarray(u), jnp.array([0.0, -1.0, 1.0]), epsilon=0.2, poly=0.5)
    np.testing.assert_allclose(losses[:2], expected[:2], rtol=1e-5)
    np.testing.assert_array_equal(counted, [True, True, False])
    _, first = anchored.selections(jnp.asarray(u), jnp.zeros(3), top_k=1)
    np.testing.assert_array_equal(first, [True, False, False])


def test_the_mean_of_plackett_luce_is_over_groups_and_selections():
    units = anchored.adpo_plackett_luce(NEW, OLD, ADVANTAGES, where=WHERE, reduce=None)
    assert units.shape == (2, 3)
    found = anchored.adpo_plackett_luce(NEW, OLD, ADVANTAGES, where=WHERE)
    np.testing.assert_allclose(found, units.sum() / 3, rtol=1e-6)  # 2 of a group of three, 1 of a group of two


@pytest.mark.parametrize("loss", LOSSES)
def test_wrong_settings_are_named(loss):
    with pytest.raises(errors.UserError, match="tau must be above 0, got 0"):
        loss(NEW, OLD, ADVANTAGES, tau=0)
    with pytest.raises(errors.UserError, match=r"advantages has shape \(2, 3\), but logprobs has shape \(2, 3, 4\)"):
        loss(NEW, OLD, ADVANTAGES[..., 0])
