"""The arrays that the forward pass gives, against the same on whole logits."""

import jax
import jax.numpy as jnp
import numpy as np

from rlx import models, ops
from rlx.train.forward import Forward

PROMPT, RESPONSE, VOCAB = 2, 4, 16


def test_statistics_of_tokens_are_those_of_whole_logits():
    config = {"name": "transformer", "vocab_size": VOCAB, "num_layers": 1, "hidden_size": 16, "num_heads": 2}
    model = models.build(config)
    params = model.init(0)
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, VOCAB, (2, 1, PROMPT + RESPONSE)))
    valid = jnp.ones(tokens.shape, bool)
    where = valid.at[..., :PROMPT].set(False)
    batch = {"tokens": tokens, "valid": valid, "where": where, "candidate_where": jnp.ones((2, 1), bool)}
    names = ("logprobs", "entropy", "renyi2", "top_p_entropy", "expected_discriminator")
    forward = Forward(model, prompt_length=PROMPT)
    found = jax.jit(lambda params: forward(params, batch, {}, names))({"policy": params})
    hidden, unembedding = model.apply(params, tokens[:, 0], valid[:, 0])
    logits = (hidden @ unembedding)[:, None, PROMPT - 1 : -1]
    targets = tokens[..., PROMPT:]
    want = {
        "logprobs": ops.token_statistics(logits, targets).logp,
        "entropy": ops.token_entropy(logits),
        "renyi2": ops.renyi_entropy(logits),
        "top_p_entropy": ops.top_p_entropy(logits, rule="strict"),
        "expected_discriminator": ops.entropy_discriminator(logits, targets).expected,
    }
    for name, array in want.items():
        np.testing.assert_allclose(found[name], array, atol=2e-6, err_msg=name)
