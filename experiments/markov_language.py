r"""A language whose every truth is known: an order-1 Markov chain over 32 tokens and a reward that counts sentiment.

Tokens 0-7 are positive, 8-15 negative, the rest neutral; token 32 begins every text. The reward of a text of ``R``
tokens is (positive - negative) / R. A small transformer learns the chain and becomes the reference policy; preference
pairs are two of its samples, labelled by Bradley-Terry on ``scale`` times the reward.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rlx
from rlx import metrics, models, ops
from rlx.method import Shapes
from rlx.models import Model
from rlx.train import optimizers, sharding, state, step

TOKENS, POSITIVE, NEGATIVE, START = 32, slice(0, 8), slice(8, 16), 32
Params = Any


def chain(seed: int, *, sharpness: float) -> np.ndarray:
    """Transition probabilities ``[33, 32]``, the softmax of ``sharpness`` times N(0, 1); the last row begins a text."""
    logits = sharpness * np.random.default_rng([seed, 0]).standard_normal((TOKENS + 1, TOKENS))
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def sample_chain(transitions: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Texts ``[N, R]`` of the chain itself by inverse transform of ``uniforms [N, R]``."""
    cumulative = transitions.cumsum(-1)
    texts = np.empty(uniforms.shape, np.int32)
    previous = np.full(len(uniforms), START)
    for t in range(uniforms.shape[1]):
        previous = np.minimum((cumulative[previous] < uniforms[:, t, None]).sum(-1), TOKENS - 1)
        texts[:, t] = previous
    return texts


def true_reward(texts: np.ndarray) -> np.ndarray:
    """(positive - negative) / R of texts ``[..., R]``.

    >>> true_reward(np.array([0, 7, 8, 31])).item()
    0.25
    """
    values = np.zeros(TOKENS)
    values[POSITIVE], values[NEGATIVE] = 1, -1
    return values[texts].mean(-1)


def batch_of(texts: np.ndarray, index: np.ndarray, **more: np.ndarray) -> dict[str, np.ndarray]:
    """Texts ``[B, K, R]`` as a batch of the trainer: the start token is the prompt, all else the response."""
    start = np.full((*texts.shape[:-1], 1), START, np.int32)
    tokens = np.concatenate([start, texts], -1)
    where = np.ones(tokens.shape, bool)
    where[..., 0] = False
    rows = {"tokens": tokens, "valid": np.ones_like(where), "where": where}
    return rows | {"candidate_where": np.ones(texts.shape[:-1], bool), "index": index.astype(np.int32), **more}


