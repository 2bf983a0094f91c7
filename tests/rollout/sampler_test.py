"""The sampler: its log-probabilities are the trainer's, groups share a prompt, distributions are as asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import models, ops
from rlx.errors import UserError
from rlx.rollout import Sampling, engine, sample
from rlx.train import sharding

CONFIG = {"vocab_size": 37, "hidden_size": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "qkv_bias": True}
PROMPT = np.array([[0, 0, 5, 6], [7, 8, 9, 10], [0, 3, 4, 5], [0, 0, 0, 2]], np.int32)
VALID = PROMPT > 0
KEY = jax.random.key(3)


def make(**options):
    model = models.build(CONFIG | options)
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape).astype(p.dtype), model.init(0))


MODEL, PARAMS = make()


def draw(size=5, group=3, model=MODEL, prompt=PROMPT, valid=VALID, mesh=None, params=PARAMS, **options):
    return jax.device_get(
        sample(model, params, prompt, valid, group=group, sampling=Sampling(size, **options), key=KEY, mesh=mesh)
    )


def logits_of(drawn, model=MODEL, params=PARAMS):
    """Logits ``[P, K, M, V]`` of one forward pass over prompts and responses."""
    count, group, size = drawn.tokens.shape
    rows = [np.repeat(x, group, 0) for x in (PROMPT, VALID)]
    tokens = np.concatenate([rows[0], drawn.tokens.reshape(-1, size)], 1)
    valid = np.concatenate([rows[1], drawn.where.reshape(-1, size)], 1)
    hidden, unembedding = jax.jit(model.apply)(params, tokens, valid)
    return np.asarray(ops.predicting(hidden, PROMPT.shape[1]) @ unembedding).reshape(count, group, size, -1)


@pytest.mark.parametrize("scan", [False, True])
def test_log_probabilities_and_entropy_are_those_of_the_trainer(scan):
    model, params = make(scan_layers=scan)
    drawn = draw(model=model, params=params, eos_id=4)
    size = drawn.tokens.shape[-1]
    whole = np.concatenate([np.repeat(PROMPT, 3, 0), drawn.tokens.reshape(-1, size)], 1)
    valid = np.concatenate([np.repeat(VALID, 3, 0), drawn.where.reshape(-1, size)], 1)
    hidden, unembedding = jax.jit(model.apply)(params, whole, valid)
    want = ops.linear_token_statistics(
        ops.predicting(hidden, 4), unembedding, whole[:, 4:], where=valid[:, 4:], statistics=("logp", "entropy")
    )
    np.testing.assert_allclose(drawn.logprobs.reshape(-1, size), want.logp, atol=1e-5)
    np.testing.assert_allclose(drawn.entropy.reshape(-1, size), want.entropy, atol=1e-5)
    np.testing.assert_array_equal(drawn.rollout_logprobs, drawn.logprobs)


def test_paths_without_a_cache_or_without_a_fork_draw_the_same():
    want = draw()
    for decode in (None, MODEL.decode._replace(fork=None)):
        found = draw(model=MODEL._replace(decode=decode))
        np.testing.assert_array_equal(found.tokens, want.tokens)
        np.testing.assert_allclose(found.logprobs, want.logprobs, atol=1e-5)


def test_the_log_probability_of_what_is_drawn_from():
    drawn = draw(temperature=0.7, top_k=20, top_p=0.8, min_p=0.05)
    logits = logits_of(drawn).astype(np.float64) / 0.7
    p = np.exp(logits - logits.max(-1, keepdims=True))
    order = np.argsort(-p, -1, kind="stable")
    ranked = np.take_along_axis(p, order, -1)
    ranked[..., 20:] = 0
    share = ranked / ranked.sum(-1, keepdims=True)
    ranked = np.where(np.cumsum(share, -1) - share < 0.8, ranked, 0)
    ranked = np.where(ranked >= 0.05 * ranked[..., :1], ranked, 0)
    kept = np.zeros_like(p)
    np.put_along_axis(kept, order, ranked / ranked.sum(-1, keepdims=True), -1)
    want = np.take_along_axis(kept, drawn.tokens[..., None], -1)[..., 0]
    assert (want > 0).all()
    np.testing.assert_allclose(drawn.rollout_logprobs, np.log(want), atol=1e-4)


def test_a_group_has_the_frequencies_of_the_policy():
    drawn = draw(size=1, group=3000, top_p=0.9)
    logits = logits_of(draw(size=1, group=1))[:, 0, 0]
    for row, z in zip(drawn.tokens[..., 0], logits, strict=True):
        p = np.asarray(jnp.where(ops.nucleus(jnp.asarray(z), top_p=0.9), jax.nn.softmax(z), 0))
        frequencies = np.bincount(row, minlength=len(z)) / len(row)
        np.testing.assert_allclose(frequencies, p / p.sum(), atol=5 * (0.25 / len(row)) ** 0.5)
        assert not frequencies[p == 0].any()


def test_temperature_follows_the_entropy():
    drawn = draw(temperature=_hot_when_sure)
    logits = logits_of(drawn) / (0.5 + 1 / (1 + drawn.entropy))[..., None]
    want = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), drawn.tokens[..., None], -1)[..., 0]
    np.testing.assert_allclose(drawn.rollout_logprobs, want, atol=1e-5)


def _hot_when_sure(entropy):
    return 0.5 + 1 / (1 + entropy)


def test_temperature_zero_takes_the_most_probable():
    drawn = draw(temperature=0.0)
    np.testing.assert_array_equal(drawn.tokens, logits_of(drawn).argmax(-1))
    assert not drawn.rollout_logprobs.any() and (drawn.logprobs < 0).all()


def test_eos_and_stop_sequences_end_a_response():
    free = draw(size=8)
    eos, stop = int(free.tokens[0, 0, 2]), tuple(int(i) for i in free.tokens[1, 1, 3:5])
    drawn = draw(size=8, eos_id=eos, stop=(stop,), pad_id=36)

    def end(row):
        for i in range(8):
            if row[i] == eos or tuple(row[i - 1 : i + 1]) == stop:
                return i + 1, True
        return 8, False

    for row, tokens, where, length, finished, logprobs in zip(
        free.tokens.reshape(-1, 8), *(x.reshape(-1, *x.shape[2:]) for x in drawn[:5]), strict=True
    ):
        assert (length, finished) == end(row.tolist())
        np.testing.assert_array_equal(where, np.arange(8) < length)
        np.testing.assert_array_equal(tokens[:length], row[:length])
        assert (tokens[length:] == 36).all() and not logprobs[length:].any()
    assert drawn.finished[0, 0] and drawn.finished[1, 1]


def test_padding_and_room_leave_the_tokens_as_they_are():
    want = draw()
    more = draw(size=7, prompt=np.pad(PROMPT, ((0, 2), (3, 0))), valid=np.pad(VALID, ((0, 2), (3, 0))))
    np.testing.assert_array_equal(more.tokens[:4, :, :5], want.tokens)
    assert all(np.isfinite(x).all() for x in more)


@pytest.mark.parametrize("shape", [{"data": 4}, {"data": 2, "fsdp": 2}, {"fsdp": 2, "model": 2}])
def test_a_mesh_changes_nothing(shape):
    mesh = sharding.make_mesh(shape)
    assert MODEL.partition is not None
    params = jax.device_put(PARAMS, sharding.tree_shardings(PARAMS, MODEL.partition(PARAMS), mesh))
    want, found = (draw(eos_id=4, top_p=0.9, params=p, mesh=m) for p, m in ((PARAMS, None), (params, mesh)))
    np.testing.assert_array_equal(found.tokens, want.tokens)
    np.testing.assert_allclose(found.logprobs, want.logprobs, atol=1e-5)
    np.testing.assert_allclose(found.rollout_logprobs, want.rollout_logprobs, atol=1e-5)


def test_stacked_layers_draw_what_a_list_of_layers_does():
    mesh = sharding.make_mesh({"fsdp": 2, "model": 2})
    model = models.build(CONFIG | {"scan_layers": True})
    layers = jax.tree.map(lambda *x: np.stack(x), *PARAMS["layers"].values())
    stacked = PARAMS | {"layers": layers}
    assert model.partition is not None
    params = jax.device_put(stacked, sharding.tree_shardings(stacked, model.partition(stacked), mesh))
    want, found = draw(top_p=0.9), draw(top_p=0.9, model=model, params=params, mesh=mesh)
    np.testing.assert_array_equal(found.tokens, want.tokens)
    np.testing.assert_allclose(found.logprobs, want.logprobs, atol=1e-5)


def test_devices_exchange_no_more_than_whether_they_are_done():
    mesh, sampling = sharding.make_mesh({"data": 4}), Sampling(5, top_p=0.9, eos_id=4)
    program = jax.jit(lambda *x, key: sample(MODEL, *x, group=3, sampling=sampling, key=key, mesh=mesh))
    text = program.lower(PARAMS, PROMPT, VALID, key=KEY).compile().as_text()
    assert "all-gather" not in text and "all-to-all" not in text and "collective-permute" not in text
    assert {line.split()[2] for line in text.splitlines() if " all-reduce(" in line} <= {"pred[]"}


def test_an_engine_is_the_sampler():
    drawn = engine(MODEL, Sampling(5))(PARAMS, PROMPT, VALID, group=3, key=KEY)
    np.testing.assert_array_equal(drawn.tokens, draw().tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "max_new_tokens must be a whole number of at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be a finite number of at least 0"),
        ({"top_k": 0}, "top_k is a number of tokens and must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p is a probability mass and must be in \(0, 1\], got 0.0"),
        ({"min_p": 2.0}, r"min_p is a share of the largest probability and must be in \[0, 1\]"),
        ({"stop": ((1,), ())}, "stop holds an empty sequence"),
        ({"stop": ((1, 99),)}, "stop names token 99, the vocabulary ends at 36"),
        ({"eos_id": 37}, "eos_id names token 37, the vocabulary ends at 36"),
        ({"group": 0}, "group is the number of responses to a prompt and must be at least 1, got 0"),
        ({"valid": VALID[:, ::-1]}, "prompt 0 ends with padding: prompts must be padded on the left"),
        ({"valid": VALID[:2]}, r"prompt_valid has shape \(2, 4\), prompt_tokens \(4, 4\)"),
        ({"prompt": PROMPT[0], "valid": VALID[0]}, r"must be \[prompts, length\].*not of shape \(4,\)"),
        ({"prompt": PROMPT[:3], "valid": VALID[:3], "mesh": {"data": 2}}, "3 prompts do not divide over"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    if "mesh" in options:
        options = options | {"mesh": sharding.make_mesh(options["mesh"])}
    with pytest.raises(UserError, match=message):
        draw(**options)
