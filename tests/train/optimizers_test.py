"""Optimisers from config blocks: what they do, and what they refuse."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlx.errors import UserError
from rlx.train import optimizers
from rlx.train.optimizers import OptimizerConfig

PARAMS = {"matrix": jnp.ones((2, 2)), "scale": jnp.ones(2)}
GRADS = {"matrix": jnp.full((2, 2), 3.0), "scale": jnp.full(2, 4.0)}


def first_update(**config):
    optimizer = optimizers.build(config, steps=10)
    return optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)[0]


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_every_optimizer_moves_against_the_gradient(name):
    updates = first_update(name=name, learning_rate=0.1)
    assert all(float(update.max()) < 0 for update in updates.values())


def test_weight_decay_leaves_vectors_alone():
    plain, decayed = (first_update(name="adamw", learning_rate=0.1, weight_decay=w) for w in (0.0, 0.5))
    np.testing.assert_allclose(decayed["matrix"] - plain["matrix"], -0.05, rtol=1e-5)
    np.testing.assert_array_equal(decayed["scale"], plain["scale"])


def test_clip_norm_bounds_the_gradient():
    updates = first_update(name="sgd", learning_rate=1.0, clip_norm=0.5)
    np.testing.assert_allclose(optax.tree.norm(updates), 0.5, rtol=1e-6)


def test_schedules_warm_up_and_end_where_they_say():
    def rates(**config):
        rate = optimizers.schedule(OptimizerConfig(learning_rate=1.0, **config), steps=10)
        return [float(rate(step)) for step in (0, 1, 2, 6, 10)]

    np.testing.assert_allclose(rates(), 1.0)
    np.testing.assert_allclose(rates(schedule="constant", warmup_steps=2), [0.5, 1, 1, 1, 1])
    np.testing.assert_allclose(rates(schedule="linear", warmup_steps=2), [0.5, 1, 1, 0.5, 0], atol=1e-7)
    np.testing.assert_allclose(rates(schedule="cosine", warmup_steps=2, end_fraction=0.1), [0.5, 1, 1, 0.55, 0.1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "adamm"}, r"unknown optimizer\.name 'adamm'\. Did you mean 'adam'"),
        ({"schedule": "cosin"}, r"unknown optimizer\.schedule 'cosin'\. Did you mean 'cosine'"),
        ({"lr": 0.1}, r"optimizer has no key 'lr'"),
        ({"name": "adam", "weight_decay": 0.1}, r"optimizer\.weight_decay=0\.1 is not used by 'adam'"),
        ({"momentum": 0.9}, r"optimizer\.momentum=0\.9 is not used by 'adamw'"),
        ({"end_fraction": 0.1}, r"optimizer\.end_fraction=0\.1 is not used by schedule 'constant'"),
        ({"warmup_steps": 11}, r"optimizer\.warmup_steps must lie between 0 and 10, not 11"),
        ({"learning_rate": float("nan")}, r"optimizer\.learning_rate must lie between 0 and inf, not nan"),
    ],
)
def test_mistakes_are_named(config, message):
    with pytest.raises(UserError, match=message):
        optimizers.build(config, steps=10)


def test_switched_off_keys_pass():
    optimizers.build({"name": "adam", "weight_decay": 0.0, "clip_norm": None, "momentum": 0.0}, steps=10)