def batches(rows: int, batch_size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of ``steps`` batches: a new order each epoch, what does not fill a batch dropped."""
    rng = np.random.default_rng([seed, 1])
    done = 0
    while True:
        order = rng.permutation(rows)
        for start in range(0, rows - batch_size + 1, batch_size):
            if done == steps:
                return
            yield order[start : start + batch_size]
            done += 1


class Trainer(NamedTuple):
    """One compiled step and what belongs to it; used for every seed of a cell."""

    model: Model
    method: rlx.method.Method
    optimizer: Any
    step: Callable[..., Any]


def trainer(model: Model, method: Mapping[str, Any], optimizer: Mapping[str, Any], steps: int) -> Trainer:
    """The library's train step for a method config, on one device."""
    built, transform = rlx.build(method), optimizers.build(optimizer, steps)
    return Trainer(
        model, built, transform, step.make_train_step(model, built, transform, mesh=_mesh(), prompt_length=1)
    )


def train(
    trainer: Trainer,
    policy: Params | None,
    data: Mapping[str, np.ndarray],
    *,
    batch_size: int,
    steps: int,
    seed: int,
    watch: Callable[[int, Params], None] = lambda step, policy: None,
) -> tuple[Params, dict[str, float]]:
    """Trains from ``policy`` (None: a fresh one) on the rows of ``data``; returns parameters and the last metrics.

    ``watch`` sees the parameters after every step; the next step overwrites them.
    """
    mesh = _mesh()
    current = state.create_state(
        trainer.model, trainer.method, trainer.optimizer, Shapes(), seed=seed, mesh=mesh, policy=policy
    )
    reported: dict[str, metrics.Mean] = {}
    for done, rows in enumerate(batches(len(data["index"]), batch_size, steps, seed), 1):
        batch = sharding.put_batch({name: array[rows] for name, array in data.items()}, mesh)
        current, reported = trainer.step(current, batch, {})
        watch(done, current.params["policy"])
    return current.params["policy"], metrics.values(reported)


def train_reference(model: Model, config: Mapping[str, Any]) -> Params:
    """Supervised training on texts of the chain: the reference policy, the same for every seed of an experiment.

    Args:
      model: from :func:`build_model`.
      config: ``chain{seed, sharpness}``, ``length``, ``reference{seed, texts, steps, batch_size}`` and
        ``reference_optimizer``, as experiments/rdpo_noise_language.py has them.
    """
    options = dict(config["reference"])
    uniforms = np.random.default_rng([options["seed"], 5]).random((options.pop("texts"), config["length"]))
    texts = sample_chain(chain(**config["chain"]), uniforms)
    supervised = trainer(model, {"name": "sft"}, config["reference_optimizer"], options["steps"])
    return train(supervised, None, batch_of(texts[:, None], np.arange(len(texts))), **options)[0]


@functools.partial(jax.jit, static_argnums=0)
def sample(model: Model, params: Params, uniforms: jax.Array) -> jax.Array:
    """Texts ``[N, R]`` by inverse transform of ``uniforms [N, R]``: equal numbers give policies a common fate."""
    count, length = uniforms.shape
    start = jnp.full((count, 1), START, jnp.int32)
    cache, hidden, unembedding = model.decode.prefill(params, start, None, length + 1)

    def choose(hidden: jax.Array, uniform: jax.Array) -> jax.Array:
        cumulative = jnp.cumsum(jax.nn.softmax(hidden @ unembedding)[:, :TOKENS], -1)
        return jnp.sum(cumulative < uniform[:, None] * cumulative[:, -1:], -1).astype(jnp.int32)

    def one(carry: tuple[Any, jax.Array], uniform: jax.Array) -> tuple[tuple[Any, jax.Array], jax.Array]:
        cache, hidden = carry
        token = choose(hidden, uniform)
        cache, hidden, _ = model.decode.step(params, cache, token)
        return (cache, hidden), token

    (_, hidden), tokens = jax.lax.scan(one, (cache, hidden), uniforms.T[:-1])
    return jnp.concatenate([tokens, choose(hidden, uniforms[:, -1])[None]]).T


@functools.partial(jax.jit, static_argnums=0)
def kl_to(model: Model, params: Params, reference: Params, texts: jax.Array) -> jax.Array:
    """``[N]``: sum over the positions of sampled texts of the exact KL(policy || reference) of the next token, nats."""
    inputs = jnp.pad(texts[:, :-1], ((0, 0), (1, 0)), constant_values=START)
    logits = [hidden @ unembedding for hidden, unembedding in (model.apply(p, inputs) for p in (params, reference))]
    return ops.token_statistics(logits[1], texts, statistics=("kl",), other=logits[0]).kl.sum(-1)


@functools.cache
def scorer(model: Model) -> Callable[..., dict[str, jax.Array]]:
    """The library's compiled ``(params, batch) -> {"logps": [B, K]}``."""
    return step.make_score(model, mesh=_mesh(), prompt_length=1)


def preference_pairs(texts: np.ndarray, scale: float, seed: int) -> np.ndarray:
    """Texts ``[N, 2, R]`` with the preferred one first: Bradley-Terry on ``scale`` times the true reward."""
    reward = scale * true_reward(texts)
    probability = (1 + np.tanh((reward[:, 0] - reward[:, 1]) / 2)) / 2
    first_wins = np.random.default_rng([seed, 2]).random(len(texts)) < probability
    return np.where(first_wins[:, None, None], texts, texts[:, ::-1])


def flip(pairs: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """Exchanges the two members of pairs ``[N, 2, ...]`` with probability ``rate``.

    The same pairs are exchanged in every array of a seed, and those exchanged at a low rate also at a higher one.
    """
    flipped = np.random.default_rng([seed, 3]).random(len(pairs)) < rate
    return np.where(flipped.reshape(-1, *(1,) * (pairs.ndim - 1)), pairs[:, ::-1], pairs)


def build_model(sizes: Mapping[str, Any]) -> Model:
    """A transformer over the language's 33 tokens."""
    return models.build({"name": "transformer", "vocab_size": TOKENS + 1, **sizes})


@functools.cache
def _mesh() -> jax.sharding.Mesh:
    return sharding.make_mesh()
