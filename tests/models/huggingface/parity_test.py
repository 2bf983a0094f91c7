"""Every family: the logits of transformers, and every form of the model in agreement with the plain one."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import models
from rlx.models.base import capped
from rlx.models.huggingface import files
from rlx.models.huggingface.names import places
from tests.models.huggingface.tiny import LENGTH, PADDING, RAW, numbers, texts, write_config

LOGITS = json.loads(Path(__file__).with_name("logits.json").read_text())
PROMPT = 7


def write(folder, raw):
    """A folder with the weights that belong to the names."""
    from rlx.models.huggingface import config_of

    write_config(folder, raw)
    config, _ = config_of({"name": "hf", "path": str(folder)})
    shapes = models.build({"name": "hf", "path": str(folder)}).shapes()
    sources = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        (place,) = places(config, tuple(entry.key for entry in path))
        shape = leaf.shape[::-1] if place.transposed else leaf.shape
        sources.append(files.Source(place.name, shape, lambda of=(place.name, shape): numbers(*of)))
    files.write(folder / "model.safetensors", sources, "F32")
    return folder


def load(folder, **options):
    model = models.build({"name": "hf", "path": str(folder), **options})
    return model, model.pretrained(0)


def plain(model, params, tokens, valid):
    hidden, unembedding = model.apply(params, tokens, valid)
    return capped(hidden @ unembedding, model.softcap)


def decoded(model, params, tokens, valid, group=2):
    """Logits from the last token of the prompt on, all continuations of a prompt alike, ``[N * group, T, V]``."""
    cache, hidden, unembedding = model.decode.prefill(params, tokens[:, :PROMPT], valid[:, :PROMPT], LENGTH)
    cache = model.decode.fork(cache, group)

    def step(cache, token):
        cache, hidden, _ = model.decode.step(params, cache, token)
        return cache, hidden

    steps = jax.lax.scan(step, cache, jnp.repeat(tokens[:, PROMPT:], group, 0).T)[1].swapaxes(0, 1)
    return jnp.concatenate([jnp.repeat(hidden, group, 0)[:, None], steps], 1) @ unembedding


def shared(model, params, tokens, valid):
    """The same of two responses to each prompt, the second one token shorter."""
    response, real = (jnp.stack([x[:, PROMPT:]] * 2, 1) for x in (tokens, valid))
    real = real.at[:, 1, -1].set(False)
    hidden, unembedding = model.shared(params, tokens[:, :PROMPT], valid[:, :PROMPT], response, real)
    return hidden @ unembedding


def packed(model, params, tokens, valid):
    """Both texts in one row, the padded one first."""
    row = jnp.concatenate([tokens[1, PADDING[1] :], tokens[0], jnp.zeros(2, jnp.int32)])[None]
    sizes = (LENGTH - PADDING[1], LENGTH, 2)
    segments = jnp.concatenate([jnp.full(size, mark) for size, mark in zip(sizes, (1, 2, 0), strict=True)])[None]
    hidden, unembedding = model.packed(params, row, segments)
    return (hidden @ unembedding)[0]


@pytest.mark.parametrize("name", RAW)
def test_logits_are_those_of_transformers_in_every_form(name, tmp_path):
    folder = write(tmp_path / name, RAW[name])
    tokens, valid = texts()

    @jax.jit
    def everything(params):
        forms = (plain, decoded, shared, packed)
        return [form(model, params, jnp.asarray(tokens), jnp.asarray(valid)) for form in forms]

    model, params = load(folder)
    apply, steps, groups, row = everything(params)
    apply = np.asarray(apply)
    np.testing.assert_allclose(apply[valid], LOGITS[name], atol=2e-5, rtol=0)
    steps, groups, row = (np.asarray(capped(x, model.softcap)) for x in (steps, groups, row))
    close = {"atol": 2e-5, "rtol": 0}
    np.testing.assert_allclose(steps, np.repeat(apply[:, PROMPT - 1 :], 2, 0), **close)
    np.testing.assert_allclose(groups[:, 0], apply[:, PROMPT - 1 :], **close)
    np.testing.assert_allclose(groups[:, 1, :-1], apply[:, PROMPT - 1 : -1], **close)
    np.testing.assert_allclose(row[: LENGTH - PADDING[1]], apply[1, PADDING[1] :], **close)
    np.testing.assert_allclose(row[LENGTH - PADDING[1] : -2], apply[0], **close)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_stacked_layers_of_two_kinds_are_those_of_a_list(name, tmp_path):
    """Also in groups, whose masks are of other shapes for layers that slide, rematerialised, in blocks of queries."""
    folder = write(tmp_path / name, RAW[name])
    tokens, valid = map(jnp.asarray, texts())
    model, params = load(folder, scan_layers=True, remat="full", attention_block=5)

    def loss(params):
        return sum((form(model, params, tokens, valid) ** 2).mean() for form in (plain, shared))

    apply = jax.jit(lambda params: plain(model, params, tokens, valid))(params)
    np.testing.assert_allclose(np.asarray(apply)[texts()[1]], LOGITS[name], atol=2e-5, rtol=0)
    gradient = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
