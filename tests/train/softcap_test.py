"""A model that caps its logits: the sampler and the forward pass of the trainer see the capped ones."""

import jax
import numpy as np

from rlx import models
from rlx.models.base import capped
from rlx.rollout import Sampling, sample
from rlx.train.forward import Forward

PROMPT, SIZE = np.array([[0, 5, 6], [7, 8, 9]], np.int32), 4
MODEL = models.build(
    {
        "vocab_size": 23, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "init_std": 0.5, "softcap": 2.0,
        "attention_softcap": 3.0, "sliding_window": 3, "layer_pattern": ("sliding", "full"), "norm_offset": 1.0,
    }
)  # fmt: skip


def test_what_is_drawn_and_what_is_trained_on_have_the_same_log_probabilities():
    params = MODEL.init(0)
    drawn = sample(MODEL, params, PROMPT, PROMPT > 0, group=2, sampling=Sampling(SIZE), key=jax.random.key(0))
    prompts = np.repeat(PROMPT[:, None], 2, 1)
    tokens = np.concatenate([prompts, drawn.tokens], -1)
    batch = {
        "tokens": tokens,
        "valid": np.concatenate([prompts > 0, drawn.where], -1),
        "where": np.concatenate([np.zeros_like(prompts, bool), drawn.where], -1),
        "candidate_where": np.ones((2, 2), bool),
        "index": np.arange(2, dtype=np.int32),
    }
    names = ("logprobs", "entropy", "policy_logits", "reference_logprobs", "reference_logits", "judge_logits")

    @jax.jit
    def forward(params):
        found = Forward(MODEL, prompt_length=3)(params, batch, {"reference": params}, names)
        hidden, unembedding = MODEL.apply(params, tokens.reshape(-1, 3 + SIZE), batch["valid"].reshape(-1, 3 + SIZE))
        return found, (hidden @ unembedding).reshape(2, 2, 3 + SIZE, -1)

    found, plain = jax.device_get(forward(params))
    want = np.asarray(capped(plain[..., 2:-1, :], 2.0))
    assert np.abs(plain[..., 2:-1, :]).max() > 4 > 2 > np.abs(want).max()  # the cap is felt
    close = {"atol": 1e-5, "rtol": 1e-5}
    np.testing.assert_allclose(found["policy_logits"], want, **close)
    np.testing.assert_allclose(found["reference_logits"], want, **close)
    np.testing.assert_allclose(found["judge_logits"], capped(plain[..., -1, :], 2.0), **close)
    chosen = np.take_along_axis(np.asarray(jax.nn.log_softmax(want)), tokens[..., 3:, None], -1)[..., 0]
    for logprobs in (drawn.logprobs, found["logprobs"], found["reference_logprobs"]):
        np.testing.assert_allclose(logprobs, chosen, **close)
    np.testing.assert_allclose(drawn.entropy, found["entropy"], **close)
