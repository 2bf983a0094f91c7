"""A prompt that is evaluated once for its group: arrays, loss and parameters after a step are those of whole rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlx
from rlx import models
from rlx.errors import UserError
from rlx.method import Shapes
from rlx.train import sharding, state, step
from rlx.train.forward import Forward

ROWS, GROUP, PROMPT, RESPONSE, VOCAB = 4, 3, 5, 4, 16
CONFIG = {"vocab_size": VOCAB, "num_layers": 2, "hidden_size": 16, "num_heads": 2, "head": "scalar", "init_std": 0.3}
MODEL = models.build(CONFIG)
PARAMS = jax.tree.map(jnp.asarray, MODEL.init(0))
ARRAYS = ("logprobs", "entropy", "logits", "hidden", "rewards", "values", "q_values", "reference_logprobs")


def make_batch() -> dict[str, np.ndarray]:
    """Prompts padded on the left, responses on the right, one of them empty, and a candidate that is none."""
    rng = np.random.default_rng(0)
    prompt = np.repeat(rng.integers(3, VOCAB, (ROWS, 1, PROMPT)), GROUP, 1)
    tokens = np.concatenate([prompt, rng.integers(3, VOCAB, (ROWS, GROUP, RESPONSE))], -1).astype(np.int32)
    lengths = rng.integers(1, RESPONSE + 1, (ROWS, GROUP, 1))
    lengths[0, 0] = 0
    steps = np.broadcast_to(np.arange(PROMPT + RESPONSE), tokens.shape)
    valid = (steps >= rng.integers(0, PROMPT, (ROWS, 1, 1))) & (steps < PROMPT + lengths)
    real = np.ones((ROWS, GROUP), bool)
    real[-1, -1] = False
    noise = rng.normal(size=(ROWS, GROUP, RESPONSE)).astype(np.float32)
    return {
        "tokens": tokens,
        "valid": valid,
        "where": valid & (steps >= PROMPT),
        "candidate_where": real,
        "index": np.arange(ROWS, dtype=np.int32),
        "rewards": rng.random((ROWS, GROUP)).astype(np.float32),
        "old_logprobs": 0.1 * noise - 3,
    }


def test_arrays_are_those_of_whole_rows():
    batch = {name: jnp.asarray(array) for name, array in make_batch().items()}
    other = jax.tree.map(lambda x: 0.9 * x, PARAMS)

    def found(shared_prefix):
        forward = Forward(MODEL, prompt_length=PROMPT, shared_prefix=shared_prefix)
        return jax.jit(lambda: forward(PARAMS, batch, {"reference": other}, ARRAYS))()

    want, shared = found(False), found(True)
    response = want["token_where"]
    for name in ARRAYS:  # what stands at padding means nothing
        where = response if want[name].shape[:3] == response.shape else batch["candidate_where"]
        where = where.reshape(where.shape + (1,) * (want[name].ndim - where.ndim))
        for array in (want, shared):
            array[name] = jnp.where(where, array[name], 0)
        np.testing.assert_allclose(shared[name], want[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("mesh", "micro_batches"), [({}, 2), ({"fsdp": 2, "model": 2}, 1)])
def test_a_step_is_that_on_whole_rows(mesh, micro_batches):
    placed, method, optimizer = sharding.make_mesh(mesh), rlx.build({"name": "grpo", "kl": "k3(0.04)"}), optax.sgd(0.5)
    reference = jax.tree.map(lambda x: 0.9 * x, PARAMS)

    def after(shared_prefix):
        options = {"mesh": placed, "prompt_length": PROMPT, "micro_batches": micro_batches}
        now = state.create_state(MODEL, method, optimizer, Shapes(16, VOCAB, 1), seed=0, mesh=placed)
        run = step.make_train_step(MODEL, method, optimizer, shared_prefix=shared_prefix, **options)
        now, found = run(now, sharding.put_batch(make_batch(), placed), {"reference": reference})
        return jax.device_get((now.params["policy"], found["loss"].value, found["grad_norm"].value))

    want, shared = after(False), after(True)
    assert abs(float(want[2])) > 1e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), shared, want)


def test_a_model_without_the_form_is_refused():
    with pytest.raises(UserError, match=r"no Model\.shared"):
        Forward(MODEL._replace(shared=None), prompt_length=PROMPT, shared_prefix=True)
