"""Bring your own model: a factory named in the config, used through the Policy protocol."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import models, ops
from rlx.errors import UserError

NAME = "tests.models.user_model:factory"


def test_a_users_model_trains_through_the_protocol():
    model = models.build({"name": NAME, "vocab_size": 7})
    params = model.init(0)
    tokens = jnp.array([[1, 2, 3, 4]])

    def loss(params):
        hidden, unembedding = model.apply(params, tokens)
        window = ops.predicting(hidden, 1)
        return -ops.linear_token_statistics(window, unembedding, tokens[:, 1:]).logp.mean()

    gradient = jax.jit(jax.grad(loss))(params)
    improved = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    assert loss(improved) < loss(params)
    assert model.partition is None and model.head is None and model.decode is None


def test_a_users_model_sees_no_padding():
    model = models.build({"name": NAME})
    params = model.init(0)
    left = model.apply(params, jnp.array([[9, 1, 2]]), jnp.array([[False, True, True]]))[0]
    np.testing.assert_allclose(left[:, 1:], model.apply(params, jnp.array([[1, 2]]))[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "transfomer"}, "unknown model 'transfomer'. Did you mean 'transformer'"),
        ({"name": "tests.models.user_modle:factory"}, "no module 'tests.models.user_modle'"),
        ({"name": "tests.models.user_model:factroy"}, "has no 'factroy'. Did you mean 'factory'"),
        ({"name": NAME, "vocab_sise": 3}, "no option 'vocab_sise'. Did you mean 'vocab_size'"),
    ],
)
def test_messages(config, message):
    with pytest.raises(UserError, match=message):
        models.build(config)
