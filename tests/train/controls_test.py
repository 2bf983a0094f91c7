"""Controllers of KL and entropy: terms beside a loss, with state that follows what is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx import method, numerics
from rlx.errors import UserError
from rlx.method import Shapes
from rlx.train.controls import controllers, with_controls


def make_batch():
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    names = ("logprobs", "old_logprobs", "reference_logprobs")
    batch = {name: -jax.random.uniform(key, (2, 2, 3)) for name, key in zip(names, keys, strict=False)}
    where = jnp.array([[[True, True, False], [True, False, False]], [[True, True, True], [True, True, False]]])
    more = {"advantages": jax.random.normal(keys[3], (2, 2, 1)), "entropy": jnp.full((2, 2, 3), 0.3), "where": where}
    return batch | more


def test_the_loss_has_both_terms_and_the_coefficients_move():
    batch, plain = make_batch(), rlx.build("ppo_clip_loss")
    controls = {"kl": "adaptive_kl(0.001, 10, initial=0.5)", "entropy": "step(0.5, 0.1, initial=0.2)"}
    joined = with_controls(plain, controllers(controls))
    params, state = joined.init(jax.random.PRNGKey(0), Shapes())
    d = batch["reference_logprobs"] - batch["logprobs"]
    kl = numerics.mean(jnp.expm1(d) - d, where=batch["where"])
    used = 0.5 * (1 + 0.2 / 10)  # the error is clipped, and the coefficient in use is the one after the measurement
    expected = method.loss(plain, batch, {}, {}) + used * kl - 0.2 * 0.3
    np.testing.assert_allclose(method.loss(joined, batch, params, state), expected, rtol=1e-5)
    _, after = joined.prepare(batch, params, state, None)
    np.testing.assert_allclose([after["controls"]["kl"], after["controls"]["entropy"]], [used, 0.3], rtol=1e-6)
    assert {"reference_logprobs", "entropy"} <= set(joined.needs) & set(joined.prepare_needs)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"kll": "adaptive_kl"}, r"control\.kll is not known\. Did you mean 'kl'"),
        ({"kl": "adaptve_kl"}, r"control\.kl: unknown controller 'adaptve_kl'\. Did you mean 'adaptive_kl'"),
        ({"entropy": "step(rte=1)"}, r"control\.entropy='step\(rte=1\)': .*rte"),
    ],
)
def test_mistakes_are_named(block, message):
    with pytest.raises(UserError, match=message):
        controllers(block)
